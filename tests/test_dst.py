"""Dynamic sparse training against its update written out in numpy, weight by weight, and seen from a training run."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import double
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from lth import seeds as streams
from lth.data import Data, Split
from lth.errors import UsageError
from lth.methods import dst, init, prune, sparse_init
from lth.methods.distribution import random_masks, uniform
from lth.methods.dst import DST
from lth.models import Model
from lth.training.recipe import Recipe
from lth.training.train import train

RULES = [DST(grow, every=2, end=20) for grow in ("random", "gradient", "least_gradient")]


@pytest.fixture(scope="module")
def sparse():
    """Three LeNet5 at 80 %, with all of fc3, and weights that let the gradient through."""
    network = init.glorot_uniform(Model("lenet5"), seeds=[0, 1, 2], method="dst")
    masks = random_masks(network, uniform(network.model, 0.8, dense=["fc3.weight"]))
    return sparse_init.normal(prune.apply(network, masks), mode="forward", scale=2.0)


def rewired(weights, mask, wanted, count):
    """One layer of one replica, one weight after the other; of equals the first is kept and grown."""
    ranked = sorted(np.flatnonzero(mask), key=lambda i: (-abs(weights[i]), i))
    kept = ranked[: len(ranked) - count]
    candidates = sorted(set(range(len(mask))) - set(kept), key=lambda i: (-wanted[i], i))
    new = np.zeros(len(mask), bool)
    new[[*kept, *candidates[:count]]] = True
    return new


@st.composite
def layers(draw):
    """Up to three replicas of a layer of up to 12 weights, with many ties; some nearly empty, some full."""
    replicas, size = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    numbers = st.lists(st.integers(-3, 3), min_size=size, max_size=size)
    masks = st.one_of(
        st.lists(st.booleans(), min_size=size, max_size=size),
        st.integers(0, size - 1).map(lambda i: [j == i for j in range(size)]),
        st.sampled_from([[True] * size, [False] * size]),
    )
    return tuple(draw(st.lists(kind, min_size=replicas, max_size=replicas)) for kind in (numbers, masks, numbers))


@given(layers(), st.floats(0, 0.999))
def test_rewire_drops_and_grows_what_the_loop_over_weights_does(layer, fraction):
    weights, mask, wanted = (np.array(part) for part in layer)
    weights = weights * mask
    new = dst.rewire(torch.tensor(weights).float(), torch.tensor(mask), torch.tensor(wanted).float(), fraction)
    for r in range(len(weights)):
        count = math.floor(mask[r].sum() * fraction)
        assert (new[r].numpy() == rewired(weights[r], mask[r], wanted[r], count)).all()
        assert new[r].sum() == mask[r].sum()


@given(layers(), st.floats(0, 0.999), st.data())
def test_the_density_survives_numbers_that_are_none(layer, fraction, data):
    """A replica that diverges may spoil its own choice, not its count of weights."""
    weights, mask, wanted = (torch.tensor(part) for part in layer)
    odd = st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf])
    for scores in (weights := weights.float(), wanted := wanted.float()):
        scores[0] = torch.tensor(data.draw(st.lists(odd, min_size=scores.shape[1], max_size=scores.shape[1])))
    assert torch.equal(dst.rewire(weights, mask, wanted, fraction).sum(1), mask.sum(1))


def dense_gradients(population, data, index):
    """∂L/∂w by plain autograd in double precision, replica by replica."""
    gradients = []
    for r in range(len(population)):
        module = population.module(r).double()
        loss = F.cross_entropy(module(data.train.pixels(index).double()), data.train.labels[index])
        named = dict(module.named_parameters())
        gradients.append(dict(zip(named, torch.autograd.grad(loss, named.values()), strict=True)))
    return gradients


@pytest.mark.parametrize("grow, sign", [("gradient", 1), ("least_gradient", -1)])
def test_gradient_criteria_against_plain_autograd(sparse, toy, grow, sign):
    """After 6 of 20 steps; the block of 40 among 200 examples is every fifth, beginning with the third."""
    rule = DST(grow, every=2, end=20, drop_fraction=0.4, block=40)
    fraction = 0.4 * 0.5 * (1 + math.cos(math.pi * 6 / 20))
    masks = rule.masks(sparse, 6, toy)
    gradients = dense_gradients(sparse, toy, torch.arange(2, 200, 5))
    assert list(masks) == list(sparse.masks)
    for name, mask in masks.items():
        assert mask.shape == sparse.masks[name].shape and mask.dtype == torch.bool
        for r in range(len(sparse)):
            weights, old = sparse.params[name][r].flatten().numpy(), sparse.masks[name][r].flatten().numpy()
            wanted = sign * gradients[r][name].abs().flatten().numpy()
            assert (wanted != 0).mean() > 0.2, name
            expected = rewired(weights, old, wanted, math.floor(old.sum() * fraction))
            differing = np.flatnonzero(expected != mask[r].flatten().numpy())
            # float32 may order two gradients otherwise only where they are equal to its precision
            assert len(differing) <= 2 and (not len(differing) or np.ptp(wanted[differing]) < 1e-6), name


def test_the_block_is_all_there_is_of_a_small_training_set(sparse, toy):
    rule = DST("gradient", every=2, end=20)
    exact = replace(rule, block=200).masks(sparse, 2, toy)
    assert all(torch.equal(mask, exact[name]) for name, mask in rule.masks(sparse, 2, toy).items())
    uneven = Data("uneven", Split(toy.train.images[:7], toy.train.labels[:7]), toy.test, 10, "uneven")
    assert replace(rule, block=5).masks(sparse, 2, uneven).keys() == exact.keys()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.grow)
def test_densities_stay_and_dense_layers_too(sparse, toy, rule):
    masks = rule.masks(sparse, 2, toy)
    for name, old in sparse.masks.items():
        assert torch.equal(masks[name].flatten(1).sum(1), old.flatten(1).sum(1)), name
    assert masks["fc3.weight"].all()
    assert not torch.equal(masks["fc1.weight"], sparse.masks["fc1.weight"])


def test_set_grows_anywhere_alike(sparse):
    """Of n candidates each is grown with the same chance: counts over 200 replicas against the exact variance."""
    many = sparse[[0]].repeat(200).label(seed=range(200))
    rule = DST("random", every=1, end=1000, drop_fraction=0.5)
    name, old = "conv1.weight", sparse.masks["conv1.weight"][0].flatten()
    mask = rule.masks(many, 1, None)[name].flatten(1)
    kept = mask.all(0)
    count, n = int(mask[0].sum() - kept.sum()), int((~kept).sum())
    assert count == 15 - 1 and int(kept.sum()) == 16 and old[kept].all() and n == 134  # ⌊30 · 0.4999…⌋ = 14
    chance = count / n
    square = (((mask.sum(0)[~kept] - 200 * chance) ** 2).sum() / (200 * chance * (1 - chance)) * (n - 1) / n).item()
    assert abs(square - (n - 1)) < 4 * math.sqrt(2 * (n - 1))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.grow)
def test_a_replica_does_not_depend_on_those_beside_it(sparse, toy, rule):
    among, alone = rule.masks(sparse, 4, toy), rule.masks(sparse[[2]], 4, toy)
    assert all(torch.equal(mask[[2]], alone[name]) for name, mask in among.items())


def test_set_draws_anew_for_each_step_seed_and_layer(sparse):
    rule = DST("random", every=1, end=10**9)  # the drop fraction is the same at all these steps
    twin = sparse[[0, 0]].label(seed=[0, 1])
    first, second = rule.masks(twin, 1, None), rule.masks(twin, 2, None)
    assert not torch.equal(first["fc1.weight"], second["fc1.weight"])
    assert not torch.equal(first["fc1.weight"][0], first["fc1.weight"][1])
    assert all(torch.equal(mask, rule.masks(twin, 1, None)[name]) for name, mask in first.items())
    network = init.glorot_uniform(Model("lenet_300_100", (1, 4, 4), widths=(16, 16)), seeds=[0])
    one = random_masks(network, uniform(network.model, 0.9))["fc1.weight"]
    alike = replace(network, masks=network.masks | {"fc1.weight": one, "fc2.weight": one})
    alike = alike.with_theta(torch.ones_like(alike.theta()))
    masks = rule.masks(alike, 1, None)
    assert not torch.equal(masks["fc1.weight"], masks["fc2.weight"])


def test_the_drop_fraction_is_that_of_a_cosine_learning_rate():
    """[E, App. B.2]: it decays with the learning rate, which on MNIST is a cosine over the whole training."""
    recipe, rule = Recipe(steps=11_719), DST("gradient", every=500, end=11_719)
    steps = [step for step in range(11_720) if rule.due(step)]
    assert steps == list(range(500, 11_719, 500))
    assert [rule.fraction(step) for step in steps] == pytest.approx([0.3 * recipe.lr_factor(step) for step in steps])
    assert rule.fraction(0) == 0.3 and rule.fraction(11_719) == pytest.approx(0)


def test_no_update_at_the_start_and_none_from_the_end_on():
    rule = DST("random", every=5, end=20)
    assert [step for step in range(60) if rule.due(step)] == [5, 10, 15]


@pytest.mark.parametrize("grow", ["random", "gradient", "least_gradient"])
def test_in_training_new_weights_start_from_nothing_and_regrown_ones_go_on(sparse, toy, grow):
    """Five steps of momentum with an update after the third, against a loop over plain tensors."""
    recipe = Recipe(steps=5, batch_size=8, schedule="constant", lr=0.1)
    rule = DST(grow, every=3, end=1000, drop_fraction=0.9)
    start = double(sparse[[1, 2]])  # of seed 0 two pixels of a pool are equal, and rounding chooses
    run = train(start, toy, recipe, updates={"dst": rule}, keep=range(6))
    for r, seed in enumerate(start.seeds):
        one = start[[r]]
        velocity = {n: torch.zeros_like(p) for n, p in one.params.items()}
        order = streams.numpy_stream(seed, streams.ORDER, 0).permutation(len(toy.train)).reshape(-1, 8)
        for step in range(1, 6):
            (gradients,) = dense_gradients(one, toy, torch.from_numpy(order[step - 1]))
            for name, v in velocity.items():
                v.mul_(0.9).add_(gradients[name] * one.masks.get(name, 1))
            one = replace(one, params={n: p - 0.1 * velocity[n] for n, p in one.params.items()})
            if step == 3:
                before, masks = one, rule.masks(one, step, toy)
                one = prune.apply(one, masks)
                velocity = {n: v * masks.get(n, 1) for n, v in velocity.items()}
                new = {n: m & ~before.masks[n] for n, m in masks.items()}
                assert all(torch.all(run.at(3).params[n][[r]][m] == 0) for n, m in new.items())
                assert all(torch.all(velocity[n][m] == 0) for n, m in new.items()) and new["fc1.weight"].sum() > 1000
                weights, active = before.params["fc1.weight"].flatten(), before.masks["fc1.weight"].flatten()
                dropped = weights.abs().masked_fill(~active, torch.inf).argsort()[: int(active.sum() * 0.89)]
                regrown = dropped[masks["fc1.weight"].flatten()[dropped]]
                assert len(regrown) > 100 and (velocity["fc1.weight"].flatten()[regrown] != 0).sum() > 100
                now = run.at(3).params["fc1.weight"][[r]].flatten()[regrown]
                assert torch.all(now != 0) and torch.allclose(now, weights[regrown])
            kept = run.at(step)[[r]]
            assert all(torch.equal(m, one.masks[n]) for n, m in kept.masks.items()), step
            assert torch.allclose(kept.theta(), one.theta(), rtol=1e-9, atol=1e-12), step


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"grow": "rigl"}, "unknown grow criterion 'rigl': known are random, gradient, least_gradient"),
        ({"every": 0}, "0 < every < end"),
        ({"every": 20}, "0 < every < end"),
        ({"drop_fraction": 0.0}, "between 0 and 1"),
        ({"drop_fraction": 1.0}, "between 0 and 1"),
        ({"drop_fraction": float("nan")}, "between 0 and 1"),
        ({"block": 0}, "at least one example"),
    ],
)
def test_impossible_rules_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        DST(**{"grow": "random", "every": 2, "end": 20} | arguments)
