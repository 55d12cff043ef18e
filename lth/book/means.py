"""Means with their 95 % intervals (Student's t): as points side by side, as curves, and as words in a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lth.book.figures import colours, few, t_interval

MARKERS = "oXsPDv^<>*"
ANYTHING = (-math.inf, math.inf)
ACCURACY = (0, 100)  # per cent


def means(table: pd.DataFrame, by: Sequence[str], column: str, bounds=ANYTHING, log: bool = False) -> pd.DataFrame:
    """A row per group in the order of the table: the columns `by`, `mean`, `low` and `high`.

    bounds: between which all values must lie: intervals end there. log: geometric means. Values that are nan are left
    out, and so are groups that have no others.
    """
    rows = []
    for key, group in table.dropna(subset=column).groupby(list(by), sort=False)[column]:
        values = np.log10(group) if log else group
        found = np.array([values.mean(), *t_interval(values)])
        rows.append([*key, *np.clip(10**found if log else found, *bounds)])
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high"])


def in_words(table: pd.DataFrame, by: Sequence[str], column: str, head: str, bounds=ANYTHING) -> pd.DataFrame:
    """The same for a table of text, two decimals: the columns `by`, `head` and «95 % interval»."""
    found = means(table, by, column, bounds)
    ends = [f"[{low:.2f}, {high:.2f}]" for low, high in zip(found.low, found.high, strict=True)]
    return found[list(by)].assign(**{head: found["mean"].map("{:.2f}".format), "95 % interval": ends})


def side_by_side(
    ax: Axes, table: pd.DataFrame, x: str, y: str, hue: str | None = None, bounds=ANYTHING, log: bool = False,
    lying: bool = False, dots: bool = False,
) -> None:  # fmt: skip
    """A mean and its interval for each category of `x`, beside each other for each of `hue`.

    lying: categories from top to bottom. dots: single networks too, as always where there are few.
    """
    dots = dots or few(table, [x, hue] if hue else [x], y)
    categories = list(dict.fromkeys(table[x]))
    kinds = list(dict.fromkeys(table[hue])) if hue else [None]
    colour = colours(kinds)
    for number, kind in enumerate(kinds):
        some = table[table[hue] == kind] if hue else table
        found = means(some, [x], y, bounds, log)
        shift = 0.6 * ((number + 0.5) / len(kinds) - 0.5)
        places = np.array([categories.index(category) for category in found[x]]) + shift
        looks = {"color": colour[kind], "marker": MARKERS[number % len(MARKERS)], "linestyle": "none"}
        _bars(ax, places, found, lying=lying, label=kind, markersize=5 if dots else 8, **looks)
        if dots:
            where = some[x].map({category: categories.index(category) + shift + 0.12 for category in categories})
            ax.plot(*([some[y], where] if lying else [where, some[y]]), ".", color="0.45", markersize=5)
    if lying:
        ax.set_yticks(range(len(categories)), categories)
        ax.set_ylim(len(categories) - 0.5, -0.5)
    else:
        ax.set_xticks(range(len(categories)), categories)
        ax.set_xlim(-0.5, len(categories) - 0.5)
    if hue:
        ax.legend(title="")


def curves(
    ax: Axes, table: pd.DataFrame, x: str, y: str, hue: str, order: Sequence[str], bounds=ANYTHING, log: bool = False,
    apart: float = 1.0, **looks: Any,
) -> None:  # fmt: skip
    """A curve through the means of each of `order`, whose number in it is its marker; intervals as bars.

    apart: factor between the places of one curve's points and the next one's, so that bars do not hide each other.
    Where there are few networks, each is a dot.
    """
    colour, dots = colours(order), few(table, [hue, x], y)
    for number, kind in enumerate(order):
        found = means(table[table[hue] == kind], [x], y, bounds, log).sort_values(x)
        kept = {"color": colour[kind], "marker": MARKERS[number % len(MARKERS)], "markersize": 6}
        shift = apart ** (number - (len(order) - 1) / 2)
        places = found[x].to_numpy(float) * shift
        _bars(ax, places, found, label=kind, **kept | {"markeredgecolor": "white"} | looks)
        if dots:
            some = table[table[hue] == kind]
            ax.plot(some[x] * shift, some[y], ".", color=colour[kind], markersize=4, alpha=0.6)


def _bars(ax: Axes, places: np.ndarray, found: pd.DataFrame, lying: bool = False, **looks: Any) -> None:
    """Means at some places with their intervals; none of a single number."""
    error = np.array([found["mean"] - found.low, found.high - found["mean"]]).reshape(2, len(found)).clip(min=0)
    looks = {"linewidth": 2, "elinewidth": 1.5} | looks
    if lying:
        ax.errorbar(found["mean"], places, xerr=error, **looks)
    else:
        ax.errorbar(places, found["mean"], yerr=error, **looks)

