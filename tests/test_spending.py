"""Panels about ways of spending a ticket: what is drawn, on tables by hand."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

from lth.book import spending
from lth.methods import init
from lth.models import Model


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def drawn(ax) -> list[list[float]]:
    """Heights of the lines with more than an end."""
    return [list(line.get_ydata()) for line in ax.lines if len(line.get_xdata()) > 1]


@pytest.mark.parametrize("x", spending.X)
def test_accuracy_over_what_is_left(x):
    ways, accuracy = ["ticket", "ticket", "AT", "AT"], [80.0, 90.0, 85.0, 95.0]
    table = pd.DataFrame({"way": ways, x: [10.0, 20.0] * 2, "accuracy": accuracy})
    figure, (left, right) = plt.subplots(1, 2)
    spending.over_sparsity(left, table, ["AT"], x, "title", dense=93.0)
    spending.over_sparsity(right, table, ["AT", "ticket"], x)
    assert [85, 95] in drawn(left) and [93, 93] in drawn(left) and [80, 90] not in drawn(left)
    assert left.xaxis_inverted() and left.get_ylabel() == "test accuracy (%)" and right.get_ylabel() == ""
    plt.close(figure)


def test_factors_are_told_layer_by_layer(ax):
    starts = init.kaiming_normal(Model("lenet_300_100"), range(2)).label(network=[4, 5])
    learned = {way: dict.fromkeys(starts.masks, k * torch.tensor([1.0, 2.0])) for way, k in {"a": 1, "b": 3}.items()}
    table = spending.factors(starts, learned)
    assert table[table.layer == "fc2"].to_numpy().tolist() == [
        [4, "fc2", 1.0, "a"], [5, "fc2", 2.0, "a"], [4, "fc2", 3.0, "b"], [5, "fc2", 6.0, "b"],
    ]  # fmt: skip
    spending.scales(ax, table)
    assert len(ax.containers) == 2 and [tick.get_text() for tick in ax.get_xticklabels()] == ["fc1", "fc2", "fc3"]


def test_gains_are_named_by_what_is_left(ax):
    spending.gains(ax, pd.DataFrame({"way": "AT", "left": [100.0, 2.7433], "gain": [1.0, 2.0]}))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["100", "2.74"]


@pytest.mark.parametrize("known", [True, False])
def test_masks_beside_the_papers(ax, known):
    table = pd.DataFrame({"masks": ["one shot", "SNIP"] * 2, "way": ["ticket"] * 2 + ["AT+TRT"] * 2, "accuracy": 90.0})
    told = pd.DataFrame({"masks": ["SNIP", "other"], "paper": [88.0, 77.0]})
    spending.masks(ax, table, told if known else None)
    crosses = [(*line.get_xdata(), *line.get_ydata()) for line in ax.lines if line.get_marker() == "x"]
    assert crosses == ([(1, 88.0)] if known else [])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["plain", "AT+TRT"]


def test_eigenvalues_lie_from_top_to_bottom(ax):
    spending.eigenvalues(ax, pd.DataFrame({"way": ["ticket", "AT"], "relative": [10.0, 1.0]}), "relative", "title")
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["ticket", "AT"] and ax.get_ylim() == (1.5, -0.5)


def test_over_training_and_where_the_rate_falls(ax):
    table = pd.DataFrame({"way": "ticket", "step": [0, 5, 9], "eigenvalue": [1.0, 10.0, 100.0]})
    spending.over_training(ax, table, ["ticket"], [4, 7])
    assert drawn(ax)[0] == pytest.approx([1, 10, 100]) and [line.get_xdata()[0] for line in ax.lines[1:]] == [4, 7]


def test_landscapes_are_of_the_first_network_and_cut():
    rows = [(n, x, y, 20 * n + 3 * (x + y + 1)) for n in (0, 1) for y in (-0.5, 0, 0.5) for x in (-0.5, 0, 0.5)]
    table = pd.DataFrame(rows[::-1], columns=["network", "x", "y", "loss"])
    figure, axes = plt.subplots(1, 2, squeeze=False)
    spending.landscapes(axes, {"one": table, "other": table[table.network == 1]}, "across", "up")
    assert [ax.get_title() for ax in axes.flat] == ["one", "other"] and len(figure.axes) == 3
    heights = [sum(len(path.vertices) > 0 for path in ax.collections[0].get_paths()) for ax in axes.flat]
    assert heights == [12, 1]  # from 0 to 6 nats in halves, and all above the end
    assert figure.get_supxlabel() == "across" and figure.get_supylabel() == "up"
    plt.close(figure)


def test_walks_have_a_line_for_each_network(ax):
    rows = [(way, n, t, 1.0 + n + t * t) for way in ("ticket", "AT") for n in (0, 1) for t in (1, 0, -1)]
    spending.walks(ax, pd.DataFrame(rows, columns=["way", "network", "distance", "loss"]), ["ticket", "AT"])
    assert drawn(ax) == [[2, 1, 2], [3, 2, 3]] * 2


def test_zeros_of_both_activations(ax):
    rows = [(way, f"layer{k}", left, 50.0) for way in ("ticket", "Swish") for k in (1, 2) for left in (100, 10)]
    spending.zeros(ax, pd.DataFrame(rows, columns=["way", "stage", "left", "zeros"]), "here")
    labels = [container.get_label() for container in ax.containers]
    assert labels == ["layer1, ReLU", "layer2, ReLU", "layer1, Swish", "layer2, Swish"]
