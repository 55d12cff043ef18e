"""Chapter 5's figures: panels, lines and places, from small tables."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lth.book import returning_figures as draw

ROWS = [
    (method, arm, level, network, 100 * 0.5**level, 90.0 - level)
    for method in ("ticket", "reinit", "repelled", "repelled reinit", "attracted", "attracted reinit")
    for arm in ("adam", "sgd")
    for level in range(3)
    for network in range(2)
]
TABLE = pd.DataFrame(ROWS, columns=["method", "arm", "level", "network", "left", "accuracy"])


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_a_panel_for_each_arm_a_mean_and_thin_lines_for_each_method():
    two = TABLE[TABLE.method.isin(["ticket", "reinit"])]
    figure = draw.by_arm(two, "accuracy", draw.ACCURACY)
    assert [ax.get_title() for ax in figure.axes] == ["adam", "sgd"]
    for ax in figure.axes:
        assert len([line for line in ax.lines if len(line.get_xdata())]) == 2 * (1 + 2)
        assert ax.xaxis.get_inverted() and ax.get_xscale() == "log"


def test_forced_networks_beside_those_that_are_not():
    figure = draw.forced(TABLE, ["adam", "sgd"], "adam")
    assert [ax.get_title() for ax in figure.axes] == ["repel,\nadam", "repel,\nsgd", "attract,\nadam"]
    names = [[label for label in ax.get_legend_handles_labels()[1] if label != "method"] for ax in figure.axes]
    assert names[0] == ["ticket", "reinit", "repelled", "repelled reinit"]
    assert names[2] == ["ticket", "reinit", "attracted", "attracted reinit"]


def test_heatmaps_have_one_scale():
    one = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    matrices = {"ticket": one, "reinit": 3 * one}
    entries = [(t, i, j, d) for t, matrix in matrices.items() for (i, j), d in np.ndenumerate(matrix)]
    table = pd.DataFrame(entries, columns=["ladder", "row", "column", "distance"])
    figure = draw.heatmaps(table, "euclidean")
    maps = [ax.collections[0] for ax in figure.axes[:2]]
    assert [image.get_clim() for image in maps] == [(0, 3), (0, 3)]
    for image, matrix in zip(maps, matrices.values(), strict=True):
        assert image.get_array().ravel().tolist() == matrix.ravel().tolist()


def test_pixels_lie_where_they_are():
    table = pd.DataFrame({"row": [0, 0, 1, 1], "column": [0, 1, 0, 1], "weights": [1.0, 2, 3, 4]})
    both = pd.concat(table.assign(arm="sgd", method=method) for method in ("ticket", "repelled"))
    figure = draw.pixels(both)
    assert figure.axes[0].collections[0].get_array().ravel().tolist() == [1, 2, 3, 4]
    assert figure.axes[0].get_title() == "ticket,\nsgd"


def test_what_pulls_at_nothing_has_no_dot():
    table = pd.DataFrame({"arm": "sgd", "network": [0, 0], "group": ["dark", "lit"], "cross_entropy": [0.0, 1e-3],
                          "penalty": [0.5, 0.1]})  # fmt: skip
    ax = draw.pulls(table).axes[0]
    assert sum(len(dots.get_offsets()) for dots in ax.collections) == 3 and ax.get_xscale() == "log"


def test_arms_are_told_in_words():
    assert draw.named("ticket, adam:0.02:60") == "ticket, Adam 0.02, batches of 60"
    assert draw.named("repelled,\nsgd:1e-3:128") == "repelled,\nSGD 1e-3, batches of 128"
    assert draw.named("weight decay 0") == "weight decay 0"


def test_densities_have_a_panel_for_each_arm():
    told = {"weight": [-1.0, 0.0, 1.0], "density": [0.25, 0.75, 0.0]}
    rows = [pd.DataFrame({"arm": arm, "method": method, **told}) for arm in "ab" for method in ("ticket", "reinit")]
    rows[-1]["density"] *= 100
    figure = draw.weights(pd.concat(rows))
    assert [ax.get_title() for ax in figure.axes] == ["a", "b"]
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0.25, 0.75, 0.0]
    assert figure.axes[0].get_ylim()[0] == 0 and figure.axes[1].get_ylim()[1] > 75  # one axis, for the highest of all
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ticket", "reinit"]
