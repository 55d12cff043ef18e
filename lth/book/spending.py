"""Panels about ways of spending a ticket: accuracy over what is left, masks, eigenvalues, landscapes, zeros."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from lth.book import figures
from lth.book.means import ACCURACY, curves, side_by_side
from lth.population import Population, Tensors

HIGHEST = 8  # nats: where pictures of the loss end
X = {"left": "weights left (%)", "thousands": "all weights (thousands)"}


def over_sparsity(
    ax: Axes, table: pd.DataFrame, ways: Sequence[str], x: str = "left", title: str = "", dense: float | None = None
) -> None:
    """Test accuracy of some ways over what is left, much at the left. x: a key of `X`. dense: a height to compare with.

    table: `way`, `accuracy` and the column `x` of each network.
    """
    curves(ax, table, x, "accuracy", "way", ways, ACCURACY, apart=1.025 if x == "left" else 1)
    ax.set(xlabel=X[x], title=title)
    if ax.get_subplotspec().is_first_col():
        ax.set_ylabel("test accuracy (%)")
    figures.downwards(ax, table[table.way.isin(ways)][x])
    if dense is not None:
        ax.axhline(dense, color="black", linestyle=":", linewidth=1.5, label="dense, without tweaks")


def gains(ax: Axes, table: pd.DataFrame) -> None:
    """The gain of each way with so many weights left. table: of `Gains.by_level`."""
    side_by_side(ax, table.assign(left=table.left.map("{:.3g}".format)), "way", "gain", "left")
    ax.axhline(0, color="black", linewidth=1)
    ax.set_ylabel("gain over the plain ticket (points)")
    ax.legend(title="weights left (%)", loc="upper left", bbox_to_anchor=(1, 1))


def factors(starts: Population, learned: Mapping[str, Tensors]) -> pd.DataFrame:
    """Scales that were learned in several ways: rows `network`, `layer`, `factor`, `learned`.

    learned: way → name of a parameter → (R,), of the same networks.
    """
    network = starts.frame[["network"]]
    parts = [
        network.assign(layer=name.removesuffix(".weight"), factor=scales[name].cpu().numpy(), learned=way)
        for way, scales in learned.items()
        for name in starts.masks
    ]
    return pd.concat(parts, ignore_index=True)


def scales(ax: Axes, table: pd.DataFrame) -> None:
    """The `factors`, layer by layer."""
    side_by_side(ax, table, "layer", "factor", "learned", bounds=(0, math.inf))
    ax.axhline(1, color="black", linewidth=1)
    plt.setp(ax.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    ax.set_ylabel("learned factor")


def masks(ax: Axes, table: pd.DataFrame, told: pd.DataFrame | None) -> None:
    """Accuracy with masks of one sparsity that were found in several ways, plain and with all tweaks.

    table: `masks`, `way`, `accuracy`. told: the paper's, `masks` and `paper`; None where it has none.
    """
    side_by_side(ax, table.replace({"way": {"ticket": "plain"}}), "masks", "accuracy", "way", ACCURACY, dots=True)
    if told is not None:
        places = {name: place for place, name in enumerate(dict.fromkeys(table.masks))}
        its = told[told.masks.isin(list(places))]
        ax.plot(its.masks.map(places), its.paper, "kx", label="the paper (ResNet-32)")
    ax.tick_params("x", rotation=45)


def eigenvalues(ax: Axes, table: pd.DataFrame, column: str, title: str) -> None:
    """The largest eigenvalue in each way, on a logarithmic axis; ways from top to bottom."""
    ax.set_xscale("log")
    side_by_side(ax, table, "way", column, log=True, lying=True)
    figures.numbered(ax.xaxis)
    ax.set(xlabel="largest eigenvalue λ", title=title)


def over_training(ax: Axes, table: pd.DataFrame, ways: Sequence[str], milestones: Sequence[int]) -> None:
    """The largest eigenvalue of some ways over `step`, and where the learning rate falls, at `milestones`."""
    ax.set_yscale("log")
    curves(ax, table, "step", "eigenvalue", "way", ways, log=True)
    for milestone in milestones:
        ax.axvline(milestone, color="black", linestyle=":", linewidth=1)
    figures.numbered(ax.yaxis)
    ax.set(xlabel="optimiser step", ylabel="largest eigenvalue")


def landscapes(axes: np.ndarray, tables: Mapping[str, pd.DataFrame], x: str, y: str) -> None:
    """The loss around the first network of each table, by title, with names of the two axes for all panels.

    tables: `network`, `x`, `y`, `loss`, as of `lth.analysis.surface`.
    """
    for ax, (title, table) in zip(axes.flat, tables.items(), strict=True):
        one = table[table.network == table.network.min()].pivot(index="y", columns="x", values="loss")
        levels = np.linspace(0, HIGHEST, 2 * HIGHEST + 1)
        filled = ax.contourf(one.columns, one.index, one.clip(upper=HIGHEST), levels=levels, cmap="viridis")
        ax.plot(0, 0, "+", color="white")
        end = round(float(one.columns.max()), 3)
        ax.set(aspect="equal", title=title, xticks=[-end, 0, end], yticks=[-end, 0, end])
    figure = axes.flat[0].figure
    figure.supxlabel(x, fontsize="medium")
    figure.supylabel(y, fontsize="medium")
    label = f"test loss (nats, cut at {HIGHEST})"
    figure.colorbar(filled, ax=axes, label=label, ticks=range(0, HIGHEST + 1, 2))


def walks(ax: Axes, table: pd.DataFrame, ways: Sequence[str]) -> None:
    """The loss of each network along its sharpest direction. table: `way`, `network`, `distance`, `loss`."""
    ax.set_yscale("log")
    for way, colour, dashes in zip(ways, figures.PALETTE, ["-", "--", "-.", ":"], strict=False):
        lines = table[table.way == way].pivot(index="distance", columns="network", values="loss")
        ax.plot(lines, color=colour, linestyle=dashes, linewidth=1.3)
        ax.plot([], color=colour, linestyle=dashes, label=way)
    ax.set(xlabel="distance along the sharpest direction", ylabel="test loss (nats)")


def zeros(ax: Axes, stages: pd.DataFrame, title: str) -> None:
    """Share of zeros in the inputs of each stage, with ReLU and with Swish. stages: `way`, `stage`, `left`, `zeros`."""
    for way, name, line in (("ticket", "ReLU", "-"), ("Swish", "Swish", "--")):
        some = stages[stages.way == way]
        some = some.assign(stage=some.stage + f", {name}")
        curves(ax, some, "left", "zeros", "stage", sorted(some.stage.unique()), ACCURACY, linestyle=line)
    ax.set(xlabel="weights left (%)", ylim=(-3, 100), title=title)
    if len(stages):
        figures.downwards(ax, stages.left)
