"""Chances of verdicts against simulation and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lth.book import estimates, power


@pytest.mark.parametrize(
    "n, low, high, mean, sd",
    [(3, 0, math.inf, 1.18, 0.5), (5, -0.3, 0.3, 0.1, 0.2), (10, -math.inf, 2, 1.0, 1.5), (4, 0, math.inf, 0, 1)],
)
def test_the_chance_of_a_mean_against_simulation(n, low, high, mean, sd):
    draws = np.random.default_rng(3).normal(mean, sd, size=(20_000, n))
    half = stats.t.ppf(0.975, n - 1) * draws.std(axis=1, ddof=1) / np.sqrt(n)
    inside = (low < draws.mean(1) - half) & (draws.mean(1) + half < high)
    assert power.of_mean(n, low, high, mean, sd) == pytest.approx(inside.mean(), abs=0.011)  # three standard errors


def test_without_an_effect_one_in_forty():
    for n in (2, 3, 10, 50):
        assert power.of_mean(n, 0, math.inf, 0, 0.7) == pytest.approx(0.025, abs=5e-4)
    assert power.of_mean(9, 0, 1, 0.5, 0) == 1 and power.of_mean(1, 0, 1, 0.5, 0) == 0


@pytest.mark.parametrize("n, low, high, truth", [(5, 50, math.inf, 100), (6, 50, 200, 95), (12, -math.inf, 50, 10)])
def test_the_chance_of_a_share_by_adding_up(n, low, high, truth):
    chance = 0.0
    for k in range(n + 1):
        found = estimates.share([True] * k + [False] * (n - k))
        chance += stats.binom.pmf(k, n, truth / 100) * (low < found.low and found.high < high)
    assert power.of_share(n, low, high, truth) == pytest.approx(chance, abs=1e-12)


@pytest.mark.parametrize("n, one, other", [(5, 100, 40), (15, 100, 40), (8, 60, 60)])
def test_the_chance_of_two_shares_by_adding_up(n, one, other):
    chance = 0.0
    for k in range(n + 1):
        for m in range(n + 1):
            p = estimates.shares([True] * k + [False] * (n - k), [True] * m + [False] * (n - m)).p
            chance += stats.binom.pmf(k, n, one / 100) * stats.binom.pmf(m, n, other / 100) * (p[0] <= 0.025)
    assert power.of_shares(n, True, one, other) == pytest.approx(chance, abs=1e-9)
    assert power.of_shares(n, False, other, one) == pytest.approx(chance, abs=1e-9)


def test_how_many_are_enough():
    assert power.enough(lambda n: power.of_mean(n, 0, math.inf, 1, 1)) == 10  # as tables of the one-sample t test say
    assert power.enough(lambda n: power.of_mean(n, 0, math.inf, 0, 1)) is None
    n = power.enough(lambda n: power.of_shares(n, True, 100, 40))
    assert power.of_shares(n, True, 100, 40) >= 0.8 > power.of_shares(n - 1, True, 100, 40)
