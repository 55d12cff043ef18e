"""What ways of spending a ticket gain, network by network: the samples of chapter 4's claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lth.book import estimates
from lth.book.estimates import Estimate

DENSE = [0]


@dataclass(frozen=True)
class Gains:
    """Accuracies (%) by `way`, `level` and `network`; answers are a Series over networks, empty where nothing is known.

    A network of which a level is missing has no mean over levels, and one that failed has none that is a number.
    """

    table: pd.DataFrame

    def score(self, way: str, levels: Sequence[int]) -> pd.Series:
        """Mean accuracy over some levels."""
        rows = self.table[(self.table.way == way) & self.table.level.isin(levels)]
        whole = rows.groupby("network").filter(lambda own: own.level.nunique() == len(levels))
        return whole.groupby("network").accuracy.agg(lambda own: own.mean(skipna=False))

    def gain(self, way: str, levels: Sequence[int], other: str = "ticket") -> pd.Series:
        """By how many points `way` is better than the `other` one."""
        one, two = self.score(way, levels).align(self.score(other, levels), join="inner")
        return one - two

    def more(self, way: str, levels: Sequence[int]) -> pd.Series:
        """By how many points tickets gain more than dense networks."""
        sparse, dense = self.gain(way, levels).align(self.gain(way, DENSE), join="inner")
        return sparse - dense

    def by_level(self, ways: Sequence[str], left: Mapping[int, float]) -> pd.DataFrame:
        """The gains of some ways at each level: `network`, `gain`, `way`, `level`, and the `left` of a level."""
        parts = [
            self.gain(way, [level]).rename("gain").reset_index().assign(way=way, level=level, left=share)
            for way in ways
            for level, share in left.items()
        ]
        return pd.concat(parts, ignore_index=True)

    def growth(self, way: str, left: Mapping[int, float]) -> pd.Series:
        """How many points the gain rises each time that the weights left (level → share) are halved."""
        by_level = pd.concat([self.gain(way, [level]) for level in left], axis=1).dropna()
        if not len(by_level):
            return pd.Series()
        return pd.Series(np.polyfit([-np.log2(share) for share in left.values()], by_level.T, 1)[0], by_level.index)

    def wins_until(self, way: str, levels: Sequence[int], tolerance: float = 1.0) -> pd.Series:
        """The last level with a ticket at most `tolerance` points below the plain dense network; 0 if there is none,
        nan for a network that failed at one of them."""
        dense = self.score("ticket", DENSE) - tolerance
        scores = pd.concat([self.score(way, [level]).rename(level) for level in levels], axis=1)
        wins = scores.ge(dense, axis=0) * np.array(levels)
        return wins.max(axis=1).where(scores.notna().all(axis=1) & dense.notna())


def better(*samples: pd.Series) -> pd.Series:
    """Of several samples that with the best mean."""
    return max(samples, key=np.mean)


def least(architectures: Sequence[Gains], way: str, levels: Sequence[int]) -> Estimate | list[float]:
    """The smallest of the architectures' mean gains; units are networks, those that are known in all of them.

    [] where these are not two at least.
    """
    known = pd.concat([one.gain(way, levels) for one in architectures], axis=1, join="inner").dropna()
    gains = np.ascontiguousarray(known.to_numpy().T)
    if len(known) < 2:
        return []
    return estimates.bootstrap(lambda units: gains[:, units].mean(1).min(), len(known))
