"""Intervals against scipy, and against simulation: how often they miss the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lth.book import estimates


def test_the_mean_is_students(samples=(1.0, 2.0, 4.0, 3.5, 2.2)):
    found = estimates.mean(samples)
    test = stats.ttest_1samp(samples, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((test.low, test.high))
    assert found.value == pytest.approx(np.mean(samples)) and found.n == 5


@pytest.mark.parametrize("n, k", [(5, 0), (6, 1), (8, 1), (9, 2), (15, 4), (20, 6), (50, 18)])
def test_the_median_lies_between_order_statistics(n, k):
    """The k-th from either end, as in the tables of the sign test."""
    found = estimates.median(range(1, n + 1))
    assert (found.low, found.high) == ((k, n + 1 - k) if k else (-math.inf, math.inf))
    if k:
        assert 2 * stats.binom.cdf(k - 1, n, 0.5) <= 0.05 < 2 * stats.binom.cdf(k, n, 0.5)


@pytest.mark.parametrize("k, n, low, high", [(0, 3, 0, 70.76), (3, 3, 29.24, 100), (4, 5, 28.36, 99.49)])
def test_the_share_is_clopper_and_pearsons(k, n, low, high):
    found = estimates.share([True] * k + [False] * (n - k))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)
    assert found.value == pytest.approx(100 * k / n)


def test_shares_are_compared_by_fisher():
    """Fisher's own tea: 3 of 4 against 1 of 4, one-sided p = 17/70."""
    found = estimates.shares([1, 1, 1, 0], [1, 0, 0, 0])
    assert found.p[0] == pytest.approx(17 / 70) and found.value == 50 and found.n == 4
    assert "3 of 4" in found.words and "1 of 4" in found.words


@pytest.mark.parametrize("n, plainly", [(5, 0.08), (10, 0.047)])
def test_the_bootstrap_misses_less_often_than_plain_percentiles(n, plainly):
    """Of a mean of normal numbers, on one side; in theory 2.5 %. `plainly`: the plain percentiles', by simulation."""
    generator = np.random.default_rng(2)
    missed = 0
    for _ in range(300):
        data = generator.normal(size=n).tolist()
        found = estimates.bootstrap(lambda some, d=data: sum(d[i] for i in some) / len(some), n, draws=1000)
        assert found.low <= found.value <= found.high
        missed += (found.low > 0) + (found.high < 0)
    assert missed / 600 < min(0.055, plainly)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_with_few_units_no_draw_reaches_as_far_as_students_interval(n):
    found = estimates.bootstrap(lambda some: sum(some) / len(some), n)
    assert (found.n, found.value, found.low, found.high) == (n, (n - 1) / 2, -math.inf, math.inf)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_the_ratio_is_what_students_test_does_not_refuse(n):
    generator = np.random.default_rng(n)
    x, y = generator.normal(1, 0.02, n), generator.normal(3, 0.02, n)
    found = estimates.ratio(x, y)
    assert found.value == pytest.approx(x.mean() / y.mean()) and found.low < found.value < found.high
    for end in (found.low, found.high):
        assert stats.ttest_1samp(x - end * y, 0).pvalue == pytest.approx(0.05)
    halves = estimates.ratio(2 * x, x)  # without any spread
    assert (halves.low, halves.value, halves.high) == pytest.approx((2, 2, 2))


def test_a_ratio_to_what_may_be_nothing_has_no_limits():
    found = estimates.ratio([1.0, 1.1, 0.9], [0.1, -0.2, 0.3])
    assert (found.low, found.high) == (-math.inf, math.inf) and found.value == pytest.approx(15)


def test_the_bootstrap_is_the_same_each_time():
    assert estimates.bootstrap(max, 6) == estimates.bootstrap(max, 6)
