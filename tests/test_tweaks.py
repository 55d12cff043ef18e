"""Tweaks of a ticket: what stays the same, and what learned scales achieve."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import double, toy_data
from torch.nn import functional as F

from lth.data import Split
from lth.errors import UsageError
from lth.methods import init, prune, tweaks
from lth.models import Model
from lth.population import Population

SMALL = Model("resnet20", (3, 16, 16), 4)


@pytest.fixture(scope="module")
def tickets() -> Population:
    networks = double(init.kaiming_normal(SMALL, seeds=[0, 1], method="LTH"))
    return prune.apply(networks, prune.magnitude_masks(networks, 0.8))


@pytest.fixture(scope="module")
def images() -> Split:
    return toy_data(400, (3, 16, 16), 4).train


def test_a_changed_network_keeps_weights_masks_and_frame(tickets):
    changed = tweaks.change(tickets, activation="swish", skips="conv")
    assert changed.model.activation == "swish" and changed.model.skips == "conv"
    assert all(torch.equal(changed.params[n], p) for n, p in tickets.params.items())
    assert all(torch.equal(changed.masks[n], m) for n, m in tickets.masks.items())
    assert changed.frame.equals(tickets.frame)
    new = set(changed.params) - set(tickets.params)
    assert new and all(".skip" in n for n in new) and changed.params[min(new)].dtype == torch.float64
    with pytest.raises(UsageError, match="added, not taken away"):
        tweaks.change(changed, skips="none")
    with pytest.raises(UsageError, match="supports skips none"):
        tweaks.change(init.glorot_uniform(Model("lenet5"), [0]), skips="plain")


def test_at_zero_skip_weight_it_is_the_old_network(tickets, images):
    changed = tweaks.change(tickets, skips="conv")
    for n, p in changed.params.items():
        if n not in tickets.params and n.endswith("0.weight"):
            p.zero_()
    torch.testing.assert_close(changed.logits(images), tickets.logits(images), rtol=0, atol=1e-12)


def test_sparsity_with_the_skips_counts_them(tickets):
    changed = tweaks.change(tickets, skips="conv")
    kept = sum(m.sum(dtype=torch.float64) for m in tickets.masks.values()) / 2
    prunable = sum(m[0].numel() for m in tickets.masks.values())
    skips = sum(p[0].numel() for n, p in changed.params.items() if ".skip" in n and p.ndim == 5)
    assert skips > 0
    expected = 1 - (kept + skips) / (prunable + skips)
    torch.testing.assert_close(tweaks.sparsity_in_all(changed).double(), expected.expand(2), rtol=1e-6, atol=0)
    torch.testing.assert_close(tweaks.sparsity_in_all(tickets), tickets.sparsity())


def first_step(population: Population, images: Split) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss on other images after a step of SGD at 0.1, and the norm of its gradient, means of two steps: (R,) both."""
    losses, norms = torch.zeros(2, len(population)).double()
    for r in range(len(population)):
        for start in range(0, 120, 60):
            module = copy.deepcopy(population.module(r))
            x, y = images.pixels(torch.arange(len(images))).double(), images.labels
            F.cross_entropy(module(x[start : start + 60]), y[start : start + 60]).backward()
            square = 0.0
            with torch.no_grad():
                for n, p in module.named_parameters():
                    grad = p.grad * population.masks[n][r] if n in population.masks else p.grad
                    square += grad.square().sum()
                    p -= 0.1 * grad
                losses[r] += F.cross_entropy(module(x[120:]), y[120:]) / 2
            norms[r] += square.sqrt() / 2
    return losses, norms


@pytest.mark.parametrize("limit", [100.0, 0.0])
def test_learned_scales_lower_the_loss_of_the_first_step_or_the_gradient(limit):
    networks = double(init.glorot_normal(Model("lenet5"), seeds=[0, 1]))
    networks = prune.apply(networks, prune.magnitude_masks(networks, 0.8))
    train = toy_data(500).train
    learn, held_out = (Split(train.images[rows], train.labels[rows]) for rows in (slice(200), slice(200, 400)))
    how = {"batch_size": 60, "iterations": 80 if limit else 20, "rate": 0.05, "limit": limit}
    scaled = tweaks.gradinit(networks, learn, **how)
    (loss, norm), (loss_after, norm_after) = first_step(networks, held_out), first_step(scaled, held_out)
    assert (loss_after < loss - 0.01).all() if limit else (norm_after < 0.6 * norm).all()
    for name, param in scaled.params.items():
        for r in range(2):
            there = networks.params[name][r] != 0
            factors = (param[r] / networks.params[name][r])[there]
            if factors.numel():
                assert factors.min() > 0 and torch.allclose(factors, factors[:1])  # one number, and no sign turned
            assert not param[r][~there].any()
    alone = tweaks.gradinit(networks[[1]], learn, **how)
    torch.testing.assert_close(alone.theta()[0], scaled.theta()[1], rtol=1e-6, atol=1e-9)


def test_the_norm_of_the_gradient_stays_at_its_limit():
    """It falls to the limit, and not far below it: what was learned while it fell does not drive it on."""
    networks = double(init.kaiming_normal(Model("resnet8", (3, 16, 16), 4), seeds=[0, 1]))
    images = toy_data(500, (3, 16, 16), 4).train
    _, before = first_step(networks, images)
    _, after = first_step(tweaks.gradinit(networks, images, batch_size=60, iterations=30, rate=0.05), images)
    assert (before > 5).all() and (after > 0.7).all() and (after < 1.4).all(), after


def test_scales_of_a_network_with_batch_norm(tickets, images):
    """The population's statistics stay as they are, and all its tensors get factors."""
    before = {n: b.clone() for n, b in tickets.buffers.items()}
    scaled = tweaks.gradinit(tickets[[0]], images, batch_size=20, iterations=2)
    assert all(torch.equal(b, before[n]) for n, b in tickets.buffers.items())
    assert not torch.equal(scaled.params["bn1.weight"], tickets.params["bn1.weight"][[0]])


def test_scales_of_layers_before_batch_norm_change_nothing(tickets, images):
    """In training mode, where the statistics are those of the batch: up to batch norm's ε."""
    scaled = Population(
        tickets.model,
        {n: p * (3.0 if n in tickets.masks and n != "fc.weight" else 1.0) for n, p in tickets.params.items()},
        tickets.masks,
        tickets.buffers,
        tickets.frame,
    )
    x = images.pixels(torch.arange(50)).double()
    for r in range(2):
        one, other = (network.module(r).train()(x) for network in (tickets, scaled))
        torch.testing.assert_close(one, other, rtol=0, atol=2e-3 * one.abs().max().item())


def test_too_few_images_are_refused(tickets, images):
    with pytest.raises(UsageError, match="cannot be drawn from 30"):
        tweaks.gradinit(tickets, Split(images.images[:30], images.labels[:30]), batch_size=25)
