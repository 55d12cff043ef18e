"""Panels about the flow: what is drawn, on tables by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from lth.book import comparison, flows


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


@pytest.mark.parametrize("of, label", [("outputs", "fan-in"), ("gradients", "fan-out")])
def test_neurons_of_one_way(ax, of, label):
    rows = [(way, rule, "linear", fan, 0.5) for way in ("outputs", "gradients") for rule in "ab" for fan in (1, 2, 3)]
    table = pd.DataFrame(rows, columns=["of", "rule", "layer", "fan", "variance"])
    flows.neurons(ax, table, of, {"b": "C1"})
    assert len(ax.collections[0].get_offsets()) == 3 and label in ax.get_xlabel() and of[:-1] in ax.get_title()


def test_outputs_have_a_line_through_medians(ax):
    rows = [(s, "Liu", std) for s, stds in {0: [1, 2, 9], 0.9: [0, 0, 1]}.items() for std in stds]
    flows.outputs(ax, pd.DataFrame(rows, columns=["sparsity", "init", "std"]), {"Liu": "C0"})
    assert ax.lines[-1].get_ydata().tolist() == [2, flows.SILENT]  # a silent network has a place on a logarithmic axis


def test_errors_beside_the_papers(ax):
    table = comparison.paper_table("E2").iloc[3:]  # of three cells there are no networks
    networks = comparison.named(table).assign(error=3.0, update=["often", "never"] * 4 + ["often"])
    flows.errors(ax, networks, comparison.paper_table("E2"))
    some_guess = [comparison.learners(p, s)[0] < 5 for p, s in zip(table.paper, table.spread, strict=True)]
    assert len(ax.lines) == len(table) + sum(some_guess) and len(ax.texts) == sum(some_guess)
    figure, other = plt.subplots()
    flows.errors(other, networks, table, hue="update")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["often", "never", "the paper"]


def drawn(ax) -> list:
    """Lines that are more than an entry of the legend."""
    return [line for line in ax.lines if len(line.get_xdata())]


HISTORY = pd.DataFrame(
    {
        "method": ["SET"] * 3 + ["RigL"] * 3,
        "init": "Liu",
        "seed": 1,
        "step": [0, 15, 20] * 2,
        "flow": [1.0, 4.0, 9.0] * 2,
        "gradient_flow": [1.0, 16.0, 9.0] * 2,
        "gradient_flow_before": [math.nan, 4.0, math.nan] * 2,
    }
)


def test_curves_leave_out_what_was_measured_in_between(ax):
    flows.curves(ax, HISTORY, "RigL", {"Liu": "C0"}, dots=True, every=10)
    curve, dots = drawn(ax)
    assert curve.get_xdata().tolist() == [0, 20] and curve.get_ydata().tolist() == [1, 9]
    assert dots.get_xdata().tolist() == [15] and dots.get_ydata().tolist() == [16] and ax.get_title() == "RigL"


def test_several_methods_in_one_panel(ax):
    flows.curves(ax, HISTORY, ["SET", "RigL"], {"SET": "C0", "RigL": "C1"}, "method", every=10)
    assert len(drawn(ax)) == 2 and ax.get_title() == ""


def test_changes_are_drawn_around_zero(ax):
    rows = HISTORY.assign(change=HISTORY.flow - 4)
    flows.changes(ax, rows, ["SET", "RigL"], "title")
    assert [list(line.get_ydata()) for line in drawn(ax)] == [[-3, 0, 5]] * 2 + [[0, 0]]


def test_medians_in_words():
    numbers = pd.DataFrame(
        {"method": "SET", "init": "Liu", "seed": [1, 2, 3], "onset": [10, 30, 20], "flow_start": [1.0, 2.0, 4.0],
         "flow_early": 1.234, "flow_mean": 0.0, "after_early": 5.0, "after_mean": 6.0}
    )  # fmt: skip
    assert flows.medians(numbers).to_numpy().tolist() == [["SET", "Liu", 20, 2, 1.23, 5, 0]]


@pytest.mark.parametrize("some", [True, False])
def test_updates_around_the_onset(ax, some):
    table = pd.DataFrame({"mask": [0, 0, 1, 1], "since": [-5.0, 5.0] * 2, "powers": [0.0, 1.0, 0.0, 3.0]})
    flows.around_onset(ax, table if some else table[:0], "RigL")
    assert len(ax.lines) == 3 + 2 * some and len(ax.texts) == 1 - some
    if some:
        assert ax.lines[2].get_ydata().tolist() == [0, 2]


def test_where_a_flow_begins(lenets, toy):
    found = flows.begins({"Scratch": lenets.label(init="original")}, toy.train)
    assert found.columns.tolist() == ["method", "init", "seed", "weights", "biases"] and len(found) == 3
    (row,) = flows.in_parts(found.assign(weights=[-1.0, -2, -3], biases=[-2.0, -2, -9])).to_dict("records")
    assert row == {"method": "Scratch", "init": "original", "weights": "-2.0", "biases": "-2.0", "both": "-1.7"}
