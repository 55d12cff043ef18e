"""Ladders as tables: network by network, against the functions that each number comes from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import double

from lth.analysis import ladders, landscape, returns, weights
from lth.methods import init, prune
from lth.models import Model
from lth.training.plan import Run

LENET = Model("lenet_300_100", widths=(12, 8))
CONV = Model("resnet8", (1, 28, 28), 10)


@pytest.fixture(scope="module")
def levels():
    """Three levels of two networks, untrained: masks within each other, weights of their own."""
    found = [double(init.kaiming_normal(LENET, [0, 1])).label(network=range(2), level=0)]
    for level in (1, 2):
        pruned = prune.apply(found[-1], prune.magnitude_masks(found[-1], 0.5))
        other = double(init.kaiming_normal(LENET, [10 * level, 10 * level + 1])).label(network=range(2), level=level)
        found.append(prune.rewind(pruned, other))
    return found


def test_accuracies_of_all_levels(levels, toy):
    found = ladders.accuracies({("ticket", "sgd"): levels, ("reinit", "sgd"): levels[:2]}, toy.test)
    assert found.groupby("method").size().to_dict() == {"ticket": 6, "reinit": 4}
    row = found[(found.method == "ticket") & (found.level == 2) & (found.network == 1)].iloc[0]
    assert row.accuracy == pytest.approx(100 * levels[2][1:].evaluate(toy.test).accuracy[0])
    assert row.left == pytest.approx(25) and row.error == pytest.approx(1 - row.accuracy / 100)


def test_thresholds_are_quantiles(levels):
    found = ladders.thresholds({("ticket", "sgd"): levels}, 0.5)
    for row in found.itertuples():
        level = levels[row.level]
        sizes = torch.cat([p[row.network][level.masks[n][row.network]] for n, p in level.params.items()
                           if n in level.masks]).abs().sort().values  # fmt: skip
        assert row.threshold == pytest.approx(float(sizes[round(0.5 * len(sizes)) - 1]))
        assert row.left == pytest.approx(100 / 2**row.level)


def test_a_mask_of_the_largest_first_weights_is_found_again(levels):
    found = ladders.overlap_with_largest(levels[0], levels, [0, 2])
    assert found.level.tolist() == [0, 0, 2, 2] and found.overlap[:2].tolist() == [1, 1]
    own = prune.apply(levels[0], prune.masks_of_largest(levels[0], levels[2]))
    again = ladders.overlap_with_largest(levels[0], [own], [0])
    assert again.overlap.tolist() == [1, 1] and (found.overlap[2:] < 1).all()


@pytest.mark.parametrize("model, statistics", [(LENET, ("none",)), (CONV, ("gathered anew", "interpolated"))])
def test_barriers_relative_to_the_ends(model, statistics, toy):
    split = toy.test.evenly(20)
    one, other = (init.kaiming_normal(model, seeds).label(network=range(2)) for seeds in ([0, 1], [2, 3]))
    ways = {way: split if way == "gathered anew" else None for way in statistics}
    found = ladders.barriers(one, other, 3, split, ways)
    assert list(zip(found.statistics, found.network, strict=True)) == [(way, r) for way in statistics for r in range(2)]
    for way, rows in found.groupby("statistics"):
        line = landscape.line(one, other, [0, 0.5, 1], split, ways[way])
        error = line.pivot(index="network", columns="alpha", values="error").to_numpy()
        height = np.maximum(error[:, 1] - (error[:, 0] + error[:, 2]) / 2, 0)
        assert rows.barrier.to_numpy() == pytest.approx(100 * height)
        assert rows.relative.to_numpy() == pytest.approx(100 * height / error[:, [0, 2]].mean(1))


def test_a_barrier_between_perfect_networks_counts_in_wrong_images(monkeypatch, toy):
    lines = pd.DataFrame({"replica": [0], "barrier": 0.03, "start": 0.0, "end": 0.0, "distance": 1.0})
    monkeypatch.setattr(ladders.lcs, "segments", lambda *_: lines)
    found = ladders.barriers(None, None, 3, toy.test, {"none": None})
    assert found.relative[0] == pytest.approx(100 * 0.03 * len(toy.test)) and found.barrier[0] == pytest.approx(3)


def angle(one, other, replica):
    """In right angles, weight by weight."""
    both = [(one.masks[n][replica] & other.masks[n][replica]).numpy() for n in one.masks]
    x, y = (np.concatenate([p.params[n][replica].numpy()[m] for n, m in zip(p.masks, both, strict=True)])
            for p in (one, other))  # fmt: skip
    return 2 / np.pi * np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def test_how_far_solutions_turn(levels):
    by_hand = [[angle(levels[level], levels[level - 1], r) for level in (1, 2)] for r in range(2)]
    assert ladders.turns(levels, [1, 2]) == pytest.approx(np.mean(by_hand, axis=1))
    two = [angle(levels[2], levels[0], r) for r in range(2)]
    assert ladders.turns(levels, [1, 2], steps=2) == pytest.approx(two)  # level 1 has none two before
    table = ladders.mean_distances({"ticket": levels})
    row = table[(table.row == 2) & (table.column == 0)].iloc[0]
    assert row.distance == pytest.approx(np.mean(two)) and row.ladder == "ticket" and len(table) == 9
    whole, folded = {"all": levels[0].masks}, lambda angles: np.minimum(angles, 2 - np.asarray(angles))
    assert ladders.turns_of(whole, levels, [1, 2])["all"].to_numpy() == pytest.approx(folded(by_hand).mean(1))
    assert ladders.turns_of(whole, levels, [1, 2], steps=2)["all"].to_numpy() == pytest.approx(folded(two))


def test_right_angles():
    found = ladders.right_angles(pd.Series([1, 0, -1, np.sqrt(0.5), 1 + 1e-9]))
    assert found.tolist() == pytest.approx([0, 1, 2, 0.5, 0])


def test_how_far_groups_of_weights_turn(levels, toy):
    """Each network's for itself; the same direction and its opposite are at no angle."""
    groups = returns.groups(levels[0], toy.train)
    cosines = returns.cosines(levels[1], levels[0], groups)
    found = ladders.turns_of(groups, levels, [1])
    for name in groups:
        some = cosines[cosines.group == name].cosine.abs()
        assert found[name].to_numpy() == pytest.approx(ladders.right_angles(some).to_numpy(), nan_ok=True)
    turned = [levels[0], levels[0].with_theta(-levels[0].theta())]
    assert ladders.turns_of({"all": levels[0].masks}, turned, [1])["all"].to_numpy() == pytest.approx(0, abs=1e-3)


def test_accuracies_by_run(levels, toy):
    runs = [Run(level, level.frame, {}, 0.0, {}) for level in levels]
    found = ladders.accuracy_by_run(runs, toy.test)
    assert [own.tolist() for own in found] == [(100 * level.evaluate(toy.test).accuracy).tolist() for level in levels]


def test_densities_of_the_weights_left_of_one_network(levels):
    found = ladders.densities({("ticket", "sgd"): levels, ("reinit", "sgd"): levels[::-1]}, 2, replica=1, bins=8)
    both = np.concatenate([weights.kept(levels[place], 1) for place in (2, 0)])
    width = np.quantile(np.abs(both), 0.995)
    for method, level in (("ticket", levels[2]), ("reinit", levels[0])):
        own, kept = found[found.method == method], weights.kept(level, 1)
        low, high = own.weight.iloc[2:4]
        inside = ((kept >= low) & (kept < high)).mean()
        assert own.density.iloc[2] * (high - low) == pytest.approx(inside) and set(own.arm) == {"sgd"}
        assert own.density.sum() * (high - low) == pytest.approx((np.abs(kept) <= width).mean())
    assert -found.weight.min() == found.weight.max() == pytest.approx(width)
