"""Chapter 6's figures: panels, lines and places, from small tables."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lth.book import geometry_figures as draw


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("ways", [["interpolated"], ["gathered anew", "interpolated"]])
def test_a_panel_for_each_treatment_of_the_statistics(ways):
    """In the order in which they are told of; alone, one has no title."""
    table = pd.DataFrame({"statistics": ways, "x": range(len(ways))})
    figure, panels = draw.by_statistics(table, 3, "statistics {}", sharey=True)
    assert len(figure.axes) == len(panels) == len(ways)
    assert [set(rows.statistics) for _, rows in panels] == [{way} for way in sorted(ways, reverse=True)]
    titles = [ax.get_title() for ax, _ in panels]
    assert titles == ([""] if len(ways) == 1 else ["statistics interpolated", "statistics gathered anew"])


def test_the_contour_of_the_first_network_plus_epsilon():
    """In a bowl around the first network the contour is a circle."""
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(-2, 2, 41), np.linspace(-2, 2, 41)))
    table = pd.DataFrame({"x": x, "y": y, "error": 5 + x**2 + y**2, "level": 3})
    corners = np.array([[0.0, 0], [1, 0], [0, 1]])
    figure = draw.one_round(table, corners, dense=5.0, epsilon=1.0)
    ax = figure.axes[0]
    circle = np.concatenate([path.vertices for path in ax.collections[1].get_paths()])
    assert np.hypot(*circle.T) == pytest.approx(1, abs=0.01)
    assert ax.get_title() == "level 3 to 4" and len(ax.get_legend().get_texts()) == 3


def test_shares_of_networks_in_a_set():
    rows = [
        ("interpolated", what, leg, r < count)
        for what, count in (("projection", 1), ("next solution", 2))
        for leg in (0, 1)
        for r in range(4)
    ]
    figure = draw.members(pd.DataFrame(rows, columns=["statistics", "what", "leg", "inside"]))
    heights = [line.get_ydata().tolist() for line in figure.axes[0].lines if line.get_linestyle() == "-"]
    assert heights == [[25, 25], [50, 50]]


def test_agreement_is_counted_in_the_title():
    cells = pd.DataFrame({"statistics": "interpolated", "rewind": [0, 0, 12, 12], "excess": [0, 3, 0.5, 2.0],
                          "height": [0, 2, 3, 4.0]})  # fmt: skip
    figure = draw.agreement(cells.assign(agrees=[True, True, False, True]))
    assert figure.axes[0].get_title() == "75 % of 4 agree"


def test_marks_say_what_matches():
    tested = pd.DataFrame({"level": 2, "network": [0, 1, 0], "way": ["random", "random", "magnitude"],
                           "share": 0.5, "distance": [0.5, 0.6, 0.7], "matching": [1, 0, 1]})  # fmt: skip
    curves = pd.concat(
        pd.DataFrame({"probed": level, "network": r, "distance": [0.0, 1], "share": [1, 0.5], "upwards": [1, 0.4],
                      "lowest": [1, 0.4], "highest": [1, 0.6], "resolved": r == 0})
        for level in (2, 4) for r in (0, 1)
    )  # fmt: skip
    figure = draw.ratios(tested, curves)
    assert [ax.get_title() for ax in figure.axes] == ["level 2\n1 of 2 resolved", "level 4\n1 of 2 resolved"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["magnitude, matches", "random, fails", "random, matches"]
    assert len(figure.axes[0].lines) == 4  # two curves, and the ends of its own one
