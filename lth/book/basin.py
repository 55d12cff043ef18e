"""Tickets and their pruning solutions: the panels of the chapter on their basin, and its numbers by solution.

A solution is the unit of replication: what is measured of several networks on its mask is a mean over these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from lth.analysis.learning import learns
from lth.book import comparison, figures
from lth.book.claims import paper_numbers

BARRIER = 2.0  # points of error from which on something counts as a barrier
PAPER = {"marker": "D", "color": "black", "zorder": 3, "label": "paper"}


def distances(ax: Axes, networks: pd.DataFrame, methods: Sequence[str], row: str | None) -> None:
    """L2 distances to the pruning solution before and after training: a thin line for each solution, means with their
    intervals, and the paper's numbers if a `row` of the ledger has them.

    networks: `method`, `solution`, `d_init` and `d_final` of each.
    """
    ways = networks[networks.method.isin(methods)].groupby(["method", "solution"])[["d_init", "d_final"]].mean()
    ways = ways.reset_index().melt(["method", "solution"], var_name="when", value_name="distance")
    drawn = {"x": "when", "y": "distance", "hue": "method", "hue_order": methods, "palette": figures.colours(methods)}
    sns.lineplot(ways, **drawn, units="solution", estimator=None, lw=1, alpha=0.35, legend=False, ax=ax)
    style = {"capsize": 0.03, "linestyle": "none", "markersize": 6, "err_kws": {"linewidth": 1.5}}
    sns.pointplot(ways, **drawn, errorbar=figures.t_interval, **style, ax=ax)
    if row:
        told = paper_numbers(row, ["d_init", "d_final"], methods)
        ax.scatter(np.repeat([0, 1], len(methods)), told, **PAPER)
    ax.set(xlabel="", ylabel="L2 distance to the pruning solution", ylim=(0, None))
    ax.set_xticks([0, 1], ["at the start ($d_{init}$)", "after training ($d_{final}$)"])
    ax.legend(title="")


def maps(axes: Sequence[Axes], places: pd.DataFrame, d_final: Mapping[str, float], large: str) -> None:
    """Maps of `similarity.mds`, one for each value of the column `place`, on one scale.

    places: also `method` and `when`, «start» or «end». d_final: of the tickets, place by place. large: a method whose
    networks are drawn large.
    """
    reach = 1.15 * places[["x", "y"]].abs().max().max()
    looks = {
        "palette": figures.colours(places.method),
        "style": "when",
        "markers": {"start": "o", "end": "X"},
        "style_order": ["start", "end"],
        "size": "method",
        "sizes": {method: 260 if method == large else 90 for method in places.method.unique()},
        "alpha": 0.8,
    }
    for ax, (place, table) in zip(axes, places.groupby("place", sort=False), strict=True):
        sns.scatterplot(table, x="x", y="y", hue="method", ax=ax, **looks)
        title = f"{place}: $d_{{final}}$ {d_final[place]:.1f}, stress {table.stress.iloc[0]:.2f}"
        ax.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
        ax.set(xlabel="L2 units", ylabel="", title=title)
        ax.title.set_fontsize("small")


def draws(ax: Axes, solutions: pd.DataFrame, number: float, paper: bool) -> None:
    """Each solution's `barrier` over its tickets' `d_final`, coloured by their `gain`, and where one more would lie.

    number: the paper's d_final; it is drawn where `paper` says that the networks are its own.
    """
    one = comparison.one_more(solutions.d_final, number)
    ax.axvspan(one.low, one.high, color="0.93", zorder=0, label="one more solution, 95 %")
    ax.axhline(BARRIER, color="0.5", ls="--", lw=1, label="counts as a barrier")
    dots = ax.scatter(solutions.d_final, solutions.barrier, c=solutions.gain, cmap="viridis", s=70, zorder=2)
    if paper:
        ax.scatter([number], [0], **PAPER)
    ax.figure.colorbar(dots, label="accuracy, ticket − its solution (points)")
    ax.set(xlabel="$d_{final}$ of the tickets", ylabel="error barrier, ticket to solution (points)")
    rank = solutions.d_final.corr(solutions.barrier, method="spearman")
    ax.set_title(f"rank correlation {rank:.2f}, n = {len(solutions)} solutions")
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)


def accuracies(networks: pd.DataFrame, methods: Sequence[str], classes: int) -> pd.DataFrame:
    """A row per method: mean and standard deviation over solutions of the mean accuracy of a solution's networks, and
    how many networks learned. networks: `method`, `solution`, `accuracy` in per cent."""
    of_each = networks.groupby(["method", "solution"]).accuracy.mean().unstack(0)
    learned = learns(networks.accuracy, classes).groupby(networks.method)
    table = pd.DataFrame(
        {
            "accuracy (%)": of_each.mean().round(2),
            "deviation": of_each.std().round(2),
            "networks that learned": learned.sum().astype(str) + " of " + learned.size().astype(str),
        }
    )
    return table.loc[list(methods)].reset_index(names="method")


def of_learned(networks: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Some `columns` as rows `method`, `solution`, `measure`, `value`; nan of networks that have not `learned`."""
    known = networks.assign(**networks[columns].where(networks.learned))
    return known.melt(["method", "solution"], columns, "measure")


def by_solution(numbers: pd.DataFrame, solutions: Sequence[int], methods: Sequence[str]) -> pd.DataFrame:
    """A row per solution, columns (method, measure), means over its networks; nan where nothing is known.

    numbers: rows `solution`, `method`, `measure`, `value`. One more measure, `gain`, is that of the ensemble over the
    accuracy of its members.
    """
    units = numbers.groupby(["solution", "method", "measure"])["value"].mean().unstack([1, 2])
    cells = [methods, [*numbers.measure.unique(), "gain"]]
    units = units.reindex(index=solutions, columns=pd.MultiIndex.from_product(cells, names=["method", "measure"]))
    for method in methods:
        units[method, "gain"] = units[method, "ensemble"] - units[method, "accuracy"]
    return units.rename_axis("solution")
