"""How likely a claim's test is to come out, before anything has run: of n units, if the truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from scipy import stats

from lth.book.estimates import TAIL

ENOUGH = 0.8
MOST = 400  # units; more are never asked for


@cache
def of_mean(n: int, low: float, high: float, mean: float, sd: float) -> float:
    """That Student's interval of n normal samples (mean, sd) lies between `low` and `high` (±∞: no limit).

    Mean and standard deviation of such samples are independent: an integral over the latter, of the former's chance.
    """
    if n < 2:
        return 0.0
    if sd == 0:
        return float(low < mean < high)
    half = sd * _halves(n)
    error = sd / math.sqrt(n)
    inside = stats.norm.cdf((high - half - mean) / error) - stats.norm.cdf((low + half - mean) / error)
    return float(np.clip(inside, 0, None).mean())


@cache
def _halves(n: int) -> np.ndarray:
    """Half the lengths of such intervals where sd is 1, for 2,000 equally likely standard deviations of the samples."""
    quantiles = (np.arange(2000) + 0.5) / 2000
    return stats.t.ppf(1 - TAIL, n - 1) * np.sqrt(stats.chi2.ppf(quantiles, n - 1) / (n - 1) / n)


@cache
def of_share(n: int, low: float, high: float, truth: float) -> float:
    """That Clopper and Pearson's interval of n units lies between `low` and `high`, in per cent, as is the `truth`."""
    counts = np.arange(n + 1)
    with np.errstate(invalid="ignore"):
        bottom = 100 * np.nan_to_num(stats.beta.ppf(TAIL, counts, n - counts + 1), nan=0.0)
        top = 100 * np.nan_to_num(stats.beta.ppf(1 - TAIL, counts + 1, n - counts), nan=1.0)
    return float(stats.binom.pmf(counts[(low < bottom) & (top < high)], n, truth / 100).sum())


@cache
def of_shares(n: int, above: bool, one: float, other: float) -> float:
    """That Fisher's test of two groups of n units finds the first share `above` the second, or below; in per cent."""
    first, second = np.ogrid[: n + 1, : n + 1]
    p = (
        stats.hypergeom.sf(first - 1, 2 * n, first + second, n)
        if above
        else stats.hypergeom.cdf(first, 2 * n, first + second, n)
    )
    likely = stats.binom.pmf(first, n, one / 100) * stats.binom.pmf(second, n, other / 100)
    return float(likely[p <= TAIL].sum())


def enough(chance: Callable[[int], float]) -> int | None:
    """The smallest n from which on `chance(n)` is at least 80 %; None where `MOST` are not enough.

    Of exact tests the chance does not rise at every step: the n found is one from which it stays, as far as the next
    tenth tells.
    """
    n = 2
    while chance(n) < ENOUGH:
        n += max(1, n // 20)
        if n > MOST:
            return None
    while n > 2 and chance(n - 1) >= ENOUGH:
        n -= 1
    return n
