"""Our networks beside the paper's table, cell by cell: who learns, how well, and how far apart the two are."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from lth.analysis.learning import learns
from lth.book.claims import LEDGER, paper_numbers
from lth.book.figures import Table, t_interval
from lth.book.text import Markup

# [E]'s tables give mean ± standard deviation of five networks, divided by 5, not by 4: only so do numbers such as
# 62.99 ± 42.16 fit networks of which two guess and three have learned
PAPER_NETWORKS = 5
GUESS = 11.35  # per cent: of MNIST's 10,000 test images 1,135 are ones, which is what a network that guesses says
ROUNDING = 0.01 / math.sqrt(12)  # standard deviation of what rounding to two decimals takes away
FAR = 3.0


def apart(samples: Sequence[float], mean: float, spread: float) -> float:
    """How many standard errors our mean lies above the paper's `mean` ± `spread`, both errors together.

    The paper's error is that of its rounding at least, so that networks which all guess can be compared too.
    """
    x = np.asarray(samples, dtype=float)
    paper = max(spread / math.sqrt(PAPER_NETWORKS - 1), ROUNDING)
    if len(x) < 2:
        return math.nan
    return (x.mean() - mean) / math.hypot(x.std(ddof=1) / math.sqrt(len(x)), paper)


class OneMore(NamedTuple):
    """A single number as one more draw: the 95 % interval for such a draw, p (two-sided), the share of draws below."""

    low: float
    high: float
    p: float
    below: float


def one_more(samples: Sequence[float], number: float) -> OneMore:
    """Whether `number` can be one more of our `samples`, all positive: a prediction interval, on the log scale.

    An interval of the mean says where a mean lies; of a paper that shows one network, or one pruning solution, the
    question is whether ours are spread so wide. Logarithms are taken to be normal: mean ± t·s·√(1 + 1/n).
    """
    x = np.log(np.asarray(samples, dtype=float))
    reach = x.std(ddof=1) * math.sqrt(1 + 1 / len(x))
    ends = np.exp(x.mean() + stats.t.ppf([0.025, 0.975], len(x) - 1) * reach)
    p = 2 * stats.t.sf(abs(math.log(number) - x.mean()) / reach, len(x) - 1)
    return OneMore(*map(float, ends), float(p), float((x < math.log(number)).mean()))


def as_one_more(units: pd.DataFrame, digits: dict[tuple[str, str, str], int], caption: str, name: str) -> Table:
    """Numbers of the paper, each as one more of ours.

    units: a row per unit, columns (method, measure). digits: row of the ledger, method, measure → decimals.
    """
    lines = []
    for (row, method, measure), d in digits.items():
        (number,) = paper_numbers(row, [measure], [method])
        ours = units[method, measure].dropna()
        line = {"method": method, "measure": measure, "paper": f"{number:.{d}f}"}
        if len(ours) > 1 and (ours > 0).all():  # else there is no interval, or no logarithm
            told = one_more(ours, number)
            line["mean here, n"] = f"{ours.mean():.{d}f}, {len(ours)}"
            line["one more, 95 %"] = f"[{told.low:.{d}f}, {told.high:.{d}f}]"
            line["below the paper's"] = f"{round(told.below * len(ours))} of {len(ours)}"
            line["p"] = f"{told.p:.2g}"
        lines.append(line)
    return Table(pd.DataFrame(lines).fillna("–"), caption, name)


def paper_table(row: str) -> pd.DataFrame:
    """The paper's table of a row ("E2") from the ledger: `method`, `init`, `paper`, `spread`, in per cent."""
    return pd.read_csv(LEDGER / f"{row}_numbers.csv", keep_default_na=False, dtype={"paper": float, "spread": float})


def learners(mean: float, spread: float) -> tuple[int, float]:
    """How many of the paper's five networks have learned, and their mean, where the others guess.

    If a share p guesses and the others are close together, (spread/(mean − GUESS))² = p/(1 − p).
    """
    if mean <= GUESS:
        return 0, math.nan
    count = round(PAPER_NETWORKS / (1 + (spread / (mean - GUESS)) ** 2))
    return count, GUESS + (mean - GUESS) * PAPER_NETWORKS / count


def paper_means(row: str) -> pd.Series:
    """The means of that table, by (method, init)."""
    return paper_table(row).set_index(["method", "init"]).paper


def named(table: pd.DataFrame) -> pd.DataFrame:
    """With a column `network` that names the cell: the method, and its initial weights if there is a choice."""
    name = table.method + ", " + table.init
    return table.assign(network=name.str.removesuffix(", dense").str.removesuffix(", ticket"))


def by_unit(table: pd.DataFrame, column: str | list[str]) -> pd.DataFrame:
    """A row per unit (mask), a column per cell (method, init): the i-th networks of all cells belong together.

    Of several columns the table is wider: (column, method, init).
    """
    cells = ["method", "init"]
    return table.assign(unit=table.groupby(cells).cumcount()).pivot(index="unit", columns=cells, values=column)


def of_learners(networks: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`accuracy` of the networks that have learned, nan of others, and which have, both `by_unit`.

    networks: `method`, `init`, `accuracy` and `learns` of each.
    """
    accuracy = networks.accuracy.where(networks.learns)
    return by_unit(networks.assign(accuracy=accuracy), "accuracy"), by_unit(networks, "learns")


def distance(networks: pd.DataFrame, row: str, cells: list[tuple[str, str]]) -> Callable[[Sequence[int]], float]:
    """How far the networks of some units are from the paper's table, in points, as a function of the units' numbers.

    Root mean square, over the `cells` (method, init), of our mean less the paper's.
    """
    ours, theirs = by_unit(networks, "accuracy")[cells].to_numpy(), paper_means(row)[cells].to_numpy()
    return lambda units: float(np.sqrt(((ours[units].mean(axis=0) - theirs) ** 2).mean()))


def cell_by_cell(networks: pd.DataFrame, row: str, caption: str, name: str) -> Table:
    """One line per cell, the paper's first: means and spreads, who learns, and how far apart they are.

    networks: `method`, `init` and `accuracy` (per cent; nan: left out) of each network. Where all learn, here and
    there, the means are compared, in standard errors; else the shares that learn, by Fisher's test (two-sided). What
    three standard errors, or as small a p, hold apart is set in bold.
    """
    told = paper_table(row).set_index(["method", "init"])
    found = networks.dropna(subset="accuracy").groupby(["method", "init"], sort=False)
    ours = {cell: group["accuracy"].to_numpy() for cell, group in found}
    lines = []
    for cell in dict.fromkeys([*told.index, *ours]):
        line = {"method": cell[0], "initial weights": cell[1]}
        count = None
        if cell in told.index:
            mean, spread = told.loc[cell, ["paper", "spread"]]
            count, those = learners(mean, spread)
            line["paper"] = f"{mean:.2f} ± {spread:.2f}"
            part = f": {those:.2f}" if 0 < count < PAPER_NETWORKS else ""
            line["learn there"] = f"{count} of {PAPER_NETWORKS}{part}"
        if cell in ours:
            x, good = ours[cell], ours[cell][learns(ours[cell])]
            line["here"] = f"{x.mean():.2f} ± {x.std(ddof=0):.2f}"
            line["learn here"] = f"{len(good)} of {len(x)}"
            if len(good):
                low, high = t_interval(good)
                line["those, 95 %"] = f"{good.mean():.2f} [{low:.2f}, {min(high, 100):.2f}]"
        if cell in ours and count is not None:
            if count == PAPER_NETWORKS and len(good) == len(x):
                z = apart(x, mean, spread)
                words, far = f"{z:+.1f}", abs(z) > FAR
            else:
                table = [[len(good), len(x) - len(good)], [count, PAPER_NETWORKS - count]]
                p = stats.fisher_exact(table).pvalue
                words, far = f"p = {p:.2g}", p < 2 * stats.norm.sf(FAR)
            line["apart"] = Markup(f"**{words}**") if far else words
        lines.append(line)
    return Table(pd.DataFrame(lines, dtype=object).fillna("–"), caption, name)


def in_settings(
    networks: Mapping[str, pd.DataFrame], row: str, once: Collection[str], distances: Mapping[str, float]
) -> pd.DataFrame:
    """`cell_by_cell` of networks trained in several settings, side by side; a last line has the `distances`.

    networks: setting → table. once: methods whose networks are the same in all settings, and told in the first.
    """
    shown = pd.DataFrame()
    for setting, table in networks.items():
        found = cell_by_cell(table, row, "", "").frame.set_index(["method", "initial weights"])
        if shown.empty:
            shown = found[["paper"]]
        else:
            found[found.index.get_level_values(0).isin(once)] = "–"
        shown = shown.assign(**{f"{column}, {setting}": found[column] for column in ("here", "apart")})
    shown.loc[("distance", "points"), :] = "–"
    for setting, far in distances.items():
        shown.loc[("distance", "points"), f"here, {setting}"] = f"{far:.2f}"
    return shown.reset_index()


def how_many_learn(networks: pd.DataFrame, by: Sequence[str], mark: str) -> pd.DataFrame:
    """How many networks `learns`, «3 of 4», a row per group `by`; a column for those of which `mark` is true, and one
    for the others."""
    found = networks.groupby([*by, mark], sort=False).learns.agg(["sum", "size"])
    found = (found["sum"].astype(str) + " of " + found["size"].astype(str)).unstack()
    return found.reindex(columns=[True, False]).fillna("–").reset_index()
