"""Gradient flow against plain autograd, and as a probe before and after mask updates."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch
from conftest import double, toy_data
from torch.nn import functional as F

from lth.analysis.gradient_flow import GradientFlow, of_guessing, parts
from lth.data import Split
from lth.gradients import mean_gradients
from lth.methods import init, prune
from lth.methods.dst import DST
from lth.models import Model
from lth.population import Population, concat
from lth.store.runs import Store
from lth.training import train as train_module
from lth.training.plan import Probe
from lth.training.recipe import Recipe

train = train_module.train


@pytest.fixture
def sparse() -> Population:
    """Two networks with nine tenths of their weights pruned, float64."""
    dense = double(init.glorot_uniform(Model("lenet_300_100"), seeds=[0, 1], method="RigL"))
    return prune.apply(dense, prune.magnitude_masks_per_layer(dense, 0.9))


def test_weights_and_biases_apart(sparse, toy):
    weights, biases = parts(sparse, toy.train)
    dense, _ = mean_gradients(sparse, toy.train)
    by_hand = sum((dense[n] * mask).square().sum((-1, -2)) for n, mask in sparse.masks.items())
    assert weights.tolist() == pytest.approx(by_hand.tolist())
    whole = GradientFlow(len(toy.train))(sparse, toy)["gradient_flow"]
    assert (weights + biases).tolist() == pytest.approx(whole.tolist())


def test_a_network_that_says_nothing_learns_how_frequent_each_class_is(sparse, toy):
    """All weights are zero: the outputs' biases have all the flow there is."""
    weights, biases = parts(sparse.with_theta(torch.zeros_like(sparse.theta())), toy.train)
    assert weights.tolist() == [0, 0] and biases.tolist() == pytest.approx([of_guessing(toy.train, 10)] * 2)
    even = Split(toy.train.images[:20], torch.arange(20) % 10)
    assert of_guessing(even, 10) == pytest.approx(0, abs=1e-15)


def test_it_is_the_squared_norm_over_the_weights_that_are_there(sparse, toy):
    found = GradientFlow(block=60)(sparse, toy)["gradient_flow"]
    for r in range(2):
        module = sparse.module(r)
        rows = torch.arange(60) * 200 // 60  # evenly over all
        loss = F.cross_entropy(module(toy.train.pixels(rows).double()), toy.train.labels[rows])
        loss.backward()
        grads = torch.cat([p.grad.flatten() for p in module.parameters()])
        mask = sparse.theta_mask()[r]
        torch.testing.assert_close(found[r], grads[mask].square().sum(), rtol=1e-12, atol=0)
        assert found[r] < grads.square().sum()


def test_it_belongs_to_the_weights_not_to_the_function(sparse, toy):
    """A layer times c and the next by 1/c compute the same; the flow changes as the gradients do, by 1/c² and c²."""
    parts = {}
    gradients, _ = mean_gradients(sparse, toy.train.evenly(60, first=True))
    for name, gradient in gradients.items():
        layer = name.split(".")[0]
        active = gradient * sparse.masks.get(name, 1)
        parts[layer] = parts.get(layer, 0) + active.flatten(1).square().sum(1)
    c = 3.0
    scales = {"fc1.weight": c, "fc1.bias": c, "fc2.weight": 1 / c}
    params = {name: tensor * scales.get(name, 1) for name, tensor in sparse.params.items()}
    scaled = replace(sparse, params=params)
    torch.testing.assert_close(scaled.logits(toy.train), sparse.logits(toy.train))
    second = (gradients["fc2.weight"] * sparse.masks["fc2.weight"]).flatten(1).square().sum(1)
    told = parts["fc1"] / c**2 + second * c**2 + (parts["fc2"] - second) + parts["fc3"]
    torch.testing.assert_close(GradientFlow(block=60)(scaled, toy)["gradient_flow"], told)


def test_gradients_of_many_images_are_the_mean_over_all(sparse, toy, monkeypatch):
    monkeypatch.setattr("lth.gradients.CHUNK", 70)  # 200 images: three pieces, the last one smaller
    grads, loss = mean_gradients(sparse, toy.train)
    monkeypatch.setattr("lth.gradients.CHUNK", 1000)
    whole, expected = mean_gradients(sparse, toy.train)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, whole[name], rtol=0, atol=1e-14)


def test_a_block_of_sorted_data_shows_every_class(sparse, toy):
    """Image folders are sorted by class: the flow of a block is about that of the same images shuffled."""
    rows = toy.train.labels.argsort(stable=True)
    order = replace(toy, train=Split(toy.train.images[rows], toy.train.labels[rows]))
    for network in (GradientFlow(block=100), lambda p, d: {"gradient_flow": flow_of_first(p, d, 100)}):
        ratio = network(sparse, order)["gradient_flow"] / network(sparse, toy)["gradient_flow"]
        assert ((ratio > 0.5) & (ratio < 2)).all() == isinstance(network, GradientFlow)


def flow_of_first(population, data, count):
    grads, _ = mean_gradients(population, Split(data.train.images[:count], data.train.labels[:count]))
    return sum((g * population.masks.get(n, 1)).flatten(1).square().sum(1) for n, g in grads.items())


def test_one_image_more_than_a_piece_is_no_leftover(monkeypatch):
    """Batch norm has no variance of one image; pieces are of equal size."""
    monkeypatch.setattr("lth.gradients.CHUNK", 25)
    population = double(init.kaiming_normal(Model("resnet20", (3, 16, 16), 4), seeds=[0]))
    images = toy_data(151, (3, 16, 16), 4).train
    assert len(images) == 51
    grads, _ = mean_gradients(population, images)
    parts = [mean_gradients(population, Split(images.images[p], images.labels[p]))[0] for p in images.pieces(25)]
    for name, grad in grads.items():
        torch.testing.assert_close(grad, sum(part[name] for part in parts) / 3, rtol=1e-9, atol=1e-12)


def test_batch_norm_keeps_its_statistics():
    population = double(init.kaiming_normal(Model("resnet20", (3, 16, 16), 4), seeds=[0, 1]))
    data = toy_data(150, (3, 16, 16), 4)
    before = {n: b.clone() for n, b in population.buffers.items()}
    together, _ = mean_gradients(population, data.train)
    for n, buffer in population.buffers.items():
        assert torch.equal(buffer, before[n])
    module = population.module(1).train()
    F.cross_entropy(module(data.train.pixels(torch.arange(50)).double()), data.train.labels).backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(together[name][1], parameter.grad, rtol=0, atol=1e-12)


def test_around_each_update_it_is_recorded_before_and_after(sparse, toy, monkeypatch):
    monkeypatch.setattr("lth.training.group.LOG_EVERY", 1000)
    rule = DST("gradient", every=4, end=12, drop_fraction=0.5, block=100)
    probe = Probe(10, GradientFlow(50), around_updates=True)
    recipe = Recipe(steps=12, batch_size=20)
    run = train(sparse, toy, recipe, updates={"RigL": rule}, probes=[probe], keep=[4])
    history = run.history[run.history.seed == 0].set_index("step")
    assert history.index.tolist() == [0, 4, 8, 10, 12]
    assert history.gradient_flow.notna().all()
    assert history.gradient_flow_before.notna().tolist() == [False, True, True, False, False]
    after = GradientFlow(50)(run.at(4), toy)["gradient_flow"]
    assert history.gradient_flow[4] == pytest.approx(after[0].item(), rel=1e-12)
    assert history.gradient_flow_before[4] != history.gradient_flow[4]


def test_each_replica_has_the_rows_of_its_own_rule_in_any_company(sparse, toy, monkeypatch, tmp_path):
    """Rows at mask updates belong to those updated: on one device as on another, alone as together, stored or not."""
    monkeypatch.setattr("lth.training.group.LOG_EVERY", 6)
    networks = concat([sparse.label(method=method) for method in ("Scratch", "RigL", "SET")])
    rules = {"RigL": DST("gradient", 4, 12, block=100), "SET": DST("random", 5, 12, block=100)}
    how = {"probes": [Probe(9, GradientFlow(50), around_updates=True)], "keep": [4]}
    recipe = Recipe(steps=12, batch_size=20)
    together = train(networks, toy, recipe, updates=rules, **how).history
    steps = {method: rows.step.tolist() for method, rows in together[together.seed == 1].groupby("method")}
    assert steps == {"Scratch": [0, 6, 9, 12], "RigL": [0, 4, 6, 8, 9, 12], "SET": [0, 5, 6, 9, 10, 12]}
    before = together.dropna(subset="gradient_flow_before")
    assert before.groupby("method").step.unique().map(list).to_dict() == {"RigL": [4, 8], "SET": [5, 10]}
    assert together.loss.isna().tolist() == together.step.isin([0, 4, 5, 8, 10]).tolist()

    stored = Store(tmp_path).train(networks, toy, recipe, updates=rules, **how).history
    pd.testing.assert_frame_equal(stored, together, rtol=1e-12)
    monkeypatch.setattr(train_module, "group_size", len)
    stacked = train(networks, toy, recipe, updates=rules, **how).history
    pd.testing.assert_frame_equal(stacked, together, rtol=1e-9)
    scratch = train(networks[[0, 1]], toy, recipe, **how).history
    assert "gradient_flow_before" not in scratch
    shared = together[together.method == "Scratch"].drop(columns="gradient_flow_before").reset_index(drop=True)
    pd.testing.assert_frame_equal(scratch, shared, rtol=1e-12)
