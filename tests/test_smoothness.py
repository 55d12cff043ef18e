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
