"""Layer-wise sparsities against water filling by bisection, and the counts and chances of random masks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from lth.errors import UsageError
from lth.methods import init, prune
from lth.methods.distribution import erk, random_masks, uniform
from lth.models import Model

MODELS = [Model("lenet5"), Model("lenet_300_100"), Model("resnet20", (3, 32, 32))]


def shapes_of(model):
    return {n: tuple(p.shape) for n, p in model.build().named_parameters() if p.ndim > 1}


@given(st.sampled_from(MODELS), st.floats(0, 0.9999), st.data())
def test_erk_is_the_water_level_that_spends_the_budget(model, sparsity, data):
    """density = min(1, ε·Σshape/Πshape) with the one ε at which the densities use up the budget."""
    shapes = shapes_of(model)
    names = sorted(shapes)
    dense = data.draw(st.lists(st.sampled_from(names), max_size=len(names) - 1, unique=True))
    counted = {n: s for n, s in shapes.items() if n not in dense}
    budget = (1 - sparsity) * sum(map(math.prod, counted.values()))

    def spent(epsilon):
        return sum(min(math.prod(s), epsilon * sum(s)) for s in counted.values())

    top = max(math.prod(s) / sum(s) for s in counted.values())
    epsilon = optimize.brentq(lambda e: spent(e) - budget, 0, 2 * top, xtol=1e-12, rtol=1e-14)
    result = erk(model, sparsity, dense)
    assert list(result) == list(shapes)
    for name, shape in shapes.items():
        expected = 0 if name in dense else 1 - min(1, epsilon * sum(shape) / math.prod(shape))
        assert result[name] == pytest.approx(expected, abs=1e-9), name


def test_erk_of_lenet_300_100_by_hand():
    """784·300, 300·100 and 100·10 weights: at 98 % no layer is full, at 50 % the last two are."""
    sums, sizes = (1084, 400, 110), (235_200, 30_000, 1000)
    sparse = erk(Model("lenet_300_100"), 0.98).values()
    assert list(sparse) == pytest.approx([1 - 0.02 * 266_200 / 1594 * s / n for s, n in zip(sums, sizes, strict=True)])
    half = erk(Model("lenet_300_100"), 0.5).values()
    assert list(half) == pytest.approx([1 - (133_100 - 31_000) / 235_200, 0, 0])


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.95, 0.98])
@pytest.mark.parametrize("share", [uniform, erk])
def test_random_masks_have_the_counts_asked_for(share, sparsity):
    population = init.glorot_uniform(Model("lenet5"), seeds=[0, 1])
    sparsities = share(population.model, sparsity)
    masks = random_masks(population, sparsities)
    assert list(masks) == population.model.prunable
    for name, mask in masks.items():
        n = mask[0].numel()
        assert mask.shape == population.masks[name].shape and mask.dtype == torch.bool
        assert mask.flatten(1).sum(1).tolist() == [max(1, round(n * (1 - sparsities[name])))] * 2
    if share is uniform:  # the very counts of pruning
        pruned = prune.magnitude_masks_per_layer(population, sparsity)
        assert all(torch.equal(m.flatten(1).sum(1), pruned[n].flatten(1).sum(1)) for n, m in masks.items())
    total = sum(math.prod(s) for s in shapes_of(population.model).values())
    kept = sum(int(m[0].sum()) for m in masks.values())
    assert abs(kept - (1 - sparsity) * total) <= len(masks) / 2


def test_uneven_masks_have_hubs_and_outputs_without_inputs():
    """The counts of even ones; the fan-in grows from output to output as where the largest of U(0, i) stay."""
    nets = init.glorot_uniform(Model("lenet5"), seeds=range(20))
    shares = uniform(nets.model, 0.95)
    even, uneven = random_masks(nets, shares), random_masks(nets, shares, uneven=True)
    for name, mask in uneven.items():
        assert torch.equal(mask.flatten(1).sum(1), even[name].flatten(1).sum(1))
    fan_in = uneven["fc1.weight"].sum(2).double().mean(0)  # (120,), 256 inputs each
    threshold = max(t / 10 for t in range(1, 1200) if sum(max(0, 1 - t / 10 / i) for i in range(1, 121)) > 0.05 * 120)
    told = [256 * max(0.0, 1 - threshold / i) for i in range(1, 121)]
    assert fan_in.tolist() == pytest.approx(told, abs=6)
    assert fan_in[: int(0.9 * threshold)].max() == 0 and fan_in[-1] > 50


def test_layers_named_dense_keep_everything_and_do_not_count():
    model = Model("lenet5")
    assert uniform(model, 0.8, dense=["conv1.weight"]) == {n: 0.8 * (n != "conv1.weight") for n in model.prunable}
    masks = random_masks(init.glorot_uniform(model, seeds=[0]), erk(model, 0.8, dense=["conv1.weight"]))
    assert masks.pop("conv1.weight").all()
    share = sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())
    assert share == pytest.approx(0.2, abs=1e-4)


def test_a_layer_keeps_at_least_one_weight():
    population = init.glorot_uniform(Model("lenet5"), seeds=[0])
    masks = random_masks(population, uniform(population.model, 0.9999))
    assert int(masks["conv1.weight"].sum()) == 1 and int(masks["fc3.weight"].sum()) == 1


def test_every_place_is_as_likely_as_the_others():
    """Draws without replacement: the places of conv1 against the exact variance, its pairs against their chance."""
    replicas, n, k = 300, 150, 30
    population = init.glorot_uniform(Model("lenet5"), seeds=[0]).repeat(replicas).label(seed=range(replicas))
    mask = random_masks(population, uniform(population.model, 0.8))["conv1.weight"].flatten(1).double()
    chance = k / n
    square = ((mask.sum(0) - replicas * chance) ** 2).sum() / (replicas * chance * (1 - chance)) * (n - 1) / n
    assert 1e-3 < stats.chi2(n - 1).cdf(float(square)) < 1 - 1e-3
    together = (mask.T @ mask / replicas)[~torch.eye(n, dtype=torch.bool)]
    expected = chance * (k - 1) / (n - 1)
    assert abs(together - expected).max() < 5 * math.sqrt(expected * (1 - expected) / replicas)


def test_masks_depend_on_the_seed_alone():
    population = init.glorot_uniform(Model("lenet5"), seeds=[3, 7, 0])
    masks = random_masks(population, uniform(population.model, 0.9))
    alone = random_masks(population[[1]].label(method="other"), uniform(population.model, 0.9))
    for name, mask in masks.items():
        assert torch.equal(mask[1], alone[name][0])
        assert not torch.equal(mask[0], mask[1])


def test_layers_of_one_shape_get_different_masks():
    population = init.glorot_uniform(Model("lenet_300_100", (1, 4, 4), widths=(16, 16)), seeds=[0])
    masks = random_masks(population, uniform(population.model, 0.5))
    assert not torch.equal(masks["fc1.weight"], masks["fc2.weight"])


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 0.999), st.floats(0, 0.999))
def test_the_sparser_mask_lies_inside(a, b):
    population = init.glorot_uniform(Model("lenet5"), seeds=[1])
    outer, inner = (random_masks(population, uniform(population.model, s)) for s in sorted((a, b)))
    assert not any(torch.any(inner[n] & ~outer[n]) for n in outer)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_impossible_sparsities_are_refused(lenets, sparsity):
    for refuse in (
        lambda: uniform(lenets.model, sparsity),
        lambda: erk(lenets.model, sparsity),
        lambda: random_masks(lenets, dict.fromkeys(lenets.masks, sparsity)),
    ):
        with pytest.raises(UsageError, match="fraction of zeros"):
            refuse()


def test_unknown_layers_are_refused(lenets):
    for share in (uniform, erk):
        with pytest.raises(UsageError, match="no layer conv9.*it has conv1.weight"):
            share(lenets.model, 0.5, dense=["conv9"])
    with pytest.raises(UsageError, match="missing or foreign conv1.weight, fc9.weight"):
        random_masks(lenets, dict.fromkeys([*lenets.model.prunable[1:], "fc9.weight"], 0.5))
