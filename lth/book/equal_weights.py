"""The tables of [J], and what becomes of them when networks with as many weights are compared.

The extra skips of its code are dense and stand outside the mask: 1,220,608 weights in ResNet-18, beside the 314,000
that "97 %" leaves. A ticket with skips is therefore compared with the ticket that has as many weights in all, between
two rows of the table: accuracies are interpolated in the logarithm of the number of weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lth.book.claims import LEDGER
from lth.book.gains import Gains

CONVOLUTIONS = 11_159_232  # weights of ResNet-18's convolutions, which is what the authors' code prunes
SKIPS = 1_220_608  # of the extra skips' 1×1 convolutions
RATIO = 0.2  # pruned per round
SPARSITIES = [0, 20, 36, 49, 59, 67, 74, 79, 83, 87, 89, 91, 93, 94, 95, 96, 97]  # as the paper names its rounds
# A way with skips, one without, and the table that has both
FAIR = [
    ("skip", "ticket", "J1"), ("AT", "ticket", "J5"), ("AT", "TRT", "J5"),
    ("AT+TRT", "ticket", "J5"), ("AT+TRT", "TRT", "J5"),
]  # fmt: skip


def paper_table(row: str) -> pd.DataFrame:
    """A table of the paper from the ledger, "J1" (Table A2), "J5" (A3), "J10" (A1) or "J13" (A4)."""
    return pd.read_csv(LEDGER / f"{row}_numbers.csv", dtype={"paper": float})


def of_paper(row: str) -> pd.DataFrame:
    """The table "J1" or "J5" in the form of ours: `way`, `accuracy`, `left` (% of the weights under the mask), and
    `weights`, those of extra skips among them."""
    table = paper_table(row).rename(columns={"paper": "accuracy"})
    under_mask = table.sparsity.map(paper_weights)
    skipped = table.way.isin(["skip", "AT", "AT+TRT"]) * SKIPS
    return table.assign(left=100 * under_mask / CONVOLUTIONS, weights=under_mask + skipped)


def of_tickets() -> pd.DataFrame:
    """The tickets of both, each way once, with `thousands` of weights."""
    table = pd.concat([of_paper("J1").query("way == 'skip'"), of_paper("J5")])
    return table[table.sparsity > 0].assign(thousands=lambda rows: rows.weights / 1000)


def interpolated(weights: Sequence[float], accuracy: Sequence[float], at: Sequence[float]) -> np.ndarray:
    """Accuracy at other numbers of weights, linear in their logarithm; nan outside of those that are known."""
    order = np.argsort(weights)
    known, values = np.log(np.asarray(weights, float)[order]), np.asarray(accuracy, float)[order]
    return np.interp(np.log(np.asarray(at, float)), known, values, left=np.nan, right=np.nan)


def paper_weights(sparsity: float) -> int:
    """Weights under the paper's mask at one of its sparsities in per cent, which are now rounded, now cut off."""
    return round(CONVOLUTIONS * (1 - RATIO) ** SPARSITIES.index(sparsity))


def paper_gain(way: str, other: str, sparsity: float, row: str = "J5") -> float:
    """Points by which `way`, with the extra skips, lies above `other`, which has none and as many weights in all."""
    table = paper_table(row).pivot(index="sparsity", columns="way", values="paper")
    weights = [paper_weights(s) for s in table.index]
    found = interpolated(weights, table[other], [paper_weights(sparsity) + SKIPS])
    return float(table.loc[sparsity, way] - found[0])


def gaps(gains: Gains, left: Mapping[int, float]) -> pd.DataFrame:
    """Gains of the ways with skips at the same mask and at as many weights in all, ours at some levels and the paper's.

    left: level → share of the weights left, in per cent. Ours are `gains` over the ways «equal weights» and
    «…, equal weights», which are tickets with as many weights.
    """
    rows = []
    for way, other, row in FAIR:
        heavy = {"ticket": "equal weights"}.get(other, f"{other}, equal weights")
        for level, share in left.items():
            found = [gains.gain(way, [level], one).mean() for one in (other, heavy)]
            rows.append([f"{way} − {other}", "here", f"{100 - share:.0f}", *found])
        told = paper_table(row).set_index(["sparsity", "way"]).paper
        for sparsity in (91, 95, 97):
            found = told[sparsity, way] - told[sparsity, other], paper_gain(way, other, sparsity, row)
            rows.append([f"{way} − {other}", "paper", sparsity, *found])
    columns = ["gain of", "from", "sparsity of the mask (%)", "same mask", "as many weights"]
    return pd.DataFrame(rows, columns=columns)


def paper_zeros() -> pd.DataFrame:
    """Table A1 in the form of ours: `way`, `stage`, `zeros` (%), and `left` as in `of_paper`."""
    told = paper_table("J10").rename(columns={"layer": "stage", "paper": "zeros"})
    return told.assign(left=told.sparsity.map(paper_weights) / CONVOLUTIONS * 100)
