"""The figures of chapter 6, each from its table; errors, barriers and ε are in points of test error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lth.analysis.subspace import Spare
from lth.book import estimates, figures

STATISTICS = ("interpolated", "gathered anew")  # what becomes of batch norm's on a line
ANYTHING = (0, np.inf)
PER_CENT = (0, 100)
ESTIMATE = ("value", "low", "high")


def by_statistics(
    table: pd.DataFrame, height: float, title: str = "{}", below: bool = False, **shared: bool
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A panel for each treatment of batch norm's statistics, beside or `below` each other, with its rows of the table.

    Where there is only one treatment nothing is said of it.
    """
    ways = [way for way in STATISTICS if way in set(table.statistics)]
    shape, size = ((len(ways), 1), (9.5, height * len(ways))) if below else ((1, len(ways)), (9.5, height))
    figure, axes = plt.subplots(*shape, figsize=size, squeeze=False, **shared)
    for ax, way in zip(axes.flat, ways, strict=True):
        ax.set_title(title.format(way) if len(ways) > 1 else "")
    return figure, [(ax, table[table.statistics == way]) for ax, way in zip(axes.flat, ways, strict=True)]


def by_level(levels: Sequence[int], height: float) -> tuple[Figure, Iterator[tuple[Axes, int]]]:
    """A panel for each level that is looked at closely."""
    figure, axes = plt.subplots(1, len(levels), figsize=(9.5, height), sharey=True, squeeze=False)
    return figure, zip(axes[0], levels, strict=True)


def over_left(ax: Axes, table: pd.DataFrame, hue: str, limit: float) -> None:
    """The error at every level, over the weights that are left; dotted: the matching error."""
    figures.lines(ax, table, "left", "error", hue, PER_CENT)
    figures.threshold(ax, limit)
    ax.set(xlabel="weights left (%)", ylabel="test error (%)")
    figures.downwards(ax, table.left)
    ax.legend(title=hue)


def errors(accuracy: pd.DataFrame, masks: pd.DataFrame, limit: float) -> Figure:
    """The error over the weights left for each rewind step, and that of masks that are not the ladder's."""
    fig, ax = plt.subplots()
    over_left(ax, accuracy.rename(columns={"rewind": "rewind step"}), "rewind step", limit)
    for (mask, some), marker in zip(masks.groupby("mask", sort=False), "PX", strict=True):
        middle = some.groupby("level")[["left", "error"]].mean()
        ax.plot(middle.left, middle.error, marker, color="grey", markersize=9, label=f"mask: {mask}")
    ax.legend(title="rewind step")
    ax.set_yscale("log")
    figures.numbered(ax.yaxis)
    return fig


def paths(table: pd.DataFrame, limit: float) -> Figure:
    """The error on the lines from level to level, for each rewind step."""
    fig, panels = by_statistics(table, 3.9, "batch norm's statistics {}", below=True, sharex=True)
    looks = {"markers": False, "dashes": True}
    for ax, some in panels:
        some = some.rename(columns={"rewind": "rewind step"})
        figures.lines(ax, some, "place", "error", "rewind step", PER_CENT, **looks)
        figures.threshold(ax, limit)
        ax.set(ylabel="test error (%)", xlabel="", xticks=range(int(table.place.max()) + 1))
        ax.set_yscale("log")
        figures.numbered(ax.yaxis)
        ax.set_ylim(bottom=0.8 * some.error.min())  # where an interval reaches to zero, which has no logarithm
    ax.set(xlabel="level (solutions at whole numbers, lines between them)")
    return fig


def agreement(cells: pd.DataFrame) -> Figure:
    """The barrier to the next level over the error above the dense networks', both in ε, for each pair of levels."""
    fig, panels = by_statistics(cells, 4.4, sharey=True)
    steps = cells.rewind.nunique()
    looks = {"hue": "rewind step", "style": "rewind step", "palette": figures.PALETTE[:steps], "s": 60}
    for ax, some in panels:
        sns.scatterplot(some.rename(columns={"rewind": "rewind step"}), x="excess", y="height", ax=ax, **looks)
        ax.axvline(1, color="black", linestyle=":", linewidth=1.5)
        figures.threshold(ax, 1)
        ax.set(xlabel="error above the dense networks' (ε)", ylabel="barrier to the next level (ε)")
        ax.set_xscale("symlog", linthresh=1)
        ax.set_yscale("symlog", linthresh=1)
        ax.set_ylim(bottom=-0.1)
        way = f" ({ax.get_title()})" if ax.get_title() else ""
        ax.set_title(f"{100 * some.agrees.mean():.0f} % of {len(some)} agree{way}")
    return fig


def between_levels(pairs: pd.DataFrame, epsilon: float) -> Figure:
    """The mean barrier between every two levels `one` and `other`, batch norm's statistics interpolated."""
    square = pairs[pairs.statistics == "interpolated"].pivot_table(index="one", columns="other", values="barrier")
    fig, ax = plt.subplots(figsize=(6, 4.8))
    sns.heatmap(
        square, square=True, cmap="viridis", annot=True, fmt=".2g", annot_kws={"fontsize": "x-small"}, ax=ax,
        vmin=0, vmax=max(4 * epsilon, 0.1), cbar_kws={"label": "barrier (points of test error)", "extend": "max"},
    )  # fmt: skip
    ax.set(xlabel="level", ylabel="level")
    ax.tick_params(rotation=0)
    ax.grid(False)
    return fig


def contours(
    ax: Axes, table: pd.DataFrame, corners: np.ndarray, names: Mapping[str, str], dense: float, epsilon: float
) -> ContourSet:
    """Error in a plane, the contour of the first network's error plus ε, and three networks, name → marker.

    dense: the mean error of the dense networks, around which the colours change most.
    """
    side = int(len(table) ** 0.5)
    bands = dense + epsilon * np.array([-4, -2, -1, 0, 1, 2, 4, 8, 16, 32, 64])
    bands = bands[bands > 0]
    x, y, z = (table[column].to_numpy().reshape(side, side) for column in ("x", "y", "error"))
    norm = BoundaryNorm(bands, 256, extend="both")
    filled = ax.contourf(x, y, z, levels=bands, cmap="viridis", norm=norm, extend="both")
    nearest = np.hypot(x - corners[0][0], y - corners[0][1]).argmin()
    ax.contour(x, y, z, levels=[z.flat[nearest] + epsilon], colors="white", linestyles=":", linewidths=2)
    for (a, b), (name, marker) in zip(corners, names.items(), strict=True):
        ax.plot(a, b, marker, color="white", markeredgecolor="black", markersize=11, label=name)
    ax.set(xlabel="distance in weights", ylabel="distance in weights")
    return filled


def one_round(table: pd.DataFrame, corners: np.ndarray, dense: float, epsilon: float) -> Figure:
    """The plane through a level's solution, its projection and the next solution; dashed: the next mask's subspace."""
    fig, ax = plt.subplots(figsize=(6.6, 5))
    names = {"$w^{(L)}$": "^", "projection": "X", "$w^{(L+1)}$": "o"}
    filled = contours(ax, table, corners, names, dense, epsilon)
    ax.axline(*corners[1:], color="white", linestyle="--", linewidth=1)
    fig.colorbar(filled, label="test error (%)", format="%.1f")
    ax.legend(loc="upper right", frameon=True, fontsize="x-small")
    ax.set_title(f"level {table.level[0]} to {table.level[0] + 1}")
    return fig


def two_prunings(slices: Sequence[tuple[pd.DataFrame, np.ndarray]], dense: float, epsilon: float) -> Figure:
    """Planes through a solution and its prunings by magnitude and at random, with one scale on both axes."""
    fig, axes = plt.subplots(1, len(slices), figsize=(9.5, 4.6))
    names = {"$w^{(L)}$": "^", "by magnitude": "X", "at random": "P"}
    for ax, (table, corners) in zip(axes, slices, strict=True):
        filled = contours(ax, table, corners, names, dense, epsilon)
        ax.set(title=f"level {table.level[0]}", aspect="equal")
    axes[0].legend(frameon=True, fontsize="x-small")
    fig.colorbar(filled, ax=axes, label="test error (%)", format="%.1f")
    return fig


def members(table: pd.DataFrame) -> Figure:
    """The share of networks `inside` the LCS-set of a level's solution, with its exact interval, by `what` they are."""
    fig, panels = by_statistics(table, 4.2, "statistics {}", sharey=True)
    for ax, rows in panels:
        for number, (what, some) in enumerate(rows.groupby("what", sort=False)):
            found = {leg: estimates.share(inside) for leg, inside in some.groupby("leg").inside}
            value, low, high = (np.array([getattr(told, name) for told in found.values()]) for name in ESTIMATE)
            looks = {"marker": "Xo"[number], "linewidth": 1, "color": figures.PALETTE[number], "label": what}
            ax.errorbar(np.array([*found]) + 0.25 * number, value, [value - low, high - value], **looks)
        ax.set(xlabel="level of the solution", ylabel="networks in its LCS-set (%)", ylim=(-5, 105))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0][0].legend()
    return fig


def _barriers(ax: Axes, table: pd.DataFrame, x: str, hue: str, epsilon: float) -> None:
    figures.lines(ax, table, x, "barrier", hue, ANYTHING)
    figures.threshold(ax, epsilon)
    ax.set(ylabel="barrier (points of test error)")


def _from_zero(ax: Axes, epsilon: float) -> None:
    """To be called last: limits are then those of all that is in the axes."""
    ax.set_yscale("symlog", linthresh=epsilon)
    ax.set_ylim(bottom=0)


def robust(table: pd.DataFrame, epsilon: float) -> Figure:
    """The barrier that each kind of push makes, over the level, a panel for each step from which is trained."""
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 4.6), sharey=True)
    for ax, (step, some) in zip(axes, table[table.statistics == "interpolated"].groupby("rewind"), strict=True):
        _barriers(ax, some, "level", "push", epsilon)
        ax.set(xlabel="level of the solution", xticks=sorted(table.level.unique()), title=f"from step {step}")
        _from_zero(ax, epsilon)
    figures.legend_below(fig, ["push"])
    return fig


def stability(copies: pd.DataFrame, epsilon: float, step: int) -> Figure:
    """The barrier between two copies over the step from which they part; grey: the ladder's rewind step."""
    names = np.where(copies.level == 0, "dense", "level " + copies.level.astype(str))
    steps = sorted(copies.step.unique())
    fig, panels = by_statistics(copies.assign(network=names), 4.2, "statistics {}", sharey=True)
    for ax, some in panels:
        _barriers(ax, some, "step", "network", epsilon)
        ax.axvline(step, color="grey", linewidth=1)
        ax.set_xscale("symlog", linthresh=max(1, steps[1]))
        ax.set_xticks(steps, steps)
        ax.set(xlabel="step τ from which the copies part")
        _from_zero(ax, epsilon)
        ax.legend(title="")
    return fig


def fit(table: pd.DataFrame, spare: Mapping[int, Spare], limit: float) -> Figure:
    """Test error over training loss of mildly pruned copies, and the line that ε_train is read from."""
    fig, axes = plt.subplots(1, len(spare), figsize=(9.5, 3.8), squeeze=False)
    for ax, (level, told) in zip(axes[0], spare.items(), strict=True):
        some = table[table.probed == level]
        colours = figures.PALETTE[: some.network.nunique()]
        sns.scatterplot(some, x="loss", y="error", hue="network", palette=colours, s=30, ax=ax, legend=False)
        for r, own in some.groupby("network"):
            ends = np.array([own.loss.min(), own.loss.max()])
            ax.plot(ends, own.error.mean() + told.slope * (ends - own.loss.mean()), color=colours[r], linewidth=1)
        figures.threshold(ax, limit)
        ax.set(xlabel="training loss (nats)", ylabel="test error (%)" if ax is axes[0][0] else "")
        spared = f"ε_train = {told.gain.mean():.2g} ± {told.error.mean():.1g}"
        ax.set_title(f"level {level}, R² = {told.explained:.2f}\n{spared}", fontsize="small")
        ax.xaxis.set_major_locator(MaxNLocator(3))
    return fig


def ratios(tested: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Shares pruned at once over the distance that this moved, circles match, and what the formula allows."""
    fig, panels = by_level(list(curves.probed.unique()), 4.8)
    ends, networks = ["share", "upwards", "lowest", "highest"], curves.network.nunique()
    means = curves[curves.resolved].groupby(["probed", "distance"])[ends].mean().reset_index()
    for ax, level in panels:
        for other, curve in means.groupby("probed"):
            colour = "black" if other == level else "lightgrey"
            ax.plot(curve.distance, curve.share, color=colour, linewidth=1, zorder=1)
            if other == level:
                for end in ("lowest", "highest"):
                    ax.plot(curve.distance, curve[end], ":", color="black", linewidth=1, zorder=1)
                ax.fill_between(curve.distance, curve.upwards, curve.share, color="grey", alpha=0.3, linewidth=0)
        for (way, good), some in tested[tested.level == level].groupby(["way", "matching"]):
            beside = some.share + 0.025 * (some.network - (networks - 1) / 2)  # so that marks do not cover each other
            looks = {"color": figures.PALETTE[["magnitude", "random"].index(way)], "marker": "o" if good else "x"}
            ax.scatter(some.distance, beside, s=30, label=f"{way}, {'matches' if good else 'fails'}", **looks)
        known = curves[curves.probed == level].groupby("network").resolved.all().sum()
        ax.set(xlabel="distance R", xlim=(0, curves.distance.max()), ylim=(0, 1.05))
        ax.set_title(f"level {level}\n{known} of {networks} resolved", fontsize="small")
    fig.axes[0].set(ylabel="share of the weights pruned")
    figures.legend_below(fig, [])
    return fig


def bends(table: pd.DataFrame, reach: pd.DataFrame) -> Figure:
    """Curvature in the direction of two prunings, and how far the error stays within ε in it."""
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 4.2))
    levels = table.level.unique()
    figures.lines(axes[0], table, "level", "bend", "pruning")
    axes[0].set_yscale("symlog", linthresh=1e-4)
    axes[0].set(xlabel="level", ylabel=r"curvature along the direction, $u^\top H u$", xticks=levels)
    figures.lines(axes[1], reach[reach.statistics == "interpolated"], "level", "radius", "pruning", ANYTHING)
    axes[1].set(xlabel="level", ylabel="distance at which\nthe error has risen by ε", xticks=levels)
    axes[1].set_ylim(bottom=0)
    figures.legend_below(fig, ["pruning"])
    return fig


def sizes(distribution: pd.DataFrame) -> Figure:
    """The cumulative distribution of the weights' sizes after each way of training, a panel for each level."""
    fig, panels = by_level(list(distribution.level.unique()), 4.2)
    looks: dict[str, Any] = {"markers": False, "dashes": True}
    for ax, level in panels:
        some = distribution[distribution.level == level]
        figures.lines(ax, some, "size", "share", "after", PER_CENT, **looks)
        ax.set(xlabel="size over the mean", ylabel="weights that are smaller (%)", title=f"level {level}")
        ax.set_xlim(0, some["size"].max())
    figures.legend_below(fig, ["after"])
    return fig


def retraining(table: pd.DataFrame, limit: float) -> Figure:
    """Error, and the size below which a fifth of the weights lies, over the weights left, for each `way` to retrain."""
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 5))
    over_left(axes[0], table, "way", limit)
    axes[0].set_yscale("log")
    figures.numbered(axes[0].yaxis)
    figures.lines(axes[1], table.dropna(subset="small"), "left", "small", "way", ANYTHING)
    axes[1].set(xlabel="weights left (%)", ylabel="20th percentile of the sizes")
    figures.downwards(axes[1], table.left)
    figures.legend_below(fig, ["way"], rows=2)
    return fig


def adaptive(table: pd.DataFrame, limit: float) -> Figure:
    """Error over the weights left for each `way` to prune; those of a level lie at the mean of their weights left."""
    fig, ax = plt.subplots()
    mean = table.groupby(["way", "level"]).left.transform("mean").round(3)
    over_left(ax, table.assign(left=mean), "way", limit)
    figures.named_at_their_ends(ax)
    return fig
