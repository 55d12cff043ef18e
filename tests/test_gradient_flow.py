"""Gradient flow against plain autograd, and as a probe before and after mask updates."""

from __future__ import annotations

import pytest
import torch
from conftest import double
from torch.nn import functional as F

from lth.analysis.gradient_flow import GradientFlow
from lth.gradients import mean_gradients
from lth.methods import init, prune
from lth.methods.dst import DST
from lth.models import Model
from lth.population import Population
from lth.recipe import Recipe
from lth.train import Probe, train


@pytest.fixture
def sparse() -> Population:
    """Two networks with nine tenths of their weights pruned, float64."""
    dense = double(init.glorot_uniform(Model("lenet_300_100"), seeds=[0, 1], method="RigL"))
    return prune.apply(dense, prune.magnitude_masks_per_layer(dense, 0.9))


def test_it_is_the_squared_norm_over_the_weights_that_are_there(sparse, toy):
    found = GradientFlow(block=60)(sparse, toy)["gradient_flow"]
    for r in range(2):
        module = sparse.module(r)
        loss = F.cross_entropy(module(toy.train.pixels(torch.arange(60)).double()), toy.train.labels[:60])
        loss.backward()
        grads = torch.cat([p.grad.flatten() for p in module.parameters()])
        mask = sparse.theta_mask()[r]
        torch.testing.assert_close(found[r], grads[mask].square().sum(), rtol=1e-12, atol=0)
        assert found[r] < grads.square().sum()


def test_gradients_of_many_images_are_the_mean_over_all(sparse, toy, monkeypatch):
    monkeypatch.setattr("lth.gradients.CHUNK", 70)  # 200 images: three pieces, the last one smaller
    grads, loss = mean_gradients(sparse, toy.train)
    monkeypatch.setattr("lth.gradients.CHUNK", 1000)
    whole, expected = mean_gradients(sparse, toy.train)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, whole[name], rtol=0, atol=1e-14)


def test_batch_norm_keeps_its_statistics():
    from conftest import toy_data

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
    monkeypatch.setattr("lth.engine.LOG_EVERY", 1000)
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
