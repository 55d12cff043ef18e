"""Samples of claims from tidy tables, which have a row for each network and place: one number per network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd


def by_network(table: pd.DataFrame, value: str, /, **where: Any) -> np.ndarray:
    """Mean of a column, network by network: (networks,), in their order. nan are left out; empty where no row is meant.

    where: column → its value, or a list or range of those that it may have, such as `rewind=0, level=[3, 4]`.
    """
    for column, wanted in where.items():
        table = table[table[column].isin(wanted if pd.api.types.is_list_like(wanted) else [wanted])]
    return table.groupby("network")[value].mean().to_numpy()


def wide(table: pd.DataFrame, value: str, columns: str | Sequence[str]) -> np.ndarray:
    """Numbers of a table with one row per network and place as (networks, places), both in their order."""
    return table.pivot(index="network", columns=columns, values=value).to_numpy()


def mostly(table: pd.DataFrame, answer: str, /, **where: Any) -> list[bool]:
    """Whether a column of truth values is true in more than half of the rows, network by network; see `by_network`."""
    return [bool(share > 0.5) for share in by_network(table.assign(share=1.0 * table[answer]), "share", **where)]
