"""The figures of chapter 5, each from its table; an arm is a way to train, in short: optimiser:rate:batch."""

from __future__ import annotations

import re
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lth.analysis.rounds import Measure
from lth.book import figures

ACCURACY = "test accuracy (%)"
ARM = re.compile(r"\b(adam|sgd):([\d.e-]+):(\d+)")


def named(text: str) -> str:
    """Text with each arm in words: «ticket, adam:0.02:60» → «ticket, Adam 0.02, batches of 60»."""
    names = {"adam": "Adam", "sgd": "SGD"}
    return ARM.sub(lambda arm: f"{names[arm[1]]} {arm[2]}, batches of {arm[3]}", text)


def against_left(ax: Axes, table: pd.DataFrame, value: str, label: str) -> None:
    """A line for each method over the weights left, dense networks at the left; single networks thin."""
    look = {"x": "left", "y": value, "hue": "method", "palette": figures.colours(table.method), "ax": ax}
    sns.lineplot(table, style="method", markers=True, dashes=False, errorbar=None, **look)
    sns.lineplot(table, units="network", estimator=None, lw=0.7, alpha=0.4, legend=False, **look)
    ax.set(xscale="log", xlabel="weights left (%)", ylabel=label)
    ticks = [t for t in [100, 30, 10, 3, 1] if t >= table.left.min()]
    ax.set_xticks(ticks, ticks)
    ax.minorticks_off()
    ax.invert_xaxis()


def by_arm(table: pd.DataFrame, value: str, label: str) -> Figure:
    """A panel for each arm; for accuracies with axes of their own: between arms they differ more than within one."""
    arms = table.arm.unique()
    fig, axes = plt.subplots(1, len(arms), figsize=(3.3 * len(arms), 4.2), sharey=value != "accuracy")
    for ax, arm in zip(axes, arms, strict=True):
        against_left(ax, table[table.arm == arm], value, label if ax is axes[0] else "")
        ax.set_title(named(arm), fontsize="small")
    figures.legend_below(fig, ["method"])
    return fig


def in_one_arm(table: pd.DataFrame, title: str = "") -> Figure:
    """Accuracy over the weights left, in a single panel."""
    fig, ax = plt.subplots()
    against_left(ax, table, "accuracy", ACCURACY)
    ax.set_title(named(title))
    figures.named_at_their_ends(ax)
    return fig


def forced(accuracy: pd.DataFrame, repelled: Sequence[str], attracted: str) -> Figure:
    """Tickets, and their masks with other weights, with and without a penalty: for each arm a panel of its own."""
    panels = [("repelled", arm) for arm in repelled] + [("attracted", attracted)]
    fig, axes = plt.subplots(1, len(panels), figsize=(3.8 * len(panels), 4.8))
    for ax, (method, arm) in zip(axes, panels, strict=True):
        methods = ["ticket", "reinit", method, f"{method} reinit"]
        shown = accuracy[(accuracy.arm == arm) & accuracy.method.isin(methods)]
        against_left(ax, shown, "accuracy", ACCURACY if ax is axes[0] else "")
        ax.set_title(named(f"{'attract' if method == 'attracted' else 'repel'},\n{arm}"), fontsize="small")
    figures.legend_below(fig, ["method"])
    return fig


def instability(barriers: pd.DataFrame) -> Figure:
    """The barrier between two copies that part at the start: medians and single networks, for each arm and round."""
    fig, ax = plt.subplots()
    look = {"x": "arm", "y": "barrier", "hue": "level", "palette": "viridis", "ax": ax}
    sns.pointplot(
        barriers, dodge=0.45, linestyle="none", estimator="median", errorbar=None, marker="_", markersize=16, **look
    )
    sns.stripplot(barriers, dodge=True, size=4, legend=False, **look)
    ax.set_xticks(ax.get_xticks(), [named(label.get_text()).replace(", ", ",\n") for label in ax.get_xticklabels()])
    ax.set(xlabel="", ylabel="barrier between two copies\n(points of test error)")
    ax.legend(title="round")
    return fig


def heatmaps(table: pd.DataFrame, measure: Measure) -> Figure:
    """Mean distances between rounds, the initialisation last: a panel for each ladder, all on one scale."""
    matrices = {
        title: rows.pivot(index="row", columns="column", values="distance").to_numpy()
        for title, rows in table.groupby("ladder", sort=False)
    }
    rounds = int(table.row.max()) - 1
    top = table.distance.max() if measure == "euclidean" else max(1.0, table.distance.max())
    names = {"angle": "angular distance", "cosine": "cosine distance", "euclidean": "Euclidean distance"}
    fig, axes = plt.subplots(1, len(matrices), figsize=(3 * len(matrices) + 0.6, 3.6), sharey=True)
    for ax, (title, matrix) in zip(axes, matrices.items(), strict=True):
        bar = {"cbar": ax is axes[-1], "cbar_kws": {"label": names[measure]}}
        sns.heatmap(matrix, vmin=0, vmax=top, square=True, cmap="viridis", ax=ax, **bar)
        ticks = np.arange(0, rounds + 1, max(1, rounds // 5))
        ax.set_xticks([*ticks + 0.5, rounds + 1.5], [*ticks, "init"], rotation=90)
        ax.set_yticks([*ticks + 0.5, rounds + 1.5], [*ticks, "init"], rotation=0)
        ax.set_title(named(title).replace(", batches", ",\nbatches"), fontsize="small")
        ax.set_xlabel("round")
    axes[0].set_ylabel("round")
    return fig


def weights(table: pd.DataFrame) -> Figure:
    """Densities of the weights left, of `ladders.densities`, a panel for each arm."""
    arms = table.arm.unique()
    fig, axes = plt.subplots(1, len(arms), figsize=(3.3 * len(arms), 4.2), sharey=True)
    for ax, arm in zip(axes, arms, strict=True):
        shown = table[table.arm == arm]
        look = {"hue": "method", "palette": figures.colours(shown.method), "drawstyle": "steps-post"}
        sns.lineplot(shown, x="weight", y="density", linewidth=1.5, estimator=None, ax=ax, **look)
        ax.set(xlabel="weight", ylabel="share per unit of the axis")
        ax.set_title(named(arm), fontsize="small")
    axes[0].set_ylim(bottom=0)  # of all, once each has been drawn
    figures.legend_below(fig, ["method"])
    return fig


def _by_group(table: pd.DataFrame, value: str, colour: str, label: str) -> Figure:
    """A panel for each arm, a row for each group of weights, a dot for each network."""
    arms, groups = table.arm.unique(), list(table.group.unique())
    fig, axes = plt.subplots(1, len(arms), figsize=(4.2 * len(arms) + 1.5, 4.4), sharey=True, squeeze=False)
    for ax, arm in zip(axes[0], arms, strict=True):
        rows = table[(table.arm == arm) & table[value].notna()]
        sns.stripplot(rows, x=value, y="group", hue=colour, order=groups, dodge=True, jitter=False, ax=ax)
        ax.set(title=named(arm), xlabel=label, ylabel="")
        ax.grid(axis="y", visible=False)
    figures.legend_below(fig, [colour])
    return fig


def pulls(table: pd.DataFrame) -> Figure:
    """How strongly cross-entropy and penalty pull, from `returns.pulls`; what pulls at nothing has no dot."""
    table = table.rename(columns={"cross_entropy": "cross-entropy"})
    sides = table.melt(["arm", "network", "group"], ["cross-entropy", "penalty"], "gradient", "size")
    sides["size"] = sides["size"].where(sides["size"] > 0)
    fig = _by_group(sides, "size", "gradient", "root mean square of the gradient")
    for ax in fig.axes:
        ax.set_xscale("log")
    return fig


def bands(table: pd.DataFrame) -> Figure:
    """Cosines to the round before, from `returns.cosines`, for each method."""
    fig = _by_group(table, "cosine", "method", "cosine to the round before")
    for ax in fig.axes:
        ax.axvline(0, color="0.6", lw=1)
    return fig


def pixels(table: pd.DataFrame) -> Figure:
    """How many `weights` are left at each `row` and `column`, a panel for each arm and method."""
    panels = table.groupby(["arm", "method"], sort=False)
    fig, axes = plt.subplots(1, len(panels), figsize=(2.9 * len(panels), 3.3))
    for ax, ((arm, method), rows) in zip(axes, panels, strict=True):
        grid = rows.pivot(index="row", columns="column", values="weights").to_numpy()
        sns.heatmap(grid, square=True, cmap="viridis", xticklabels=False, yticklabels=False, ax=ax)
        ax.set_title(named(f"{method},\n{arm}").replace(", batches", ",\nbatches"), fontsize="small")
    return fig
