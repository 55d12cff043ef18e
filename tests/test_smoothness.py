"""Smoothness as the claims take it, on small tables by hand; the measures themselves are tested where they are."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from conftest import toy_data

from lth.analysis import landscape, smoothness
from lth.methods import init
from lth.models import Model


def test_smoother_is_what_both_measures_say():
    """Powers of ten in the weights 3, 1, −1, in relative changes 2, −1, −3; network 3 was trained in one way only."""
    rows = [(0, "a", 1, 1), (0, "b", 1000, 100), (1, "a", 1, 100), (1, "b", 10, 10), (2, "a", 10, 1000), (2, "b", 1, 1)]
    table = pd.DataFrame([*rows, (3, "a", 1, 1)], columns=["network", "way", "eigenvalue", "relative"])
    both = {0: pytest.approx(2), 1: 0, 2: pytest.approx(-1)}
    assert smoothness.smoother(table, "a", "b").to_dict() == both
    assert (-smoothness.smoother(table, "b", "a")).to_dict() == both  # no verdict is easier to come by than the other


def test_smoother_is_a_mean_over_steps_in_powers_of_ten():
    table = pd.DataFrame({"network": 0, "way": ["a", "a", "b", "b"], "eigenvalue": [10.0, 1e4, 1.0, 1.0]})
    table["relative"] = table.eigenvalue**2
    assert smoothness.smoother(table, "b", "a").to_dict() == {0: pytest.approx(2.5)}
    assert smoothness.smoother(table, "a", "b").to_dict() == {0: pytest.approx(-2.5)}


def test_the_rise_is_a_mean_of_both_ends():
    table = pd.DataFrame({"network": 0, "distance": [-1, 0, 1], "loss": [1, 0.1, 100]})
    assert smoothness.rise_at_ends(table).to_dict() == {0: pytest.approx(2)}


def test_only_the_relative_curvature_is_blind_to_the_size_of_a_layer():
    """The first convolution, in front of batch norm, is halved: the network computes what it did, but for ε."""
    images = toy_data(160, (1, 8, 8), 4).train
    networks = init.kaiming_normal(Model("resnet8", (1, 8, 8), 4), seeds=[0])
    first = next(iter(networks.masks))
    halved = replace(networks, params={**networks.params, first: networks.params[first] / 2})
    pair = (landscape.reestimate(some, images) for some in (networks, halved))
    whole, half = (smoothness.curvature(some, [images], 0.01) for some in pair)
    assert half.relative.item() == pytest.approx(whole.relative.item(), rel=0.05)
    assert half.eigenvalue.item() > 1.5 * whole.eigenvalue.item()


def test_flatter_is_in_per_cent_of_what_there_is_to_lose():
    """Of ten classes, so that a guess is wrong in 90 %; the points beyond the reach would spoil it."""
    ways = {"ticket": (0.1, 0.4), "skip": (0.5, 0.2), "LS": (0.1, 0.3)}  # error in the middle, and its rise at 1
    points = [(way, x, 0.0, low + rise * abs(x) ** 2) for way, (low, rise) in ways.items() for x in (-9, -1, 0, 1, 9)]
    rows = [(network, *point) for network in (0, 1) for point in points]
    table = pd.DataFrame(rows, columns=["network", "way", "x", "y", "error"])
    less = {n: pytest.approx(100 * 2 / 3 * (0.4 / 0.8 - (0.2 / 0.4 + 0.3 / 0.8) / 2)) for n in (0, 1)}
    assert smoothness.flatter(table, ["skip", "LS", "Mish"], "ticket", 10, 1).to_dict() == less
    lost = table.assign(error=table.error.where((table.network == 0) | (table.way != "LS")))
    assert smoothness.flatter(lost, ["skip", "LS"], "ticket", 10, 1).index.tolist() == [0]
    guessing = table.assign(error=table.error.where(table.network == 0, 0.87 + table.error / 100))
    assert smoothness.flatter(guessing, ["skip"], "ticket", 10, 1).index.tolist() == [0]
