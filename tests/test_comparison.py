"""Intervals and standard errors against scipy and written-out formulas, and the paper's tables against its prose."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lth.book import comparison, figures


def test_t_interval():
    x = [3.0, 4.0, 8.0, 9.5]
    told = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert figures.t_interval(x) == pytest.approx((told.low, told.high))
    assert figures.t_interval([2.5]) == (2.5, 2.5)


def test_apart_is_welchs_statistic_where_the_paper_gives_the_spread_of_five():
    ours, theirs = np.array([97.1, 98.0, 97.6]), np.array([90.0, 95.0, 92.0, 93.0, 91.5])
    told = stats.ttest_ind(ours, theirs, equal_var=False).statistic
    assert comparison.apart(ours, theirs.mean(), theirs.std(ddof=0)) == pytest.approx(told)


def test_networks_that_guess_are_compared_up_to_rounding():
    assert comparison.apart([11.35] * 3, 11.35, 0.0) == pytest.approx(0)
    assert comparison.apart([10.0] * 3, 11.35, 0.0) < -100


def test_the_papers_spreads_are_those_of_five_networks_divided_by_five():
    """Two that guess and three that have learned: the mean says how well, and the spread follows only in this way."""
    told = comparison.paper_table("E2").set_index(["method", "init"]).loc[("Scratch", "original")]
    learned = (told.paper - 2 / 5 * 11.35) / (3 / 5)
    networks = [11.35, 11.35, learned, learned, learned]
    assert np.std(networks) == pytest.approx(told.spread, abs=0.02)
    assert abs(np.std(networks, ddof=1) - told.spread) > 4


@pytest.mark.parametrize("row", ["E2", "E5", "E12"])
def test_paper_tables_are_whole(row):
    table = comparison.paper_table(row)
    assert not table.duplicated(["method", "init"]).any()
    assert table.paper.between(10, 100).all() and table.spread.between(0, 45).all()


def test_cell_by_cell():
    ours = pd.DataFrame(
        {
            "method": ["Lottery"] * 2 + ["Pruned"] * 2,
            "init": ["ticket"] * 2 + ["dense"] * 2,
            "accuracy": [97.2, 97.4, 90.0, 92.0],
        }
    )
    table = comparison.cell_by_cell(ours, "E2", "caption", "name").frame.set_index(["method", "initial weights"])
    assert len(table) == 13  # the paper's twelve cells, and Pruned, which it does not have
    lottery = table.loc[("Lottery", "ticket")]
    assert lottery["paper"] == "98.26 ± 0.27" and lottery["here"] == "97.30 ± 0.10"
    z = (97.3 - 98.26) / math.sqrt(0.1**2 + 0.27**2 / 4)
    assert lottery["standard errors apart"] == f"**{z:+.1f}**"
    assert lottery["95 % interval, n"] == "[96.03, 98.57], 2"
    assert table.loc[("Pruned", "dense"), "paper"] == "–" and table.loc[("RigL", "Liu"), "here"] == "–"


def test_one_more_draw_falls_into_its_interval_as_often_as_promised():
    draws = np.exp(2 + 0.3 * np.random.default_rng(0).normal(size=(4000, 7)))
    told = [comparison.one_more(row[:-1], row[-1]) for row in draws]
    inside = [one.low < row[-1] < one.high for one, row in zip(told, draws, strict=True)]
    assert np.mean(inside) == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 4000))
    assert inside == [one.p > 0.05 for one in told]
    assert told[0].below == np.mean(draws[0, :-1] < draws[0, -1])


def test_one_more_draw_is_the_t_test_of_a_single_sample():
    ours = np.array([3.0, 4.0, 8.0, 9.5])
    expected = stats.ttest_ind(np.log(ours), [math.log(20.0)], equal_var=True).pvalue  # one sample has no variance
    assert comparison.one_more(ours, 20.0).p == pytest.approx(expected)
    assert comparison.one_more(7 * ours, 7 * 20.0).p == pytest.approx(expected)  # whatever the unit


def test_the_papers_numbers_as_one_more_of_ours():
    units = pd.DataFrame({("LT", "d_final"): [9.0, 10.0, 16.0, None], ("LT", "d_init"): [0.0, 1.0, 2.0, 3.0]})
    digits = {("E8", "LT", "d_final"): 1, ("E8", "LT", "d_init"): 2}
    one, other = comparison.as_one_more(units, digits, "caption", "name").frame.to_dict("records")
    assert (one["paper"], one["mean here, n"], one["below the paper's"]) == ("8.0", "11.7, 3", "0 of 3")
    assert (other["paper"], other["p"]) == ("13.61", "–")
