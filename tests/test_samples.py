"""Samples from a small table, by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from lth.book.samples import by_network, mostly, wide

ROWS = [(1, 0, "a", 4.0), (0, 0, "a", 1.0), (0, 1, "a", 3.0), (1, 1, "a", math.nan), (0, 1, "b", 9.0)]
TABLE = pd.DataFrame(ROWS, columns=["network", "level", "way", "error"])


@pytest.mark.parametrize(
    "where, expected",
    [
        ({"way": "a"}, [2, 4]),  # of network 1 one number is not known
        ({"way": "a", "level": [0]}, [1, 4]),
        ({"level": range(1, 2), "way": ["a", "b"]}, [6, math.nan]),
        ({"way": "c"}, []),
        ({"level": []}, []),
    ],
)
def test_means_network_by_network(where, expected):
    assert by_network(TABLE, "error", **where) == pytest.approx(expected, nan_ok=True)


def test_a_wide_table_is_in_order():
    found = wide(TABLE[TABLE.way == "a"], "error", "level")
    assert found[:, 0].tolist() == [1, 4] and found[0, 1] == 3 and math.isnan(found[1, 1])


def test_mostly_is_more_than_half():
    table = pd.DataFrame({"network": [0, 0, 0, 1, 1], "inside": [True, True, False, True, False], "leg": 1})
    assert mostly(table, "inside", leg=1) == [True, False] and mostly(table, "inside", leg=2) == []
