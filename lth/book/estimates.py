"""Numbers with their 95 % intervals, from samples that are one number per unit of replication.

Each kind of quantity has an interval that keeps its promise at few units: means Student's, medians that of order
statistics, shares Clopper and Pearson's, ratios of two means Fieller's, statistics of all units together an expanded
bootstrap; two shares are compared by Fisher's exact test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95
TAIL = (1 - LEVEL) / 2


class Estimate(NamedTuple):
    """What n units say of a quantity: `value` and the ends of its interval. ±∞: no limit on that side.

    p: of two tests, that the quantity is above zero and that it is below, where those decide and not the interval.
    words: how a reader is told, where three numbers do not say it.
    """

    n: int
    value: float
    low: float
    high: float
    p: tuple[float, float] | None = None
    words: str = ""


def mean(samples: Sequence[float]) -> Estimate:
    """The mean, Student's t: for samples that are not far from normal. Two samples or more."""
    x = np.asarray(samples, float)
    half = stats.t.ppf(1 - TAIL, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x))
    return Estimate(len(x), float(x.mean()), float(x.mean() - half), float(x.mean() + half))


def median(samples: Sequence[float]) -> Estimate:
    """The median, between two order statistics: whatever the distribution is. Below six samples it has no limits."""
    x = np.sort(np.asarray(samples, float))
    k = int(
        stats.binom.ppf(TAIL, len(x), 0.5)
    )  # fewer than k of n samples lie below the median by chance in 2.5 % at most
    ends = (x[k - 1], x[-k]) if k else (-math.inf, math.inf)
    return Estimate(len(x), float(np.median(x)), *map(float, ends))


def share(samples: Sequence[bool]) -> Estimate:
    """The share of units of which something is true, in per cent, Clopper and Pearson's exact interval."""
    x = np.asarray(samples, bool)
    found = stats.binomtest(int(x.sum()), len(x))
    low, high = found.proportion_ci(LEVEL, "exact")
    words = f"{x.sum()} of {len(x)}: {100 * x.mean():.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
    return Estimate(len(x), 100 * x.mean(), 100 * low, 100 * high, words=words)


def shares(ones: Sequence[bool], others: Sequence[bool]) -> Estimate:
    """The share among `ones` less that among `others`, in points, by Fisher's exact test of independent units.

    n is that of the smaller of the two groups.
    """
    first, second = share(ones), share(others)
    table = [[sum(map(bool, group)), len(group) - sum(map(bool, group))] for group in (ones, others)]
    above, below = (float(stats.fisher_exact(table, side).pvalue) for side in ("greater", "less"))
    words = f"{first.words} against {second.words}; Fisher's p = {min(above, below):.2g}"
    return Estimate(min(first.n, second.n), first.value - second.value, -math.inf, math.inf, (above, below), words)


def bootstrap(statistic: Callable[[list[int]], float], n: int, draws: int = 4000) -> Estimate:
    """A statistic of units 0 … n−1 taken together (a count, a maximum, a fit), from units drawn with replacement.

    `statistic` gets the numbers of the units. The percentiles are moved outwards so that the interval of a mean is
    about as wide as Student's: plain ones are too narrow where there are few units [Hesterberg 2015, Sec. 4.3]. Below
    five units it has no limits: the outermost draw, one unit n times, is then likelier than all that may lie outside,
    and no percentile reaches as far as Student's interval does.
    """
    value = float(statistic(list(range(n))))
    tail = stats.norm.sf(math.sqrt(n / (n - 1)) * stats.t.ppf(1 - TAIL, n - 1))
    if float(n) ** -n > tail:
        return Estimate(n, value, -math.inf, math.inf)
    found = [statistic(units) for units in np.random.default_rng(0).integers(0, n, (draws, n)).tolist()]
    low, high = np.quantile(found, [tail, 1 - tail])
    return Estimate(n, value, float(low), float(high))


def ratio(above: Sequence[float], below: Sequence[float]) -> Estimate:
    """The ratio r of the means of two numbers per unit, x and y, Fieller's interval: where x̄ − r ȳ may be zero.

    That is a mean, so the r that Student's test does not refuse are the solutions of a quadratic inequality. No limits
    where it does not refuse ȳ = 0. Two units or more.
    """
    x, y = np.asarray(above, float), np.asarray(below, float)
    n = len(x)
    (xx, xy), (_, yy) = np.cov(x, y) * stats.t.ppf(1 - TAIL, n - 1) ** 2 / n
    a, b, c = y.mean() ** 2 - yy, x.mean() * y.mean() - xy, x.mean() ** 2 - xx
    value = float(x.mean() / y.mean())
    if a <= 0:
        return Estimate(n, value, -math.inf, math.inf)
    half = math.sqrt(max(b * b - a * c, 0))
    return Estimate(n, value, float((b - half) / a), float((b + half) / a))
