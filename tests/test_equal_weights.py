"""[J]'s tables in the ledger, and its gains at equal numbers of weights, as they were reckoned by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lth.book import equal_weights
from lth.models import Model


@pytest.mark.parametrize(
    "row, way, other, gains",
    [
        ("J1", "skip", "LTH", {91: -0.95, 95: -0.52, 97: -1.91}),
        ("J5", "AT", "LTH", {91: -0.26, 95: 0.00, 97: -0.05}),
        ("J5", "AT+TRT", "TRT", {91: 0.13, 95: -0.82, 97: -0.61}),
        ("J5", "AT+TRT", "LTH", {97: 0.80}),
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
        equal_weights.paper_table(row).query("way == 'LTH'").set_index("sparsity").paper for row in ("J1", "J5")
    )
    assert (one.loc[other.index] == other).all()
    j5 = equal_weights.paper_table("J5").set_index(["sparsity", "way"]).paper
    assert j5[97, "AT+TRT"] - j5[97, "LTH"] == pytest.approx(4.93)  # the paper's headline


def test_the_papers_tables_in_our_form():
    table = equal_weights.of_paper("J5").set_index(["sparsity", "way"])
    assert table.loc[(97, "AT"), "accuracy"] == 71.97 and table.loc[(97, "AT"), "left"] == pytest.approx(2.81, abs=0.01)
    assert table.loc[(97, "AT"), "weights"] - table.loc[(97, "TRT"), "weights"] == equal_weights.SKIPS
