"""Magnitude pruning against torch.nn.utils.prune, numpy and the written-out schedule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils import prune as torch_prune

from lth.errors import UsageError
from lth.methods import init, prune
from lth.models import Model
from lth.recipe import Recipe
from lth.train import train


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


@pytest.mark.parametrize("sparsity", [0.2, 0.9])
def test_global_equals_torch_prune(network, sparsity):
    masks = prune.magnitude_masks_global(network, sparsity)
    for r in range(len(network)):
        module = network.module(r)
        layers = [(module.get_submodule(n.removesuffix(".weight")), "weight") for n in masks]
        total = sum(m[0].numel() for m in masks.values())
        torch_prune.global_unstructured(
            layers, pruning_method=torch_prune.L1Unstructured, amount=total - prune.kept(total, sparsity)
        )
        for layer, mask in zip(layers, masks.values(), strict=True):
            assert torch.equal(mask[r], layer[0].weight_mask.bool())


@pytest.mark.parametrize("masks_of", [prune.magnitude_masks_per_layer, prune.magnitude_masks_global])
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
        lambda: prune.magnitude_masks_global(network, sparsity),
        lambda: prune.Gradual(sparsity, 0, 10, 1),
    ):
        with pytest.raises(UsageError, match="fraction of zeros"):
            refuse()


@pytest.mark.parametrize("start, end, every", [(5, 5, 1), (-1, 5, 1), (0, 5, 0)])
def test_impossible_schedules_are_refused(start, end, every):
    with pytest.raises(UsageError, match="start < end"):
        prune.Gradual(0.5, start, end, every)
