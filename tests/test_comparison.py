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


@pytest.mark.parametrize("guessing", range(5))
def test_learners_are_counted_from_mean_and_spread(guessing):
    networks = [11.35] * guessing + [97.1, 97.9, 97.4, 98.2, 97.6][guessing:]
    count, mean = comparison.learners(round(np.mean(networks), 2), round(np.std(networks), 2))
    assert count == 5 - guessing
    assert mean == pytest.approx(np.mean(networks[guessing:]), abs=0.02)


def test_none_learns_where_all_guess():
    count, mean = comparison.learners(11.35, 0.0)
    assert count == 0 and math.isnan(mean)


def test_by_unit_puts_side_by_side_what_belongs_to_one_mask():
    table = pd.DataFrame(
        {
            "method": ["Scratch", "Scratch", "Pruned", "Pruned"],
            "init": ["ours", "ours", "dense", "dense"],
            "seed": [107, 103, 7, 3],
            "accuracy": [1.0, 2.0, 30.0, 40.0],
        }
    )
    wide = comparison.by_unit(table, "accuracy")
    assert (wide["Pruned", "dense"] - wide["Scratch", "ours"]).tolist() == [29, 38]


def cells(**accuracies: list[float]) -> pd.DataFrame:
    """Of Scratch, by initial weights."""
    parts = [pd.DataFrame({"method": "Scratch", "init": kind, "accuracy": x}) for kind, x in accuracies.items()]
    found = comparison.cell_by_cell(pd.concat(parts), "E2", "caption", "name").frame
    return found.set_index(["method", "initial weights"]).loc["Scratch"]


def test_where_all_learn_means_are_compared():
    ours = cells(**{"sparsity-aware": [97.2, 97.4]}).loc["sparsity-aware"]
    assert ours["paper"] == "97.70 ± 0.09" and ours["here"] == "97.30 ± 0.10"
    assert ours["learn there"] == "5 of 5" and ours["learn here"] == "2 of 2"
    z = (97.3 - 97.7) / math.sqrt(0.1**2 + 0.09**2 / 4)
    assert ours["apart"] == f"**{z:+.1f}**"
    assert ours["those, 95 %"] == "97.30 [96.03, 98.57]"


def test_where_some_guess_shares_are_compared():
    table = cells(original=[11.35] * 3 + [98.0, 97.0], Liu=[11.35] * 20, other=[50.0])
    p = stats.fisher_exact([[2, 3], [3, 2]]).pvalue
    assert table.loc["original", ["learn there", "learn here", "apart"]].tolist() == [
        "3 of 5: 97.42", "2 of 5", f"p = {p:.2g}",
    ]  # fmt: skip
    assert table.loc["Liu", "apart"].startswith("**p = ") and table.loc["Liu", "those, 95 %"] == "–"
    assert table.loc["other", "paper"] == "–" and table.loc["other", "learn here"] == "1 of 1"
    assert table.loc["sparsity-aware", "here"] == "–"  # a cell of the paper that was not run


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
    units = pd.DataFrame({("ticket", "d_final"): [9.0, 10.0, 16.0, None], ("ticket", "d_init"): [0.0, 1.0, 2.0, 3.0]})
    digits = {("E8", "ticket", "d_final"): 1, ("E8", "ticket", "d_init"): 2}
    one, other = comparison.as_one_more(units, digits, "caption", "name").frame.to_dict("records")
    assert (one["paper"], one["mean here, n"], one["below the paper's"]) == ("8.0", "11.7, 3", "0 of 3")
    assert (other["paper"], other["p"]) == ("13.61", "–")


NETWORKS = pd.DataFrame(
    [("Scratch", "Liu", 1, 96.0), ("Scratch", "Liu", 2, 11.0), ("SET", "Liu", 1, 95.0), ("SET", "Liu", 2, 97.0)],
    columns=["method", "init", "seed", "accuracy"],
).assign(learns=lambda rows: rows.accuracy > 20)


def test_cells_have_names():
    cells = pd.DataFrame({"method": ["SET", "ticket", "Baseline"], "init": ["Liu", "ticket", "dense"]})
    assert comparison.named(cells).network.tolist() == ["SET, Liu", "ticket", "Baseline"]
    assert comparison.paper_means("E12")["SET", "Liu"] == 96.56


def test_accuracies_of_learners_unit_by_unit():
    accuracy, learns = comparison.of_learners(NETWORKS)
    assert accuracy["SET", "Liu"].tolist() == [95, 97] and accuracy["Scratch", "Liu"].isna().tolist() == [False, True]
    assert learns["Scratch", "Liu"].tolist() == [True, False]


def test_of_several_columns_each_is_as_alone():
    both = comparison.by_unit(NETWORKS, ["accuracy", "seed"])
    for name in ("accuracy", "seed"):
        assert both[name].equals(comparison.by_unit(NETWORKS, name).astype(float))


def test_distance_is_the_root_of_the_mean_square_over_cells():
    far = comparison.distance(NETWORKS, "E12", [("Scratch", "Liu"), ("SET", "Liu")])  # the paper's: 96.66 and 96.56
    assert far([0]) == pytest.approx(math.sqrt((0.66**2 + 1.56**2) / 2))
    assert far([0, 1]) == pytest.approx(math.sqrt(((53.5 - 96.66) ** 2 + 0.56**2) / 2))


def test_settings_stand_side_by_side():
    better = NETWORKS.assign(accuracy=[96.0, 97.0, 96.0, 98.0])
    table = comparison.in_settings({"a": NETWORKS, "b": better}, "E12", ["SET"], {"a": 1.234, "b": 0.5})
    table = table.set_index(["method", "initial weights"])
    assert table.columns.tolist() == ["paper", "here, a", "apart, a", "here, b", "apart, b"]
    assert table.loc[("Scratch", "Liu"), ["paper", "here, b"]].tolist() == ["96.66 ± 0.18", "96.50 ± 0.50"]
    assert table.loc[("SET", "Liu"), ["here, a", "here, b", "apart, b"]].tolist() == ["96.00 ± 1.00", "–", "–"]
    assert table.loc[("distance", "points")].tolist() == ["–", "1.23", "–", "0.50", "–"]


def test_how_many_learn_of_those_that_are_marked():
    table = comparison.how_many_learn(NETWORKS.assign(blind=[False, True, False, False]), ["init", "method"], "blind")
    assert table.to_numpy().tolist() == [["Liu", "Scratch", "0 of 1", "1 of 1"], ["Liu", "SET", "–", "2 of 2"]]
