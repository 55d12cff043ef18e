"""One mask update: who stays, what the gradient's norm does, and in which measures rescaling cannot be seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lth.analysis import updates
from lth.data import Split
from lth.gradients import mean_gradients
from lth.methods import prune
from lth.methods.dst import DST
from lth.population import Population


@pytest.fixture
def pair(lenets, toy) -> tuple[Population, Population]:
    """Sparse networks, and what RigL makes of them."""
    generator = torch.Generator().manual_seed(3)
    masks = {n: torch.rand(mask.shape, generator=generator) < 0.4 for n, mask in lenets.masks.items()}
    before = prune.apply(lenets, masks)
    return before, prune.apply(before, DST("gradient", 10, 100, 0.3, 50).masks(before, 10, toy))


def scaled(population: Population, **factors: float) -> Population:
    """The population with layers multiplied, weights and biases: fc1=2.0."""
    params = dict(population.params)
    for layer, factor in factors.items():
        for part in ("weight", "bias"):
            params[f"{layer}.{part}"] = params[f"{layer}.{part}"] * factor
    return replace(population, params=params)


def test_every_connection_of_a_layer_has_one_fate(pair):
    before, after = pair
    table = updates.fates(before, after, "fc3.weight")
    old, new = (some.masks["fc3.weight"][0].numpy() for some in pair)
    assert not table.duplicated(["row", "column"]).any()
    places = {fate: set(zip(rows.row, rows.column, strict=True)) for fate, rows in table.groupby("fate")}
    assert places["stays"] | places["dropped"] == set(zip(*old.nonzero(), strict=True))
    assert places["stays"] | places["grown"] == set(zip(*new.nonzero(), strict=True))
    assert len(places["dropped"]) == len(places["grown"]) > 0


def history(before: list[float], after: list[float]) -> pd.DataFrame:
    table = pd.DataFrame({"step": range(len(after)), "loss": 1.0, "accuracy": 0.5, "gradient_flow": after})
    return table.assign(gradient_flow_before=before)


def test_changes_are_of_norms_at_updates():
    table = updates.changes(history([np.nan, 4.0, 1.0], [1.0, 9.0, 100.0]))
    assert table.step.tolist() == [1, 2] and table.norm_before.tolist() == [2, 1]
    assert table.change.tolist() == pytest.approx([1, 9])
    assert table.powers.tolist() == pytest.approx([np.log10(1.5), 1])


def test_a_gradient_of_zero_has_no_ratio():
    assert updates.changes(history([0.0, 1.0], [1.0, 0.0])).powers.isna().all()


def test_powers_do_not_depend_on_the_unit_of_the_loss_but_differences_do():
    one, hundred = (updates.changes(history([c * 4.0], [c * 9.0])) for c in (1, 100))
    assert one.powers.tolist() == pytest.approx(hundred.powers.tolist())
    assert 10 * one.change.item() == pytest.approx(hundred.change.item())


def test_a_rescaling_that_changes_nothing_is_not_seen_by_layer(pair, toy):
    """Of a ReLU network one layer twice as large, the next half as large; the norm over all layers sees that."""
    split = toy.train.evenly(60)
    again = [scaled(some, fc1=2.0) for some in pair]
    again = [replace(some, params=some.params | {"fc2.weight": some.params["fc2.weight"] / 2}) for some in again]
    for some, other in zip(pair, again, strict=True):
        assert torch.allclose(some.evaluate(split).pipe(torch_loss), other.evaluate(split).pipe(torch_loss), rtol=1e-5)
    assert updates.by_layer(*again, split) == pytest.approx(updates.by_layer(*pair, split), abs=1e-4)
    ratios = [(new / old).log10() for old, new in (norms(both, split) for both in (pair, again))]
    assert (ratios[0] - ratios[1]).abs().max() > 1e-3


def torch_loss(table: pd.DataFrame) -> torch.Tensor:
    return torch.tensor(table["loss"].to_numpy())


def norms(pair: tuple[Population, Population], split: Split) -> list[torch.Tensor]:
    """Of the gradient in all prunable layers, before and after."""
    return [updates.layer_norms(some, split).square().sum(1).sqrt() for some in pair]


def test_powers_change_less_than_differences_with_the_size_of_the_logits(pair, toy):
    """A quarter of the logits, the same decisions: invariant is neither."""
    split = toy.train.evenly(60)
    (old, new), (old_small, new_small) = (norms([scaled(some, fc3=size) for some in pair], split) for size in (1, 0.25))
    assert ((new / old).log10() - (new_small / old_small).log10()).abs().max() < 0.1
    assert ((old / old_small).log10().abs() > 0.2).all()


def test_of_the_weights_alone(pair, toy):
    """No update touches the biases, whose gradient may be of any size."""
    before, after = pair
    images = toy.train.evenly(60)
    found = updates.of_weights(before, after, images)
    for r in range(3):
        norms = []
        for some in pair:
            gradients, _ = mean_gradients(some, images)
            weights = torch.cat([gradients[n][r][mask[r]] for n, mask in some.masks.items()])
            norms.append(weights.double().norm().item())
        assert found[r] == pytest.approx(np.log10(norms[1] / norms[0]), abs=1e-5)
    assert np.isnan(updates.of_weights(before, scaled(after, fc3=0.0, fc2=0.0), images)).all()


def test_powers_in_words():
    rows = [("SET", 5, 0.1), ("SET", 5, 0.3), ("SET", 10, 1.0), ("SET", 10, 1.0), ("RigL", 5, 0.0), ("RigL", 5, 0.0)]
    found = updates.in_words(pd.DataFrame(rows, columns=["rule", "step", "powers"]), "rule")
    assert found.columns.tolist() == ["rule", "5", "10"] and found["5"].tolist() == ["0.200 ± 0.141", "0.000 ± 0.000"]


def test_a_layer_without_gradient_is_left_out(pair, toy):
    """The first layers of a network whose last hidden layer is silent have none."""
    silent = [scaled(some, fc2=0.0) for some in pair]
    found = updates.by_layer(*silent, toy.train.evenly(60))
    assert np.isnan(found).all()


def test_numbers_grow_at_updates_and_are_larger_in_a_method():
    """Powers of ten by hand; a network that has no number at a step is averaged over the others."""
    rows = [
        (mask, when, method, step, 10.0 ** (power + mask + step / 10))
        for mask in (0, 1)
        for when, method, power in (("before", "RigL", 1), ("after", "RigL", 3), ("before", "SET", -1))
        for step in (10, 20)
    ]
    ends = pd.DataFrame(rows, columns=["mask", "when", "method", "step", "size"])
    assert updates.grown(ends, "size", "RigL", [10, 20]).to_dict() == pytest.approx({0: 2.0, 1: 2.0})
    assert updates.larger(ends, "size", "RigL", "SET", [20]).to_dict() == pytest.approx({0: 2.0, 1: 2.0})
    found = updates.factors(ends, "size")  # SET has no number after an update
    assert found.groupby(["method", "mask", "step"]).factor.sum().round(9).to_dict() == {
        ("RigL", mask, step): 100 for mask in (0, 1) for step in (10, 20)
    }
    ends.loc[(ends["when"] == "after") & (ends["mask"] == 1) & (ends["step"] == 20), "size"] = np.nan
    assert len(updates.factors(ends, "size")) == 3
    assert updates.grown(ends, "size", "RigL", [10, 20]).to_dict() == pytest.approx({0: 2.0, 1: 1.5})
    assert updates.grown(ends, "size", "RigL", []).isna().all()


def test_what_goes_up_and_down_again_has_moved():
    """`grown` says nothing happened; `moved` says how much did."""
    by = pd.DataFrame({"method": "SET", "mask": [0, 0, 1, 1], "step": [10, 20, 10, 20], "factor": [10, 0.1, 1, 100]})
    assert updates.moved(by, "SET", [10, 20]).to_dict() == pytest.approx({0: 1.0, 1: 1.0})
    assert updates.moved(by, "SET", [10]).to_dict() == pytest.approx({0: 1.0, 1: 0.0})
    assert updates.moved(by, "RigL", [10, 20]).empty
