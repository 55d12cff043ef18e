"""Matching, connected, robust, in multiples of ε: the samples of chapter 6's claims.

ε is measured, too. Where networks are drawn again for an interval, the dense networks that make ε are drawn with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from lth.book import claims, estimates, verdicts
from lth.book.estimates import Estimate
from lth.book.samples import wide
from lth.book.text import Markup

Nothing = list[float]  # where there is nothing to test


@dataclass(frozen=True)
class Ruler:
    """ε and the matching error, from the test errors (%) of all dense networks.

    networks: how many have ladders, units 0 … networks − 1 of each interval. least: ε in points where all dense
    networks that are drawn have the same error: what one test image is.
    """

    errors: np.ndarray
    networks: int
    least: float

    def scale(self, units: Sequence[int]) -> tuple[float, float]:
        """ε and the matching error in points: as they are for all networks in turn, else of dense ones drawn again."""
        count = len(self.errors)
        whole = list(units) == list(range(self.networks))
        rows = np.arange(count) if whole else np.random.default_rng(units).integers(0, count, count)
        spread = self.errors[rows].std(ddof=1) or self.least
        return spread, self.errors[rows].mean() + spread

    def drawn(self, statistic: Callable[[list[int]], float]) -> Estimate:
        """A statistic of networks taken together. Of few networks there are few draws: each is reckoned once."""
        once = cache(lambda units: statistic(list(units)))
        return estimates.bootstrap(lambda units: once(tuple(units)), self.networks)

    def multiples(self, samples: Sequence[float]) -> Estimate | Nothing:
        """The mean over networks of some points, (networks,), in multiples of ε; nothing where one is not known."""
        points = np.asarray(samples, float)
        known = points.size and np.isfinite(points).all()
        return self.drawn(lambda units: points[units].mean() / self.scale(units)[0]) if known else []

    def highest(self, samples: np.ndarray) -> Estimate | Nothing:
        """The largest of the places' means, (networks, places), in multiples of ε."""
        return self.drawn(lambda units: samples[units].mean(0).max() / self.scale(units)[0]) if samples.size else []


@dataclass(frozen=True)
class Ladders:
    """Which levels match, and which are connected to the next one, in the mean over networks.

    errors, barriers: rewind step → (networks, levels) and (networks, levels − 1), in points.
    """

    ruler: Ruler
    errors: Mapping[int, np.ndarray]
    barriers: Mapping[int, np.ndarray]

    @classmethod
    def of(cls, ruler: Ruler, errors: pd.DataFrame, links: pd.DataFrame) -> Ladders:
        """From tables of `error` by `rewind`, `network` and `level`, and of `barrier` by `rewind`, `network`, `leg`."""
        heights = {step: wide(links[links.rewind == step], "barrier", "leg") for step in errors.rewind.unique()}
        return cls(ruler, {s: wide(errors[errors.rewind == s], "error", "level") for s in heights}, heights)

    def matching(self, step: int) -> list[int]:
        """The sparse levels that match."""
        limit = self.ruler.scale(range(self.ruler.networks))[1]
        return [level for level, error in enumerate(self.errors[step].mean(0)) if level and error <= limit]

    def longer(self, step: int, other: int) -> Estimate:
        """By how many levels more a ladder matches than another one, each before the first that does not."""

        def matched(step: int, units: list[int]) -> int:
            return np.cumprod(self.errors[step][units].mean(0)[1:] <= self.ruler.scale(units)[1]).sum()

        return self.ruler.drawn(lambda units: matched(step, units) - matched(other, units))

    def corners(self, units: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Of all pairs of successive sparse levels: whether both match, and whether they are connected."""
        spread, limit = self.ruler.scale(units)
        good = [errors[units].mean(0)[1:] <= limit for errors in self.errors.values()]
        joined = [heights[units].mean(0)[1:] <= spread for heights in self.barriers.values()]
        return np.concatenate([some[:-1] & some[1:] for some in good]), np.concatenate(joined)

    def agreement(self) -> Estimate | Nothing:
        """The share of pairs that are connected, of those that match less of the others, in points."""
        good, _ = self.corners(list(range(self.ruler.networks)))
        both_kinds = good.any() and not good.all()
        return self.ruler.drawn(lambda units: apart(*self.corners(units))) if both_kinds else []

    def connected(self, matching: bool) -> Estimate | Nothing:
        """The share (%) of pairs that are connected, of those that match or of those that do not."""

        def share(units: list[int]) -> float:
            good, joined = self.corners(units)
            some = joined[good == matching]
            return 100 * some.mean() if some.size else 50.0  # which decides nothing

        good, _ = self.corners(list(range(self.ruler.networks)))
        return self.ruler.drawn(share) if (good == matching).any() else []


def apart(good: np.ndarray, joined: np.ndarray) -> float:
    """Share joined among the good less that among the others, in points; 0 where there are none of a kind."""
    return 100 * (joined[good].mean() - joined[~good].mean()) if good.any() and not good.all() else 0.0


def formula(ruler: Ruler, tested: pd.DataFrame) -> Estimate | Nothing:
    """The share of random prunings that match, of those that the formula allows less of the others, in points.

    tested: `way`, `network`, `allowed` (1, 0 or nan) and `matching` of each pruning. Nothing unless something is known
    of every network, and there are both kinds.
    """
    known = tested[(tested.way == "random") & tested.allowed.notna()]
    told = {network: some[["allowed", "matching"]].to_numpy(float) for network, some in known.groupby("network")}
    if set(known.allowed) != {0, 1} or [*told] != list(range(ruler.networks)):
        return []

    def share(units: list[int]) -> float:
        allowed, matching = np.concatenate([told[unit] for unit in units]).T
        return apart(allowed == 1, matching)

    return ruler.drawn(share)


def above_curve(tested: pd.DataFrame, curves: pd.DataFrame, way: str) -> Sequence[float]:
    """The largest share that can be pruned less what the formula allows at its distance, network by network.

    Where matching ends lies between two shares that were tried: the middle is taken, of the shares and of the
    distances. Where none of them matches, it lies between nothing and the smallest. Mean over those levels at which
    something failed and the network's curve is resolved; networks without such a level are left out.
    """
    rows = []
    for (network, level), some in tested[tested.way == way].groupby(["network", "level"]):
        curve = curves[(curves.probed == level) & (curves.network == network)]
        good = some[some.matching == 1]
        share, distance = good.loc[good.share.idxmax(), ["share", "distance"]] if len(good) else (0, 0)
        beyond = some[some.share > share]
        if len(beyond) and curve.resolved.all() and curve.share.notna().all():
            fails = beyond.loc[beyond.share.idxmin()]
            allowed = np.interp((distance + fails.distance) / 2, curve.distance, curve.share)
            rows.append({"network": network, "excess": (share + fails.share) / 2 - allowed})
    return pd.DataFrame(rows).groupby("network").excess.mean().to_numpy() if rows else []


def sharper(curves: pd.DataFrame, distance: Sequence[float], level: int, later: int) -> list[float]:
    """The share allowed at each network's distance, at one level less a later one; nan if a curve is not resolved."""
    found = []
    for network, far in enumerate(distance):
        ends = [curves[(curves.probed == probed) & (curves.network == network)] for probed in (level, later)]
        first, last = (np.interp(far, end.distance, end.share) if end.resolved.all() else np.nan for end in ends)
        found.append(first - last)
    return found


def powers(table: pd.DataFrame, value: str, way: str, other: str) -> np.ndarray:
    """By how many powers of ten a value is larger after one kind of `pruning` than after another, network by network.

    Mean over levels. Values below a millionth count as one.
    """
    logs = table.assign(log=np.log10(table[value].clip(lower=1e-6)))
    logs = logs.pivot(index=["network", "level"], columns="pruning", values="log")
    return (logs[way] - logs[other]).groupby("network").mean().to_numpy()


def more_small(distribution: pd.DataFrame, what: str, other: str) -> np.ndarray:
    """How many more per cent of the weights are `small` after one way of training than after another.

    distribution: as from `weights.distribution`. Mean over levels, network by network.
    """
    table = distribution.drop_duplicates(["after", "network", "level"])
    table = table.pivot_table(index="network", columns="after", values="small")
    return (table[what] - table[other]).to_numpy()


def arrival(errors: pd.DataFrame, left: float) -> pd.DataFrame:
    """The first `level` of each network's ladder at which not more than `left` per cent of the weights are left, up to
    a hundredth of them, and its `error` there: a row per network."""
    there = errors[errors.left <= 1.01 * left].sort_values("level")
    return there.groupby("network")[["level", "error"]].first()


def judged_twice(one: Mapping[str, Any], other: Mapping[str, Any], parameters: Mapping[str, Any]) -> pd.DataFrame:
    """The claims of `other` judged with the samples of both, outcomes and intervals in words.

    The two are made with batch norm's statistics interpolated and gathered anew.
    """
    rows = []
    for name, told in other.items():
        claim = claims.ledger()[name]
        both = [verdicts.judge(claim, some, parameters) for some in (one[name], told)]
        words = [f"{found.outcome}: {verdicts.interval(found)}" for found in both]
        rows.append([name, *words, "yes" if both[0].outcome == both[1].outcome else Markup("**no**")])
    return pd.DataFrame(rows, columns=["claim", "interpolated", "gathered anew", "the same"], dtype=object)
