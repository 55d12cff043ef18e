"""Tweaks of a ticket: what stays the same, and what learned scales achieve."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import double, toy_data
from torch.nn import functional as F

from lth.data import Split
from lth.errors import UsageError
from lth.gradients import mean_gradients
from lth.methods import init, prune, tweaks
from lth.methods.tweaks import GradInit
from lth.models import Model
from lth.population import Population

SMALL = Model("resnet20", (3, 16, 16), 4)


@pytest.fixture(scope="module")
def tickets() -> Population:
    networks = double(init.kaiming_normal(SMALL, seeds=[0, 1], method="ticket"))
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


def test_all_weights_are_those_that_are_not_zero(tickets):
    changed = tweaks.change(tickets, skips="conv")
    for network in (tickets, changed):
        kernels = [p for p in network.params.values() if p.ndim > 2]
        assert tweaks.weights_left(network).tolist() == [sum(int((p[r] != 0).sum()) for p in kernels) for r in (0, 1)]
    model = Model("resnet18", (3, 32, 32), 100, skips="conv")
    kept = [n for n, shape in model.shapes.params.items() if len(shape) > 1 and n not in model.prunable]
    assert sum(model.shapes.params[n].numel() for n in kept) == 1_220_608  # [J]'s, beside 314,000 at "97 %"


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


@pytest.mark.thorough
@pytest.mark.parametrize("limit", [100.0, 0.0])
def test_learned_scales_lower_the_loss_of_the_first_step_or_the_gradient(limit):
    networks = double(init.glorot_normal(Model("resnet8", (3, 16, 16), 4), seeds=[0, 1]))
    networks = prune.apply(networks, prune.magnitude_masks(networks, 0.8))
    train = toy_data(500, (3, 16, 16), 4).train
    learn, held_out = (Split(train.images[rows], train.labels[rows]) for rows in (slice(200), slice(200, 400)))
    how = {"batch_size": 30, "iterations": 25, "rate": 0.05, "limit": limit}
    scaled = tweaks.scaled(networks, GradInit(**how)(networks, learn))
    (loss, norm), (loss_after, norm_after) = first_step(networks, held_out), first_step(scaled, held_out)
    assert (loss_after < 0.6 * loss).all() if limit else (norm_after < 0.6 * norm).all()
    for name, param in scaled.params.items():
        for r in range(2):
            there = networks.params[name][r] != 0
            factors = (param[r] / networks.params[name][r])[there]
            if factors.numel():
                assert factors.min() > 0 and torch.allclose(factors, factors[:1])  # one number, and no sign turned
            assert not param[r][~there].any()
    alone = GradInit(**how)(networks[[1]], learn)
    torch.testing.assert_close(tweaks.scaled(networks[[1]], alone).theta()[0], scaled.theta()[1], rtol=1e-6, atol=1e-9)


@pytest.mark.thorough
def test_the_norm_of_the_gradient_stays_at_its_limit():
    """It falls to the limit, and not far below it: what was learned while it fell does not drive it on."""
    networks = double(init.kaiming_normal(Model("resnet8", (3, 16, 16), 4), seeds=[0, 1]))
    images = toy_data(500, (3, 16, 16), 4).train
    _, before = first_step(networks, images)
    scales = GradInit(batch_size=60, iterations=30, rate=0.05)(networks, images)
    _, after = first_step(tweaks.scaled(networks, scales), images)
    assert (before > 5).all() and (after > 0.7).all() and (after < 1.4).all(), after


def test_scales_of_a_network_with_batch_norm(tickets, images):
    """The population's statistics stay as they are, and all its tensors get factors."""
    before = {n: b.clone() for n, b in tickets.buffers.items()}
    scaled = tweaks.scaled(tickets[[0]], GradInit(batch_size=20, iterations=2)(tickets[[0]], images))
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
        GradInit(batch_size=25)(tickets, images.take(range(30)))


def held_by_hand(network: Population, images: Split, rounds: int, how: GradInit) -> dict[str, float]:
    """The authors' variant in plain PyTorch, for one network, with the batches that are drawn."""
    module, state = network.module(0).train(), {}
    start = {n: p.detach().clone() for n, p in module.named_parameters()}
    scales = {n: torch.ones((), dtype=torch.float64, requires_grad=True) for n in start}
    x, y = images.pixels(torch.arange(len(images))).double(), images.labels
    for first, second in tweaks._batches(network, len(images), how.batch_size, rounds):
        weights = {n: p * scales[n] for n, p in start.items()}
        loss = lambda parameters, rows: F.cross_entropy(  # noqa: E731
            torch.func.functional_call(copy.deepcopy(module), parameters, (x[rows],)), y[rows]
        )
        grads = torch.autograd.grad(loss(weights, first[:, 0]), list(weights.values()), create_graph=True)
        grads = {n: g * network.masks[n][0] if n in network.masks else g for n, g in zip(weights, grads, strict=True)}
        norm = sum(g.square().sum() for g in grads.values()).sqrt()
        shrink = bool(norm > how.limit)
        step = {n: weights[n] - how.lr * (g / norm).detach() for n, g in grads.items()}
        goal = norm if shrink else loss(step, second[:, 0])
        for n, g in zip(scales, torch.autograd.grad(goal, list(scales.values())), strict=True):
            own = state.setdefault(n, {"square": 0.0, True: [0.0, 0], False: [0.0, 0]})
            g = min(max(float(g), -1.0), 1.0)
            own[shrink] = [0.9 * own[shrink][0] + 0.1 * g, own[shrink][1] + 1]
            own["square"] = 0.999 * own["square"] + 0.001 * g * g
            taken = own[True][1] + own[False][1]
            move = own[shrink][0] / (1 - 0.9 ** own[shrink][1]) / ((own["square"] / (1 - 0.999**taken)) ** 0.5 + 1e-8)
            with torch.no_grad():
                scales[n] -= how.rate * move
                scales[n].clamp_(min=0.0 if n.endswith("bias") else how.least)
    return {n: s.item() for n, s in scales.items()}


@pytest.mark.parametrize("limit", [100.0, 2.0, 0.0])
def test_the_authors_variant_is_theirs(images, limit):
    network = double(init.kaiming_normal(Model("resnet8", (3, 16, 16), 4), seeds=[0]))
    network = prune.apply(network, prune.magnitude_masks(network, 0.8))
    how = GradInit(batch_size=40, iterations=6, rate=0.05, limit=limit, variant="held")
    found = how(network, images)
    assert {n: s.item() for n, s in found.items()} == pytest.approx(held_by_hand(network, images, 6, how), rel=1e-4)


@pytest.mark.thorough
def test_scales_learned_before_the_skips_leave_the_skips_alone(tickets, images):
    scales = GradInit(batch_size=20, iterations=2)(tickets, images)
    changed = tweaks.scaled(tweaks.change(tickets, skips="conv"), scales)
    for name, param in changed.params.items():
        if name in tickets.params:
            assert torch.equal(param[0], tickets.params[name][0] * scales[name][0])
        else:
            assert torch.equal(param, tweaks.change(tickets, skips="conv").params[name])


def test_with_skips_first_the_gradient_is_theirs(images):
    """Why scales are learned before: the skips' small weights take nearly all of the gradient's length."""
    plain = double(init.kaiming_normal(Model("resnet20", (3, 16, 16), 4), seeds=[0]))
    plain = prune.apply(plain, prune.magnitude_masks(plain, 0.95))
    lengths = {}
    for network in (plain, tweaks.change(plain, skips="conv")):
        grads, _ = mean_gradients(network, images.take(range(100)))
        squares = {n: float((g * network.masks.get(n, 1)).square().sum()) for n, g in grads.items()}
        extra = sum(square for n, square in squares.items() if ".skip" in n)
        lengths[network.model.skips] = sum(squares.values()) ** 0.5, extra / sum(squares.values())
    assert lengths["conv"][0] > 20 * lengths["none"][0] and lengths["conv"][1] > 0.97
