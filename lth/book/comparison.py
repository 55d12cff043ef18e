"""Our networks beside the paper's table, cell by cell: means, intervals, and how many standard errors lie between."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from lth.book.claims import LEDGER
from lth.book.figures import Table, t_interval
from lth.book.text import Markup

# [E]'s tables give mean ± standard deviation of five networks, divided by 5, not by 4: only so do numbers such as
# 62.99 ± 42.16 fit networks of which two guess and three have learned
PAPER_NETWORKS = 5
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


def paper_table(row: str) -> pd.DataFrame:
    """The paper's table of a row ("E2") from the ledger: `method`, `init`, `paper`, `spread`, in per cent."""
    return pd.read_csv(LEDGER / f"{row}_numbers.csv", keep_default_na=False, dtype={"paper": float, "spread": float})


def cell_by_cell(networks: pd.DataFrame, row: str, caption: str, name: str) -> Table:
    """One line per cell, the paper's first: both means, our 95 % interval and n, and how far apart they are.

    networks: `method`, `init` and `accuracy` (per cent; nan: left out) of each network. Cells further apart than three
    standard errors are set in bold.
    """
    told = paper_table(row).set_index(["method", "init"])
    found = networks.dropna(subset="accuracy").groupby(["method", "init"], sort=False)
    ours = {cell: group["accuracy"].to_numpy() for cell, group in found}
    lines = []
    for cell in dict.fromkeys([*told.index, *ours]):
        line = {"method": cell[0], "initial weights": cell[1]}
        line["paper"] = "{paper:.2f} ± {spread:.2f}".format(**told.loc[cell]) if cell in told.index else "–"
        if cell in ours:
            x = ours[cell]
            low, high = t_interval(x)
            line["here"] = f"{x.mean():.2f} ± {x.std(ddof=0):.2f}"
            line["95 % interval, n"] = f"[{low:.2f}, {high:.2f}], {len(x)}"
        if cell in ours and cell in told.index:
            z = apart(x, *told.loc[cell, ["paper", "spread"]])
            line["standard errors apart"] = f"{z:+.1f}" if abs(z) <= FAR else Markup(f"**{z:+.1f}**")
        lines.append(line)
    return Table(pd.DataFrame(lines, dtype=object).fillna("–"), caption, name)
