"""Numbers by solution against tables by hand, and what the panels draw."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from lth.book import basin, comparison

NETWORKS = pd.DataFrame(
    [
        *(("ticket", 0, 96.0), ("ticket", 0, 98.0), ("ticket", 1, 10.0), ("ticket", 1, 94.0)),
        *(("Scratch", 0, 90.0), ("Scratch", 1, 80.0)),
    ],
    columns=["method", "solution", "accuracy"],
)


@pytest.fixture
def ax():
    figure, ax = plt.subplots(layout="constrained")
    yield ax
    plt.close(figure)


def test_accuracies_are_means_of_solutions():
    found = basin.accuracies(NETWORKS, ["Scratch", "ticket"], classes=10).to_numpy().tolist()
    assert found == [["Scratch", 85.0, 7.07, "2 of 2"], ["ticket", 74.5, 31.82, "3 of 4"]]


def test_what_has_not_learned_is_not_known():
    table = basin.of_learned(NETWORKS.assign(learned=NETWORKS.accuracy > 20, more=1.0), ["accuracy", "more"])
    assert table.columns.tolist() == ["method", "solution", "measure", "value"] and len(table) == 12
    lost = table[table.value.isna()]
    assert lost.to_numpy()[:, :3].tolist() == [["ticket", 1, "accuracy"], ["ticket", 1, "more"]]


def test_a_unit_is_a_solution():
    rows = [("ticket", 4, "accuracy", 90.0), ("ticket", 4, "accuracy", 92.0), ("ticket", 4, "ensemble", 94.0)]
    rows += [("ticket", 5, "accuracy", 80.0), ("Scratch", 4, "accuracy", 70.0)]
    numbers = pd.DataFrame(rows, columns=["method", "solution", "measure", "value"])
    units = basin.by_solution(numbers, range(4, 7), ["ticket", "Restart"])
    assert units.index.tolist() == [4, 5, 6] and {*units.columns.get_level_values(0)} == {"ticket", "Restart"}
    assert units["ticket", "accuracy"].tolist()[:2] == [91, 80] and units["ticket", "gain"].tolist()[0] == 3
    assert units["ticket", "gain"].isna().tolist() == [False, True, True] and units["Restart"].isna().all(axis=None)


@pytest.mark.parametrize("row", ["E8", None])
def test_distances_of_each_solution(ax, row):
    methods = ["ticket", "Scratch (diff. init.)"]
    ways = NETWORKS.assign(d_init=4.0, d_final=[1.0, 3.0, 5.0, 5.0, 8.0, 9.0]).replace("Scratch", methods[1])
    basin.distances(ax, ways, methods, row)
    lines = [list(line.get_ydata()) for line in ax.lines if line.get_alpha() == 0.35]
    assert lines == [[4, 2], [4, 5], [4, 8], [4, 9]]
    papers = [points.get_offsets().tolist() for points in ax.collections if points.get_label() == "paper"]
    assert papers == ([[[0.0, 13.61], [0.0, 17.46], [1.0, 8.03], [1.0, 25.64]]] if row else [])


def test_draws_with_the_papers(ax):
    solutions = pd.DataFrame({"d_final": [9.0, 10.0, 16.0], "barrier": [1.0, 3.0, 2.0], "gain": [0.0, 0.1, 0.2]})
    basin.draws(ax, solutions, 8.0, paper=True)
    assert "rank correlation 0.50, n = 3" in ax.get_title()
    told = comparison.one_more(solutions.d_final, 8.0)
    assert (ax.patches[0].get_x(), ax.patches[0].get_width()) == pytest.approx((told.low, told.high - told.low))
    assert ax.collections[-1].get_offsets().tolist() == [[8.0, 0.0]]


def test_maps_share_a_scale():
    rows = [(place, when, "ticket", x, -x) for place, x in (("near", 1.0), ("far", 2.0)) for when in ("start", "end")]
    places = pd.DataFrame(rows, columns=["place", "when", "method", "x", "y"]).assign(stress=0.125)
    figure, axes = plt.subplots(1, 2)
    basin.maps(axes, places, {"near": 3.0, "far": 4.0}, large="ticket")
    assert [ax.get_xlim() for ax in axes] == [(-2.3, 2.3)] * 2
    assert axes[1].get_title() == "far: $d_{final}$ 4.0, stress 0.12"
    plt.close(figure)
