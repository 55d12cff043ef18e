"""What ways gain, on a small table by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from lth.book.gains import Gains, better, least

ROWS = [
    ("ticket", 0, 0, 90.0), ("ticket", 0, 1, 80.0), ("ticket", 1, 0, 89.5), ("ticket", 1, 1, 78.0),
    ("ticket", 2, 0, 70.0), ("ticket", 2, 1, 60.0),
    ("skip", 0, 0, 91.0), ("skip", 0, 1, 80.0), ("skip", 1, 0, 91.5), ("skip", 1, 1, 79.5),
    ("skip", 2, 0, 74.0), ("skip", 2, 1, math.nan), ("heavy", 1, 0, 90.0),
]  # fmt: skip
GAINS = Gains(pd.DataFrame(ROWS, columns=["way", "level", "network", "accuracy"]))


def test_scores_are_means_over_whole_levels():
    assert GAINS.score("ticket", [1, 2]).to_dict() == {0: 79.75, 1: 69.0}
    assert GAINS.score("skip", [1, 2]).isna().tolist() == [False, True]  # one failed
    assert not len(GAINS.score("heavy", [1, 2]))
    assert not len(GAINS.score("ticket", [])) and not len(GAINS.score("x", [1]))


def test_gains_are_of_the_same_network():
    assert GAINS.gain("skip", [1]).to_dict() == {0: 2.0, 1: 1.5}
    assert GAINS.gain("skip", [1], "heavy").to_dict() == {0: 1.5}  # the other has none to be compared with
    assert GAINS.more("skip", [1]).to_dict() == {0: 1.0, 1: 1.5}
    assert not len(GAINS.gain("x", [1])) and not len(GAINS.more("skip", []))


def test_growth_is_a_slope_per_halving():
    assert GAINS.growth("skip", {1: 50, 2: 12.5}).to_dict() == {0: pytest.approx(1.0)}
    assert not len(GAINS.growth("x", {1: 50, 2: 12.5}))


def test_the_last_level_that_wins():
    assert GAINS.wins_until("ticket", [1, 2]).to_dict() == {0: 1, 1: 0}
    assert GAINS.wins_until("skip", [1]).to_dict() == {0: 1, 1: 1}
    failed = GAINS.wins_until("skip", [1, 2])  # one at level 2
    assert failed[0] == 1 and math.isnan(failed[1])


def test_the_better_of_two():
    one, other = pd.Series([1.0, 2.0]), pd.Series([0.0, 4.0])
    assert better(one, other) is other


def test_gains_in_a_tidy_table():
    table = GAINS.by_level(["skip", "heavy"], {0: 100.0, 1: 30.0})
    assert table.columns.tolist() == ["network", "gain", "way", "level", "left"]
    assert table.to_numpy().tolist() == [
        [0, 1.0, "skip", 0, 100.0], [1, 0.0, "skip", 0, 100.0], [0, 2.0, "skip", 1, 30.0], [1, 1.5, "skip", 1, 30.0],
        [0, 0.5, "heavy", 1, 30.0],
    ]  # fmt: skip


def test_the_least_gain_of_several_architectures():
    other = Gains(GAINS.table.assign(accuracy=GAINS.table.accuracy - 3 * (GAINS.table.way == "skip")))
    found = least([GAINS, other], "skip", [1])
    assert (found.n, found.value) == (2, pytest.approx(1.75 - 3))
    assert least([GAINS, other], "skip", [2]) == [] == least([GAINS, other], "x", [1])  # one network, and none
