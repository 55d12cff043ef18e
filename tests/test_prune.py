"""Magnitude pruning against torch.nn.utils.prune, numpy and the written-out schedule."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import prune as torch_prune

from lth.errors import UsageError
from lth.methods import init, prune
from lth.models import Model
from lth.training.recipe import Recipe
from lth.training.train import train


@pytest.fixture(scope="module")
def network():
    return init.glorot_uniform(Model("lenet5"), seeds=[0, 1])


@given(st.integers(1, 60_000), st.floats(0, 0.9999))
def test_kept_counts(n, sparsity):
    count = prune.kept(n, sparsity)
    assert 1 <= count <= n
    assert count == 1 or abs(count - n * (1 - sparsity)) <= 0.5


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.data())
def test_largest_against_numpy_with_ties(values, data):
    count = data.draw(st.integers(1, len(values)))
    scores = torch.tensor([values], dtype=torch.float32)
    chosen = prune.largest(scores, count)[0].numpy()
    expected = np.zeros(len(values), bool)
    expected[sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]] = True
    assert (chosen == expected).all()


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.95])
def test_per_layer_equals_torch_prune(network, sparsity):
    masks = prune.magnitude_masks_per_layer(network, sparsity)
    for r in range(len(network)):
        for name, mask in masks.items():
            layer = torch.nn.Linear(1, 1)
            layer.weight = torch.nn.Parameter(network.params[name][r])
            torch_prune.l1_unstructured(layer, "weight", amount=mask[r].numel() - prune.kept(mask[r].numel(), sparsity))
            assert torch.equal(mask[r], layer.weight_mask.bool())


@pytest.mark.filterwarnings("ignore:.*has no weights left")
@pytest.mark.parametrize("sparsity", [0.2, 0.9])
def test_global_equals_torch_prune(network, sparsity):
    masks = prune.magnitude_masks(network, sparsity)
    for r in range(len(network)):
        module = network.module(r)
        layers = [(module.get_submodule(n.removesuffix(".weight")), "weight") for n in masks]
        total = sum(m[0].numel() for m in masks.values())
        torch_prune.global_unstructured(
            layers, pruning_method=torch_prune.L1Unstructured, amount=total - prune.kept(total, sparsity)
        )
        for layer, mask in zip(layers, masks.values(), strict=True):
            assert torch.equal(mask[r], layer[0].weight_mask.bool())


@pytest.mark.parametrize("per_layer", [False, True])
def test_repeated_pruning_is_that_of_torch(network, per_layer):
    module = copy.deepcopy(network.module(1))
    layers = [(module.get_submodule(name.removesuffix(".weight")), "weight") for name in network.masks]
    population = network
    for _ in range(4):
        population = prune.apply(population, prune.magnitude_masks(population, 0.2, per_layer))
        if per_layer:
            for layer, leaf in layers:
                torch_prune.l1_unstructured(layer, leaf, amount=0.2)
        else:
            torch_prune.global_unstructured(layers, torch_prune.L1Unstructured, amount=0.2)
        for (layer, _), (name, mask) in zip(layers, population.masks.items(), strict=True):
            assert torch.equal(mask[1], layer.weight_mask.bool()), name


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=4, max_size=30), st.floats(0.05, 0.95), st.integers(0, 2**16))
def test_counts_ties_and_nesting(values, ratio, seed):
    """Magnitudes from few values, some weights pruned before: the last of equals goes first, nothing comes back."""
    old = torch.rand(1, len(values), generator=torch.Generator().manual_seed(seed)) < 0.7
    weights = torch.tensor([values]).float() * old
    left = old[0].nonzero()[:, 0].tolist()
    ranked = sorted(left, key=lambda i: (-abs(values[i]), i))
    expected = torch.zeros_like(old)
    expected[0, ranked[: len(left) - round(ratio * len(left))]] = True

    class Layer:  # a population in all that the function looks at
        masks, params, seeds, device = {"w": old}, {"w": weights}, [0], "cpu"

        def sound(self) -> np.ndarray:
            return np.ones(1, bool)

        def __len__(self) -> int:
            return 1

    if expected.any() or not old.any():
        assert torch.equal(prune.magnitude_masks(Layer(), ratio)["w"], expected)
    else:
        with pytest.warns(UserWarning, match="w has no weights left"):
            assert torch.equal(prune.magnitude_masks(Layer(), ratio)["w"], expected)


def test_a_layer_that_runs_empty_is_told(network):
    weights = {n: p * (1e-6 if n == "fc2.weight" else 1) for n, p in network.params.items()}
    population = replace(network, params=weights)
    with pytest.warns(UserWarning, match=r"fc2\.weight has no weights left \(seed 0, 1\)"):
        prune.magnitude_masks(population, 0.3)


@pytest.mark.parametrize("masks_of", [prune.magnitude_masks_per_layer, prune.magnitude_masks, prune.masks_at_random])
def test_masks_only_shrink(network, masks_of):
    once = prune.apply(network, masks_of(network, 0.6))
    refilled = replace(once, params={n: torch.randn_like(p) for n, p in once.params.items()})
    for name, mask in masks_of(refilled, 0.3).items():
        assert not torch.any(mask & ~once.masks[name])


def test_gradual_keeps_the_counts_of_the_cubic_schedule(network, toy):
    """Kept counts of every layer after every step, from the formula of [Zhu and Gupta 2018] written out."""
    gradual = prune.Gradual(sparsity=0.9, start=2, end=11, every=4)
    population = network.label(method="gmp")
    steps = range(14)
    run = train(population, toy, Recipe(steps=13, batch_size=8), updates={"gmp": gradual}, keep=steps)
    target = 0.0
    for step in steps:
        if step in (2, 6, 10, 11):
            target = 0.9 - 0.9 * (1 - (step - 2) / (11 - 2)) ** 3
        for name, mask in run.at(step).masks.items():
            n = mask[0].numel()
            assert mask.flatten(1).sum(1).tolist() == [max(1, round(n * (1 - target)))] * 2, (step, name)
    assert gradual.at(0) == 0 and gradual.at(50) == pytest.approx(0.9)


def test_gradual_drops_the_smallest_magnitudes(network, toy):
    gradual = prune.Gradual(sparsity=0.5, start=0, end=3, every=3)
    before = train(network, toy, Recipe(steps=3, batch_size=8)).final
    after = train(network.label(method="x"), toy, Recipe(steps=3, batch_size=8), updates={"x": gradual}).final
    for name, mask in after.masks.items():
        for r in range(2):
            magnitudes = before.params[name][r].abs()
            assert magnitudes[mask[r]].min() >= magnitudes[~mask[r]].max()


def test_rewind_puts_each_set_of_weights_under_its_mask(network):
    pruned = prune.apply(network, prune.magnitude_masks_per_layer(network, 0.9))
    fresh = init.glorot_uniform(Model("lenet5"), seeds=[7, 8, 9])
    single = prune.rewind(pruned[[1]], fresh)
    assert len(single) == 3 and single.frame.equals(fresh.frame)
    for name, mask in single.masks.items():
        assert torch.equal(mask, pruned.masks[name][[1, 1, 1]])
        assert torch.equal(single.params[name], fresh.params[name] * mask)
    assert torch.equal(single.params["fc1.bias"], fresh.params["fc1.bias"])
    with pytest.raises(UsageError, match="give one, or one each"):
        prune.rewind(pruned, fresh)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan")])
def test_impossible_sparsities_are_refused(network, sparsity):
    for refuse in (
        lambda: prune.magnitude_masks_per_layer(network, sparsity),
        lambda: prune.Gradual(sparsity, 0, 10, 1),
    ):
        with pytest.raises(UsageError, match="fraction of zeros"):
            refuse()


@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan"), [0.2], [0.2, 1.2]])
def test_impossible_ratios_are_refused(network, ratio):
    with pytest.raises(UsageError, match="share of the weights left"):
        prune.magnitude_masks(network, ratio)


def test_scores_that_are_no_numbers_are_refused(network):
    scores = {n: p.abs() for n, p in network.params.items()}
    scores["conv2.weight"] = scores["conv2.weight"] * torch.nan
    with pytest.raises(UsageError, match=r"scores of conv2.weight are not numbers"):
        prune.without_lowest(network, scores, 0.5)


def test_every_replica_may_have_a_ratio_of_its_own(network):
    ratios = [0.25, 0.5]
    masks = prune.magnitude_masks(network, ratios)
    for r, ratio in enumerate(ratios):
        alone = prune.magnitude_masks(network[[r]], ratio)
        assert all(torch.equal(mask[[r]], alone[name]) for name, mask in masks.items())


def test_random_masks_are_exact_the_replicas_own_and_blind_to_magnitude(network):
    masks = prune.masks_at_random(network, 0.3)
    total = sum(m[0].numel() for m in masks.values())
    flat = torch.cat([m.flatten(1) for m in masks.values()], 1)
    assert flat.sum(1).tolist() == [total - round(0.3 * total)] * 2
    assert 0.5 < (flat[0] == flat[1]).float().mean() < 0.66  # independent: 0.49 + 0.09
    again = prune.masks_at_random(network, 0.3, number=1)
    assert 0.5 < (torch.cat([m.flatten(1) for m in again.values()], 1)[0] == flat[0]).float().mean() < 0.66
    other = replace(network, params={n: p.sort().values for n, p in network.params.items()})
    assert all(torch.equal(m, masks[n]) for n, m in prune.masks_at_random(other, 0.3).items())


@pytest.mark.parametrize("start, end, every", [(5, 5, 1), (-1, 5, 1), (0, 5, 0)])
def test_impossible_schedules_are_refused(start, end, every):
    with pytest.raises(UsageError, match="start < end"):
        prune.Gradual(0.5, start, end, every)


def test_the_largest_weights_as_many_in_every_layer_as_a_ticket_has(network):
    ticket = prune.apply(network, prune.magnitude_masks(network, [0.3, 0.6]))
    found = prune.masks_of_largest(network, ticket)
    for name, mask in found.items():
        for r in range(len(network)):
            sizes = network.params[name][r].abs()
            assert mask[r].sum() == ticket.masks[name][r].sum() > 0
            assert sizes[mask[r]].min() >= sizes[~mask[r]].max()
    with pytest.raises(UsageError, match="replica by replica"):
        prune.masks_of_largest(network, ticket[[0]])
