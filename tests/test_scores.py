"""SNIP, GraSP and SynFlow against plain autograd, and what sets SynFlow apart."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from conftest import double, toy_data
from torch.nn import functional as F

from lth.data import Split
from lth.errors import UsageError
from lth.methods import init, prune, scores
from lth.models import Model
from lth.population import Population


@pytest.fixture(scope="module")
def few(request) -> Split:
    train = request.getfixturevalue("toy").train
    return Split(train.images[:30], train.labels[:30])


@pytest.fixture(scope="module")
def resnets() -> Population:
    return double(init.kaiming_normal(Model("resnet20", (3, 16, 16), 4), seeds=[0, 1]))


@pytest.fixture(scope="module")
def coloured() -> Split:
    return toy_data(140, (3, 16, 16), 4).train


def weights(module: torch.nn.Module, population: Population) -> dict[str, torch.Tensor]:
    return {n: p for n, p in module.named_parameters() if n in population.masks}


def loss_of(module: torch.nn.Module, split: Split) -> torch.Tensor:
    return F.cross_entropy(module(split.pixels(torch.arange(len(split))).double()), split.labels)


def test_snip_is_weight_times_gradient(resnets, coloured):
    found = scores.snip(resnets, coloured)
    for r in range(2):
        module = copy.deepcopy(resnets.module(r)).train()
        own = weights(module, resnets)
        for (name, w), g in zip(own.items(), torch.autograd.grad(loss_of(module, coloured), own.values()), strict=True):
            torch.testing.assert_close(found[name][r], (w * g).abs().detach(), rtol=1e-9, atol=1e-15)


def test_grasp_is_weight_times_the_gradient_of_the_flow(resnets, coloured):
    """H g from finite differences of the gradient; without the kinks of ReLU, which they would stumble over."""
    smooth = replace(resnets, model=replace(resnets.model, activation="swish"))
    pruned = prune.apply(smooth, prune.magnitude_masks(smooth, 0.3))
    found = scores.grasp(pruned, coloured, temperature=2.0)
    before = {n: b.clone() for n, b in pruned.buffers.items()}
    for r in range(2):
        module = copy.deepcopy(pruned.module(r)).train()
        own, masks = weights(module, pruned), {n: m[r] for n, m in pruned.masks.items()}

        def gradient(module: torch.nn.Module = module, own: dict = own, masks: dict = masks) -> torch.Tensor:
            images = coloured.pixels(torch.arange(len(coloured))).double()
            loss = F.cross_entropy(module(images) / 2.0, coloured.labels)
            found = torch.autograd.grad(loss, own.values())
            return torch.cat([(g * m).flatten() for g, m in zip(found, masks.values(), strict=True)])

        g = gradient()
        h = 1e-5 / g.norm()
        sides = []
        for move in (h, -2 * h):
            with torch.no_grad():
                for w, step in zip(own.values(), g.split([w.numel() for w in own.values()]), strict=True):
                    w += move * step.view_as(w)
            sides.append(gradient())
        with torch.no_grad():
            for w, step in zip(own.values(), g.split([w.numel() for w in own.values()]), strict=True):
                w += h * step.view_as(w)
        product = (sides[0] - sides[1]) / (2 * h)
        expected = torch.cat([w.detach().flatten() for w in own.values()]) * product
        torch.testing.assert_close(
            torch.cat([found[n][r].flatten() for n in own]), expected, rtol=1e-4, atol=1e-6 * expected.abs().max()
        )
    assert all(torch.equal(b, before[n]) for n, b in pruned.buffers.items())


def test_synflow_conserves_the_sum_of_every_layer(toy):
    """Without biases as much flows through each layer; and the score is autograd's."""
    networks = double(init.glorot_normal(Model("lenet5"), seeds=[0, 1]))
    networks = prune.apply(networks, prune.magnitude_masks(networks, 0.5))
    found = scores.synflow(networks)
    sums = torch.stack([score.flatten(1).sum(1) for score in found.values()])
    torch.testing.assert_close(sums, sums[:1].expand_as(sums), rtol=1e-9, atol=0)
    module = copy.deepcopy(networks.module(1))
    with torch.no_grad():
        for p in module.parameters():
            p.abs_()
    module(torch.ones(1, 1, 28, 28).double()).sum().backward()
    for name, p in weights(module, networks).items():
        torch.testing.assert_close(found[name][1], (p * p.grad).detach(), rtol=1e-9, atol=0)


@pytest.mark.filterwarnings("ignore:.*has no weights left")
@pytest.mark.thorough
def test_synflow_does_not_collapse_where_magnitude_does():
    """One layer with small weights: by magnitude it is emptied, SynFlow keeps what the flow needs."""
    networks = init.glorot_normal(Model("lenet_300_100"), seeds=[0, 1])
    networks.params["fc2.weight"] *= 0.01
    by_size = prune.magnitude_masks(networks, 0.98)
    assert not by_size["fc2.weight"].any()
    masks = scores.synflow_masks(networks, 0.98)
    total = sum(m[0].numel() for m in masks.values())
    assert sum(m.flatten(1).sum(1) for m in masks.values()).tolist() == [round(0.02 * total)] * 2
    assert all(m.flatten(1).sum(1).min() > 10 for m in masks.values())
    with pytest.raises(UsageError, match="fraction of zeros"):
        scores.synflow_masks(networks, 1.0)


def test_scores_do_not_depend_on_the_company(toy, few):
    networks = double(init.glorot_normal(Model("lenet5"), seeds=[0, 1, 2]))
    for of in (lambda p: scores.snip(p, few), lambda p: scores.grasp(p, few), scores.synflow):
        together, alone = of(networks), of(networks[[2]])
        for n in alone:  # one thread or two: the last bits differ
            torch.testing.assert_close(together[n][2], alone[n][0], rtol=1e-9, atol=1e-9 * float(alone[n].abs().max()))
        assert all(score.shape == networks.params[n].shape for n, score in together.items())


def test_scores_that_tell_nothing(few):
    networks = init.glorot_normal(Model("lenet5"), [0, 1])
    broken = replace(networks, params={n: p.clone() for n, p in networks.params.items()})
    broken.params["fc2.weight"][1] = 0
    with pytest.raises(UsageError, match="all scores of replica 1 are zero: no signal"):
        scores.synflow(broken)
    found = scores.snip(networks, few)
    found["fc2.weight"][1] = torch.nan
    with pytest.raises(UsageError, match="are not numbers"):
        prune.without_lowest(networks, found, 0.5)


def test_synflow_leaves_exactly_as_many_as_other_masks():
    network = init.kaiming_normal(Model("lenet_300_100"), seeds=[0])
    left = prune.apply(network, scores.synflow_masks(network, 0.9, rounds=3)).weights_left().item()
    assert left == round(network.weights_left().item() * (1 - 0.9))
    assert left == prune.apply(network, prune.masks_at_random(network, 0.9)).weights_left().item()


def test_one_weight_of_eleven_millions_counts():
    """More than float32 can tell apart."""
    network = init.kaiming_normal(Model("resnet18", (3, 32, 32)), seeds=[0])
    network.masks["fc.weight"][0, 0, 0] = False
    total = sum(mask.numel() for mask in network.masks.values())
    assert network.weights_left().item() == total - 1
    assert network.sparsity().item() == pytest.approx(1 / total, rel=1e-9)
