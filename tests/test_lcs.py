"""The notions of [P] against their definitions written out, on networks whose error is known by construction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import double

from lth.analysis import landscape, lcs
from lth.errors import UsageError
from lth.methods import imp, init, prune
from lth.models import Model
from lth.population import Population
from lth.training.recipe import Recipe
from lth.training.train import train


@pytest.fixture(scope="module")
def trained(request):
    """Three networks that have learned the toy data, and three that were trained with other orders of the images."""
    toy = request.getfixturevalue("toy")
    start = init.kaiming_normal(Model("lenet_300_100"), seeds=range(3))
    recipe = Recipe(steps=60, batch_size=20, lr=0.05)
    return start, *(train(start.label(seed=[s + shift for s in range(3)]), toy, recipe).final for shift in (0, 50))


def test_epsilon_is_the_sample_standard_deviation():
    assert lcs.epsilon([1.0, 2.0, 4.0]) == pytest.approx(np.sqrt(((4 / 3) ** 2 + (1 / 3) ** 2 + (5 / 3) ** 2) / 2))
    for errors, message in (([1.0], "two errors or more"), ([1.0, np.nan], "two errors"), ([2.0, 2.0], "ε is 0")):
        with pytest.raises(UsageError, match=message):
            lcs.epsilon(errors)


def test_matching_is_within_epsilon_above():
    assert lcs.is_matching([0.1, 0.12, 0.13], 0.1, 0.025).tolist() == [True, True, False]
    assert lcs.is_matching([0.1, 0.1], [0.2, 0.05], 0.01).tolist() == [True, False]


def test_barrier_stability_and_membership_against_the_definitions(trained, toy):
    _, one, other = trained
    gammas = np.linspace(0, 1, 6)
    found = lcs.segments(one, other, toy.test, 6)
    for r in range(3):
        errors = []
        for gamma in gammas:
            theta = (1 - gamma) * one.theta()[[r]] + gamma * other.theta()[[r]]
            errors.append(one[[r]].with_theta(theta).evaluate(toy.test).error[0])
        needed = max(e - ((1 - g) * errors[0] + g * errors[-1]) for e, g in zip(errors, gammas, strict=True))
        assert found.barrier[r] == pytest.approx(needed) == lcs.error_barrier(one, other, toy.test, 6)[r]
        assert (found.start[r], found.end[r]) == pytest.approx((errors[0], errors[-1]))
        assert found.distance[r] == pytest.approx(float((one.theta()[r] - other.theta()[r]).norm()))
        for epsilon in (needed - 1e-6, needed + 1e-6):
            assert lcs.is_stable(found, epsilon)[r] == (epsilon > needed)
            assert lcs.in_lcs_set(found, epsilon)[r] == (epsilon > needed and errors[-1] <= errors[0] + epsilon)


def test_a_network_is_in_its_own_set_and_a_broken_one_is_not(trained, toy):
    _, one, _ = trained
    assert lcs.in_lcs_set(lcs.segments(one, one, toy.test), 1e-9).all()
    broken = one.with_theta(torch.zeros_like(one.theta()))
    assert not lcs.in_lcs_set(lcs.segments(one, broken, toy.test), 0.1).any()


def halved_logits(population: Population) -> Population:
    last = list(population.params)[-2:]  # the last layer's weight and bias
    params = {n: p / 2 if n in last else p for n, p in population.params.items()}
    return replace(population, params=params)


def test_what_the_definitions_ask_does_not_know_the_logits_scale(trained, toy):
    """Half the logits are the same decisions at the ends: barriers between two such networks are the same."""
    _, one, other = trained
    whole, half = (lcs.segments(*pair, toy.test, 6) for pair in ((one, other), map(halved_logits, (one, other))))
    pd.testing.assert_frame_equal(whole.drop(columns="distance"), half.drop(columns="distance"))
    alphas = [0, 1, 3, 9]
    reach = []
    for network, end in ((one, other), (halved_logits(one), halved_logits(other))):
        line = landscape.line(network.label(replica=range(3)), end, alphas, toy.test)
        reach.append(lcs.radius(line.assign(distance=line.alpha), ["replica"], 0.02))
    pd.testing.assert_frame_equal(*reach)


@pytest.fixture(scope="module")
def normed(request):
    """Two networks with batch norm, trained with other orders of the images."""
    toy = request.getfixturevalue("toy")
    start = init.kaiming_normal(Model("resnet8", toy.shape), seeds=[0])
    recipe = Recipe(steps=30, batch_size=20, lr=0.1)
    return [train(start.label(seed=[seed]), toy, recipe).final for seed in (0, 50)]


def test_batch_norms_statistics_both_ways(normed, toy):
    """Gathered anew they are those of `reestimate`, at the ends too; the definitions take either."""
    one, other = normed
    for statistics in (None, toy.train):
        errors = []
        for alpha in np.linspace(0, 1, 5):
            point = landscape.interpolate(one, other, alpha)
            point = landscape.reestimate(point, statistics) if statistics else point
            errors.append(point.evaluate(toy.test).error[0])
        chord = np.linspace(errors[0], errors[-1], 5)
        found = lcs.segments(one, other, toy.test, 5, statistics)
        assert found.barrier[0] == pytest.approx(max(errors - chord))
        assert found.barrier[0] == lcs.error_barrier(one, other, toy.test, 5, statistics)[0]
        assert (found.start[0], found.end[0]) == pytest.approx((errors[0], errors[-1]))


def test_a_rescaled_layer_before_batch_norm_is_the_same_network(normed, toy):
    """Barriers between networks of which both were rescaled are the same, gathered anew; distances are not."""
    from_one, to_other = (
        replace(p, params={n: 3 * w if n == "layer1.0.conv1.weight" else w for n, w in p.params.items()})
        for p in normed
    )
    plain = lcs.segments(*normed, toy.test, 5, toy.train)
    scaled = lcs.segments(from_one, to_other, toy.test, 5, toy.train)
    assert scaled.barrier[0] == pytest.approx(plain.barrier[0], abs=0.011)  # an image more or less by rounding
    assert scaled.distance[0] > plain.distance[0]


def test_the_interval_of_epsilon_is_that_of_a_variance():
    """Against simulation: it holds the truth in 95 % of samples, and shrinks with their number."""
    random = np.random.default_rng(0)
    inside = []
    for _ in range(1000):
        low, high = lcs.epsilon_interval(random.normal(3, 2, 7))
        inside.append(low < 2 < high)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)
    few, many = (lcs.epsilon_interval(random.normal(0, 1, n)) for n in (4, 40))
    assert many[1] - many[0] < few[1] - few[0]


def test_the_radius_is_where_the_error_has_risen():
    line = pd.DataFrame(
        {
            "way": ["a"] * 4 + ["b"] * 4,
            "distance": [0.0, 1, 2, 3] * 2,
            "error": [5.0, 5.0, 7.0, 4.0, 5.0, 5.5, 5.9, 5.2],
        }
    )
    found = lcs.radius(line, ["way"], 1.0).set_index("way")
    assert found.radius["a"] == 1.5 and not found.inside["a"]  # halfway from 5 to 7; what comes after does not count
    assert found.radius["b"] == 3 and found.inside["b"]


def test_a_perturbation_has_its_length_and_stays_on_the_mask():
    population = double(init.kaiming_normal(Model("lenet5"), seeds=[0, 1, 2]))
    population = prune.apply(population, prune.magnitude_masks(population, 0.8))
    lengths = [0.5, 0.0, 3.0]
    moved = lcs.perturb(population, lengths)
    v = moved.theta() - population.theta()
    np.testing.assert_allclose(v.norm(dim=1).numpy(), lengths, atol=1e-12)
    assert not v[~population.theta_mask()].any()
    assert all(torch.equal(moved.params[n], p) for n, p in population.params.items() if n not in population.masks)
    # each replica has its own, whatever the company, and another number gives another one
    assert torch.equal(lcs.perturb(population[[2]], [3.0]).theta()[0], moved.theta()[2])
    again = lcs.perturb(population, lengths, number=1).theta() - population.theta()
    cosine = torch.nn.functional.cosine_similarity(again[2], v[2], dim=0)
    assert cosine.abs() < 0.06
    half = v[2][population.theta_mask()[2]].abs()  # a uniform direction: a Gaussian's ratio of mean to root mean square
    active = half[half > 0]
    assert active.mean() / active.square().mean().sqrt() == pytest.approx(np.sqrt(2 / np.pi), abs=0.02)
    for wrong in ([1.0], [1.0, -1.0, 1.0], [1.0, np.nan, 1.0]):
        with pytest.raises(UsageError, match="one length"):
            lcs.perturb(population, wrong)


@pytest.mark.parametrize("standardise", [False, True])
def test_the_spread_over_batches(trained, toy, standardise):
    _, one, _ = trained
    if standardise:  # networks that were trained on raw images would be all too sure of these
        one, toy = one.with_theta(0.3 * one.theta()), toy.standardised()
    found = lcs.batch_spread(one, toy.train, 60)
    order = torch.from_numpy(np.random.default_rng(0).permutation(200))
    for r in range(3):
        losses = []
        for rows in order[:180].split(60):
            logits = one.module(r)(toy.train.pixels(rows))
            losses.append(torch.nn.functional.cross_entropy(logits, toy.train.labels[rows]).item())
        assert found[r] == pytest.approx(np.std(losses, ddof=1), rel=1e-4)
    with pytest.raises(UsageError, match="1 batches of 150"):
        lcs.batch_spread(one, toy.train, 150)


@pytest.mark.thorough
def test_the_adaptive_ratio_stays_inside_the_set_and_never_below_the_least(trained, toy):
    """Against a plain search; limits from tight to loose give ratios that grow."""
    one = trained[1][[0, 1]]
    images = toy.train.evenly(50)
    loss = one.evaluate(images).loss.to_numpy()
    seen = []
    for slack in (0.0, 0.3, 100.0):
        rule = lcs.Adaptive(images, loss + slack)
        ratios = rule(one)
        for r, ratio in enumerate(ratios):
            best = 0.0
            for candidate in lcs.RATIOS:
                alone = one[[r]]
                pruned = prune.apply(alone, prune.magnitude_masks(alone, candidate))
                path = landscape.line(alone, pruned, [0.25, 0.5, 0.75, 1], images)
                if path.loss.max() > loss[r] + slack:
                    break
                best = candidate
            assert ratio == max(best, 0.2)
        seen.append(np.mean(ratios))
    assert seen[0] >= 0.2 and seen == sorted(seen) and seen[-1] == 0.9
    assert lcs.Adaptive(images, loss + 100, density=0.4)(one) == pytest.approx([0.6] * 2)
    sparse = prune.apply(one, prune.magnitude_masks(one, 0.7))
    assert lcs.Adaptive(images, loss + 100, density=0.4)(sparse) == [0.0] * 2
    with pytest.raises(UsageError, match="2 limits for 1"):
        rule(one[[0]])


def test_a_ladder_takes_the_rule_and_ends_with_it(trained, toy):
    start, one = (networks[[0, 1]] for networks in trained[:2])
    recipe, images = Recipe(steps=10, batch_size=20), toy.train.evenly(50)

    def climb(rounds: int, rule: lcs.Adaptive) -> list[Population]:
        return [
            run.final for run in imp.ladder(start, rounds, lambda p, r, **k: train(p, toy, r, **k), recipe, ratio=rule)
        ]

    rule = lcs.Adaptive(images, one.evaluate(images).loss + 0.2)
    before, after = climb(1, rule)
    total = sum(m[0].numel() for m in before.masks.values())
    left = [total - round(ratio * total) for ratio in rule(before)]
    assert sum(m.flatten(1).sum(1) for m in after.masks.values()).tolist() == left
    ended = climb(9, lcs.Adaptive(images, [99.0] * 2, density=0.05))
    assert len(ended) == 3  # 90 %, then the rest, then there is nothing left to prune
    assert ended[-1].sparsity().numpy() == pytest.approx([0.95] * 2, abs=1e-5)
