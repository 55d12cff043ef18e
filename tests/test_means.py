"""Means and intervals as they are drawn and told, against numpy and Student's table."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.colors import same_color

from lth.book import figures
from lth.book.means import ACCURACY, curves, in_words, means, side_by_side

TABLE = pd.DataFrame(
    {"way": ["b"] * 3 + ["a"] * 3, "x": [1, 1, 1, 2, 2, 2], "y": [97.0, 99.0, 100.0, 1.0, 10.0, math.nan]}
)


def test_means_with_students_intervals():
    found = means(TABLE, ["way"], "y")
    half = 4.302653 * np.std([97, 99, 100], ddof=1) / math.sqrt(3)
    assert found.way.tolist() == ["b", "a"]
    assert found.loc[0, ["mean", "low", "high"]].tolist() == pytest.approx([296 / 3, 296 / 3 - half, 296 / 3 + half])
    assert found.loc[1, "mean"] == 5.5 and not len(means(TABLE[5:], ["way"], "y"))


def test_intervals_end_where_values_do():
    found = means(TABLE, ["way"], "y", ACCURACY)
    assert found.high.tolist() == [100, pytest.approx(62.7, abs=0.1)] and found.low[1] == 0


def test_geometric_means():
    found = means(TABLE, ["way"], "y", log=True).loc[1]
    assert found["mean"] == pytest.approx(math.sqrt(10)) and found.low * found.high == pytest.approx(10)


def test_in_words():
    told = in_words(TABLE, ["way", "x"], "y", "accuracy", ACCURACY)
    assert told.columns.tolist() == ["way", "x", "accuracy", "95 % interval"]
    assert told.iloc[1].tolist() == ["a", 2, "5.50", "[0.00, 62.68]"]


@pytest.mark.parametrize("lying", [False, True])
def test_points_lie_at_their_categories(lying):
    _, ax = plt.subplots()
    side_by_side(ax, TABLE, "x", "y", "way", ACCURACY, lying=lying)
    lines = [bar.lines[0].get_data()[:: -1 if lying else 1] for bar in ax.containers]
    assert [line[1].tolist() for line in lines] == [[pytest.approx(296 / 3)], [5.5]]
    assert [round(line[0][0]) for line in lines] == [0, 1] and lines[0][0][0] < 0 < 1 < lines[1][0][0]
    plt.close()


def test_curves_go_through_the_means_in_the_order_asked_for():
    _, ax = plt.subplots()
    curves(ax, TABLE, "x", "y", "way", ["a", "b"], apart=1.21)
    (a, b) = (bar.lines[0] for bar in ax.containers)
    assert a.get_ydata().tolist() == [5.5] and a.get_xdata()[0] == pytest.approx(2 / 1.1)
    assert ax.get_legend_handles_labels()[1] == ["a", "b"] and b.get_xdata()[0] == pytest.approx(1.1)
    plt.close()


@pytest.mark.parametrize(("networks", "there"), [(1, False), (2, True), (5, True), (6, False)])
def test_few_networks_are_dots_beside_their_mean(networks, there):
    table = pd.DataFrame({"x": 1, "y": np.arange(networks) / 10, "way": "a"})
    for draw in (side_by_side, lambda ax, *words: curves(ax, *words, ["a"])):
        _, ax = plt.subplots()
        draw(ax, table, "x", "y", "way")
        dots = [line for line in ax.lines if line.get_marker() == "."]
        assert [sorted(line.get_ydata()) for line in dots] == [sorted(table.y)] * there
        plt.close()


def test_a_kind_of_network_has_one_colour_and_others_have_none_of_those():
    told = figures.colours(["ticket", "skip", "Mish", "ticket"])
    assert list(told) == ["ticket", "skip", "Mish"] and told["ticket"] == figures.colours(["ticket"])["ticket"]
    assert len(set(told.values())) == 3
    assert len(set(figures.KINDS.values())) == len(figures.KINDS)


def test_lines_go_through_means_in_the_colours_of_their_kinds():
    fig, ax = plt.subplots()
    table = pd.DataFrame({"left": [1, 1, 2, 2] * 2, "y": [1.0, 3, 5, 7, 2, 2, 4, 4], "way": ["ticket"] * 4 + ["x"] * 4})
    figures.lines(ax, table, "left", "y", "way", (0.5, 6.5))
    *bands, dots = ax.collections
    heights = np.concatenate([path.vertices[:, 1] for band in bands for path in band.get_paths()])
    assert sorted(dots.get_offsets()[:, 1]) == sorted(table.y)
    assert heights.min() == 0.5 and heights.max() == 6.5
    figures.threshold(ax, 2.5)
    first, other = ax.lines[:2]
    assert first.get_ydata().tolist() == [2, 6] and other.get_ydata().tolist() == [2, 4]
    assert tuple(first.get_color()) == tuple(figures.COLOURS["ticket"]) != tuple(other.get_color())
    assert ax.lines[-1].get_ydata() == [2.5, 2.5]
    plt.close(fig)


def test_text_is_legible_at_the_width_of_a_page():
    fig, axes = plt.subplots(1, 3, figsize=(15.2, 4))
    axes[0].set_title("large", fontsize=30)
    axes[1].plot([0, 1], label="a")
    axes[1].legend(fontsize=5)
    figures.legible(fig)
    assert axes[0].title.get_fontsize() == 30
    assert axes[1].get_legend().get_texts()[0].get_fontsize() == axes[2].get_xticklabels()[0].get_fontsize() == 18
    plt.close(fig)


def test_dots_are_spread_alike_each_time():
    """Seaborn's jitter: a chapter that is executed again has the same figures."""

    def places() -> np.ndarray:
        figures.house_style()
        fig, ax = plt.subplots()
        sns.stripplot(x=["a"] * 5, y=range(5), ax=ax)
        plt.close(fig)
        return ax.collections[0].get_offsets().data.copy()

    assert (places() == places()).all()


def test_lines_are_named_at_their_right_ends():
    figure, ax = plt.subplots()
    for label, heights in {"low": [3.0, 0.0], "high": [0.0, 10.0], "beside it": [5.0, 9.99]}.items():
        ax.plot([100, 1], heights, label=label)
    ax.plot([100, 1], [0, 4], color=ax.lines[0].get_color(), linewidth=0.5)  # a single network of the first kind
    ax.set_xlim(100, 1)
    ax.legend()
    figures.named_at_their_ends(ax)
    assert ax.get_legend() is None
    told = {text.get_text(): text for text in ax.texts}
    assert [told[name].xy[1] for name in ("low", "high", "beside it")] == [0.0, 10.0, 9.99]
    assert same_color(told["low"].get_color(), ax.lines[0].get_color()) and told["low"].xyann == (4, 0)
    figure.draw_without_rendering()
    extents = sorted((text.get_window_extent() for text in ax.texts), key=lambda box: box.y0)
    assert all(one.y1 <= other.y0 + 3 for one, other in pairwise(extents))  # none covers another
