"""Smoothness as the claims take it, on small tables by hand; the measures themselves are tested where they are."""

from __future__ import annotations

import pandas as pd
import pytest
from conftest import toy_data

from lth.analysis import smoothness
from lth.methods import init
from lth.models import Model


def test_smoother_is_the_less_of_two_measures():
    rows = [(0, "a", 1, 1), (0, "b", 100, 10), (1, "a", 1, 100), (1, "b", 1000, 10)]
    table = pd.DataFrame(rows, columns=["network", "way", "eigenvalue", "relative"])
    assert smoothness.smoother(table, "a", "b").to_dict() == {0: pytest.approx(1), 1: pytest.approx(-1)}


def test_the_rise_is_a_mean_of_both_ends():
    table = pd.DataFrame({"network": 0, "distance": [-1, 0, 1], "loss": [1, 0.1, 100]})
    assert smoothness.rise_at_ends(table).to_dict() == {0: pytest.approx(2)}


def test_the_curvature_is_the_same_without_the_relative_one():
    images = toy_data(160, (1, 8, 8), 4).train
    networks = init.kaiming_normal(Model("resnet8", (1, 8, 8), 4), seeds=[0])
    both = smoothness.curvature(networks, [images], 0.1)
    alone = smoothness.curvature(networks, [images], 0.1, relative=False)
    assert both.eigenvalue.tolist() == alone.eigenvalue.tolist() and both.relative.item() > 0
    assert "relative" not in alone


def test_sharper_is_a_mean_over_steps_in_powers_of_ten():
    rows = [(0, 1, "a", 10.0), (0, 1, "b", 1.0), (0, 2, "a", 1e4), (0, 2, "b", 1.0), (1, 1, "a", 5.0), (0, 3, "a", 7.0)]
    table = pd.DataFrame(rows, columns=["network", "step", "way", "eigenvalue"])
    assert smoothness.sharper(table, "a", "b", [1, 2]).to_dict() == {0: pytest.approx(2.5)}  # network 1 lacks a way
    assert smoothness.sharper(table, "a", "b", [1]).to_dict() == {0: pytest.approx(1)}


def test_flatter_is_a_mean_of_the_ways_that_are_there():
    heights = {"LTH": 0.4, "skip": 0.2, "LS": 0.3}
    points = [(way, x, 0.0, 0.1 + height * abs(x)) for way, height in heights.items() for x in (-1, 0, 1)]
    rows = [(network, *point) for network in (0, 1) for point in points]
    table = pd.DataFrame(rows, columns=["network", "way", "x", "y", "error"])
    less = {n: pytest.approx(100 * 2 / 3 * (0.4 - 0.25)) for n in (0, 1)}
    assert smoothness.flatter(table, ["skip", "LS", "Mish"], "LTH").to_dict() == less
    lost = table.assign(error=table.error.where((table.network == 0) | (table.way != "LS")))
    assert smoothness.flatter(lost, ["skip", "LS"], "LTH").index.tolist() == [0]
