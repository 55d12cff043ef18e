"""One house style for all figures and tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogLocator
from scipy import stats

from lth.book.claims import LEDGER
from lth.book.text import escape

PALETTE = sns.color_palette("colorblind")

# One colour for a kind of network in the whole book. A ticket is one in each of the papers' tables, too, which call it
# Lottery, LT, LTH and IMP
KINDS = {
    ("ticket",): PALETTE[0],
    ("Scratch", "Scratch (diff. init.)", "reinit"): PALETTE[1],
    ("RigL", "attracted"): PALETTE[2],
    ("RigL-Inverted",): PALETTE[3],
    ("SET", "repelled"): PALETTE[4],
    ("Small dense", "repelled from the last"): PALETTE[5],
    ("attracted reinit",): PALETTE[8],
    ("repelled reinit",): PALETTE[9],
    ("Pruning solution", "Pruned", "Pruned (diff. init.)"): "#777777",
    ("Baseline", "dense"): "#333333",
}
# The same for initial weights, which are not in one figure with kinds of networks
INITS = {
    "original": PALETTE[3],
    "Liu": PALETTE[1],
    "sparsity-aware": PALETTE[0],
    "sparsity-aware, forward": PALETTE[0],
    "sparsity-aware, backward": PALETTE[4],
    "sparsity-aware, average": PALETTE[2],
}
COLOURS = {name: colour for names, colour in KINDS.items() for name in names} | INITS


def colours(names: Iterable[str]) -> dict[str, Any]:
    """A colour for each name, in their order: that of its kind, or one that no other of them has. A seaborn palette."""
    names = list(dict.fromkeys(names))
    free = [colour for colour in PALETTE if colour not in {COLOURS.get(name) for name in names}]
    others = [name for name in names if name not in COLOURS]
    return {name: COLOURS.get(name) or free[others.index(name) % len(free)] for name in names}


def house_style() -> None:
    """Readable at page width and from the last row: large labels, thin grid, colours for the colour-blind.

    And the same to the last dot when a chapter is executed again: seaborn spreads dots by numpy's global generator,
    from which nothing else here draws.
    """
    np.random.seed(0)
    sns.set_theme(style="whitegrid", context="notebook", palette=PALETTE, font_scale=1.05)
    plt.rcParams.update(
        {
            "figure.figsize": (7.2, 4.2),
            "figure.dpi": 110,
            "savefig.dpi": 160,
            "figure.constrained_layout.use": True,
            "axes.titlesize": "medium",
            "axes.titleweight": "bold",
            "legend.frameon": False,
            "legend.title_fontsize": "small",
            "legend.fontsize": "small",
            "lines.linewidth": 2,
            "grid.linewidth": 0.6,
        }
    )


PAGE = 7.6  # inches: the width at which a page shows a figure
LEGIBLE = 9.0  # points


def legible(figure: Figure) -> None:
    """Makes every text so large that it has 9 points where the figure is shown at the width of a page."""
    least = LEGIBLE * max(1.0, figure.get_figwidth() / PAGE)
    for text in figure.findobj(Text):
        text.set_fontsize(max(least, text.get_fontsize()))
    for ax in figure.axes:  # ticks that are made when the figure is drawn
        for axis in (ax.xaxis, ax.yaxis):
            if labels := axis.get_ticklabels():
                axis.set_tick_params(which="both", labelsize=labels[0].get_fontsize())


def t_interval(samples: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean (Student's t); of a single sample, the sample. Samples that are nan are left out.

    Also seaborn's `errorbar`.
    """
    x = np.asarray(samples, dtype=float)
    x = x[~np.isnan(x)]
    if len(x) < 2:
        return (x[0], x[0]) if len(x) else (math.nan, math.nan)
    half = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x))
    return x.mean() - half, x.mean() + half


def each_network(ax: Axes, table: pd.DataFrame, y: str, colours: Mapping[str, Any], column: str, **looks: Any) -> None:
    """Curves over `step`, a thin line per network: no mean of networks that learn and others that do not.

    colours: value of `column` → colour, in the order of the legend. looks: keywords for the lines.
    """
    shown = table[table[column].isin(list(colours))]
    looks = {"linewidth": 0.8, "alpha": 0.6} | looks
    sns.lineplot(
        shown, x="step", y=y, hue=column, hue_order=list(colours), palette=colours, units="seed", estimator=None, ax=ax,
        **looks,
    )  # fmt: skip
    ax.legend(title="", fontsize="x-small")
    for line in ax.get_legend().get_lines():
        line.set(linewidth=2, alpha=1)


FEW = 5  # networks of a kind; up to so many, each is a dot beside their mean and its interval


def few(table: pd.DataFrame, by: Sequence[str], y: str) -> bool:
    """Whether the largest group of a table has several numbers, but not more than `FEW`."""
    return 1 < table.groupby(list(by))[y].count().max() <= FEW


def lines(
    ax: Axes, table: pd.DataFrame, x: str, y: str, hue: str, bounds: tuple[float, float] = (-math.inf, math.inf),
    **looks: Any,
) -> None:  # fmt: skip
    """A line through the means of each kind of `hue`, with bands of 95 % that end where values end: at `bounds`.

    Where there are few networks, each is a dot. looks: more for seaborn's `lineplot`.
    """
    looks = {"markers": True, "dashes": False, "palette": colours(table[hue])} | looks
    looks["errorbar"] = lambda samples: tuple(np.clip(t_interval(samples), *bounds))
    sns.lineplot(table, x=x, y=y, hue=hue, style=hue, ax=ax, **looks)
    if looks["markers"] and few(table, [hue, x], y):
        dots = {"hue": hue, "palette": looks["palette"], "s": 10, "alpha": 0.6, "linewidth": 0, "legend": False}
        sns.scatterplot(table, x=x, y=y, ax=ax, **dots)


def threshold(ax: Axes, height: float) -> None:
    """A dotted line across: where something is decided."""
    ax.axhline(height, color="black", linestyle=":", linewidth=1.5)


def _round(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, … as far as they lie between"""
    ticks = (digit * 10.0**power for power in range(-6, 9) for digit in (1, 2, 5))
    return [tick for tick in ticks if low <= tick <= high]


def numbered(axis: Axis) -> None:
    """A logarithmic axis tells numbers, also where it is less than a power of ten long. To be called last."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=[1, 1.5, 2, 3, 5] if high / low < 30 else [1, 3]))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def factors(ax: Axes) -> None:
    """The vertical axis is logarithmic, for numbers around 1: round ticks, and a line where nothing changes."""
    ax.set_yscale("log")
    ax.axhline(1, color="black", linewidth=1)
    ticks = _round(*ax.get_ylim())
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()


def downwards(ax: Axes, values: pd.Series) -> None:
    """A logarithmic axis for `values` that runs from much to little, with round ticks."""
    ticks = _round(0.8 * values.min(), 1.2 * values.max())
    ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{t:,g}" for t in ticks])
    ax.minorticks_off()
    ax.xaxis.set_inverted(True)


def named_at_their_ends(ax: Axes) -> None:
    """In place of the legend each line has its label at its right end, in its colour; names do not cover each other.

    To be called last, when all lines and limits are there.
    """
    size, named = plt.rcParams["font.size"], []
    for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
        drawn = [line for line in ax.lines if len(line.get_xydata())]
        of_kind = [line for line in drawn if same_color(line.get_color(), handle.get_color())]
        points = max(of_kind, key=lambda line: line.get_linewidth()).get_xydata()  # of the mean, not of one network
        places = ax.transData.transform(points)
        right = places[:, 0].argmax()
        named.append((places[right, 1] * 72 / ax.figure.dpi, points[right, 1], label, handle.get_color()))
    lowest = -math.inf
    for height, end, label, colour in sorted(named, key=lambda told: told[0]):
        lowest = max(height, lowest + 1.1 * size)
        place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "xytext": (4, lowest - height)}
        ax.annotate(label, (1, end), color=colour, fontsize=size, fontweight="bold", va="center", **place)
    if legend := ax.get_legend():
        legend.remove()


def legend_below(figure: Figure, columns: Sequence[str], rows: int = 1) -> None:
    """One legend under all panels in place of one in each, without the names of the columns it is made from."""
    entries: dict[str, Any] = {}  # a panel in which nothing could be drawn has none
    for ax in figure.axes:
        handles, labels = ax.get_legend_handles_labels()
        entries |= {label: handle for handle, label in zip(handles, labels, strict=True) if label not in entries}
        if legend := ax.get_legend():
            legend.remove()
    kept = {label: handle for label, handle in entries.items() if label not in columns}
    if kept:
        figure.legend(kept.values(), kept, loc="outside lower center", ncols=-(-len(kept) // rows))


class Table:
    """A table of text: Markdown for the book, which gives it a number and a caption, HTML for Jupyter.

    Caption and column names are Markdown; a cell is shown sign by sign unless it is `Markup`.
    """

    def __init__(self, frame: pd.DataFrame, caption: str, name: str) -> None:
        self.frame, self.caption, self.name = frame, caption, name

    def _repr_markdown_(self) -> str:
        head = [str(column).replace("|", "\\|") for column in self.frame.columns]
        cells = [[escape(cell) for cell in row] for row in self.frame.to_numpy().tolist()]
        lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *cells)]
        return "\n".join([f":::{{table}} {self.caption}", f":name: tab-{self.name}", "", *lines, ":::"])

    def _repr_html_(self) -> str:
        with pd.option_context("display.html.use_mathjax", False):
            return self.frame.to_html(index=False, border=0)


def beside_paper(measured: pd.DataFrame, row: str, digits: dict[str, int], caption: str, name: str) -> Table:
    """Our numbers under the paper's, method by method.

    measured: rows `method`, `measure`, `value`, and where there are several `spread` and `n`. row: "E9" takes
    the paper's numbers from the ledger. digits: decimals of each measure, in the order of the columns.
    """
    told = pd.read_csv(LEDGER / f"{row}_numbers.csv").rename(columns={"paper": "value"})
    rows = []
    for method in dict.fromkeys([*told["method"], *measured["method"]]):
        for source, numbers in (("paper", told), ("here", measured)):
            cells = numbers[numbers["method"] == method].set_index("measure")
            line = {m: _cell(cells.loc[m], d) if m in cells.index else "–" for m, d in digits.items()}
            if set(line.values()) != {"–"}:
                rows.append({"method": method, "from": source, **line})
    return Table(pd.DataFrame(rows), caption, name)


def _cell(number: pd.Series, digits: int) -> str:
    """«mean ± standard deviation»"""
    spread = number.get("spread")
    if pd.isna(number["value"]):
        return "–"
    return f"{number['value']:.{digits}f}" + ("" if pd.isna(spread) else f" ± {spread:.{digits}f}")
