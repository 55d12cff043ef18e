"""[J]'s tables in the ledger, and its gains at equal numbers of weights, as they were reckoned by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lth.book import equal_weights
from lth.book.gains import Gains
from lth.models import Model


@pytest.mark.parametrize(
    "row, way, other, gains",
    [
        ("J1", "skip", "ticket", {91: -0.95, 95: -0.52, 97: -1.91}),
        ("J5", "AT", "ticket", {91: -0.26, 95: 0.00, 97: -0.05}),
        ("J5", "AT+TRT", "TRT", {91: 0.13, 95: -0.82, 97: -0.61}),
        ("J5", "AT+TRT", "ticket", {97: 0.80}),
    ],
)
def test_the_papers_gains_at_equal_weights(row, way, other, gains):
    for sparsity, gain in gains.items():
        assert equal_weights.paper_gain(way, other, sparsity, row) == pytest.approx(gain, abs=0.006)


def test_the_numbers_of_weights_are_those_of_the_network():
    plain, skips = (Model("resnet18", (3, 32, 32), 100, skips=kind) for kind in ("none", "conv"))
    count = lambda model: sum(s.numel() for s in model.shapes.params.values() if len(s) > 2)  # noqa: E731
    assert count(plain) == equal_weights.CONVOLUTIONS
    assert count(skips) - count(plain) == equal_weights.SKIPS
    assert equal_weights.paper_weights(97) == pytest.approx(314_000, rel=1e-3)


def test_between_two_sizes_accuracy_is_linear_in_the_logarithm():
    found = equal_weights.interpolated([100, 10_000, 1_000], [50, 90, 60], [100, np.sqrt(1e5), 5, 1e6])
    assert found[:2] == pytest.approx([50, 55]) and np.isnan(found[2:]).all()


@pytest.mark.parametrize("row, cells", [("J1", 85), ("J5", 80), ("J10", 48), ("J13", 26)])
def test_the_tables_are_whole(row, cells):
    table = equal_weights.paper_table(row)
    assert len(table) == cells and table.paper.between(0, 100).all()
    assert not table.drop(columns="paper").duplicated().any()


def test_two_tables_agree_where_they_tell_the_same():
    one, other = (
        equal_weights.paper_table(row).query("way == 'ticket'").set_index("sparsity").paper for row in ("J1", "J5")
    )
    assert (one.loc[other.index] == other).all()
    j5 = equal_weights.paper_table("J5").set_index(["sparsity", "way"]).paper
    assert j5[97, "AT+TRT"] - j5[97, "ticket"] == pytest.approx(4.93)  # the paper's headline


def test_the_papers_tables_in_our_form():
    table = equal_weights.of_paper("J5").set_index(["sparsity", "way"])
    assert table.loc[(97, "AT"), "accuracy"] == 71.97 and table.loc[(97, "AT"), "left"] == pytest.approx(2.81, abs=0.01)
    assert table.loc[(97, "AT"), "weights"] - table.loc[(97, "TRT"), "weights"] == equal_weights.SKIPS


def test_tickets_of_both_tables_stand_once():
    table = equal_weights.of_tickets()
    assert not table.duplicated(["way", "sparsity"]).any() and table.sparsity.min() == 20
    assert {"ticket", "skip", "AT", "TRT", "AT+TRT"} <= {*table.way}
    assert (table.thousands * 1000).tolist() == pytest.approx(table.weights.tolist())


def test_gaps_of_ours_and_of_the_papers():
    heights = {"skip": 5.0, "ticket": 2.0, "AT": 6.0, "AT+TRT": 9.0, "TRT": 7.0}
    heights |= {"equal weights": 4.0, "TRT, equal weights": 8.5}
    rows = [(way, 3, network, height + network) for way, height in heights.items() for network in (0, 1)]
    found = pd.DataFrame(rows, columns=["way", "level", "network", "accuracy"])
    table = equal_weights.gaps(Gains(found), {3: 2.7})
    *_, same, heavy = table.columns
    ours, papers = (table[table["from"] == source].set_index("gain of") for source in ("here", "paper"))
    assert ours[[same, heavy]].to_numpy().tolist() == [[3, 1], [4, 2], [-1, -2.5], [7, 5], [2, 0.5]]
    assert set(ours["sparsity of the mask (%)"]) == {"97"} and len(papers) == 15
    one = papers[papers["sparsity of the mask (%)"] == 97].loc["AT+TRT − ticket"]
    assert one[same] == pytest.approx(4.93) and one[heavy] == equal_weights.paper_gain("AT+TRT", "ticket", 97, "J5")
    nothing = equal_weights.gaps(Gains(found[~found.way.str.contains("equal")]), {3: 2.7})
    assert nothing[nothing["from"] == "here"][heavy].isna().all()


def test_the_papers_zeros():
    table = equal_weights.paper_zeros()
    assert {"way", "stage", "zeros", "left"} <= {*table} and table.zeros.between(0, 100).all()
    assert table.groupby("sparsity").left.first().to_dict()[20] == pytest.approx(80)
