"""Ladders of pruning as tables: a row for each network and round, and how far solutions turn between rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from lth.analysis import landscape, lcs, returns, similarity, weights
from lth.analysis.returns import Groups
from lth.analysis.rounds import Measure, distances
from lth.data import Split
from lth.methods import imp, prune
from lth.population import Population, concat
from lth.training.plan import Run

Levels = Sequence[Population]  # the networks of all rounds, dense ones first
Ladders = Mapping[tuple[str, str], Levels]  # by method and arm, which is a way to train


def evaluated(levels: Levels, split: Split, **columns: str) -> pd.DataFrame:
    """`loss`, `error` and `accuracy` (0 … 1) of all networks of a ladder, and `left`, per cent of their weights."""
    every = concat([solution.label(level=level) for level, solution in enumerate(levels)])
    return every.evaluate(split).assign(**columns, left=weights.left(every))


def accuracies(ladders: Ladders, split: Split) -> pd.DataFrame:
    """The same of several ladders, with `method` and `arm`; `accuracy` in per cent."""
    tables = [evaluated(levels, split, method=method, arm=arm) for (method, arm), levels in ladders.items()]
    return pd.concat(tables, ignore_index=True).assign(accuracy=lambda table: 100 * table.accuracy)


def accuracy_by_run(runs: Sequence[Run], split: Split) -> list[np.ndarray]:
    """Accuracy (%) of the networks that each run of `imp.ladder` ended with, (R,) each."""
    return [100 * run.final.evaluate(split).accuracy.to_numpy() for run in runs]


def thresholds(ladders: Ladders, ratio: float) -> pd.DataFrame:
    """The `threshold` below which a share `ratio` of the weights left lies, which the next round would prune."""
    rows = []
    for (method, arm), levels in ladders.items():
        for level, trained in enumerate(levels):
            cut = imp.threshold(trained, prune.magnitude_masks(trained, ratio)).cpu().numpy()
            about = {"method": method, "arm": arm, "level": level, "left": weights.left(trained)}
            rows.append(trained.frame[["network"]].assign(**about, threshold=cut))
    return pd.concat(rows, ignore_index=True)


def densities(ladders: Ladders, level: int, replica: int = 0, bins: int = 60) -> pd.DataFrame:
    """How the weights left of one network of each ladder at a level are distributed: `method`, `arm`, `density` between
    `weight` and the next one.

    The ladders of an arm have the same bins, which leave out the largest five in a thousand of its weights.
    """
    kept = {key: weights.kept(levels[level], replica) for key, levels in ladders.items()}
    tables = []
    for arm in dict.fromkeys(arm for _, arm in kept):
        of_arm = {method: own for (method, other), own in kept.items() if other == arm}
        width = np.quantile(np.abs(np.concatenate([*of_arm.values()])), 0.995)
        edges = np.linspace(-width, width, bins + 1)
        for method, own in of_arm.items():
            density = np.histogram(own, edges)[0] / (len(own) * (edges[1] - edges[0]))
            told = {"arm": arm, "method": method, "weight": edges, "density": [*density, 0.0]}
            tables.append(pd.DataFrame(told))
    return pd.concat(tables, ignore_index=True)


def overlap_with_largest(dense: Population, levels: Levels, which: Sequence[int]) -> pd.DataFrame:
    """`similarity.overlap` of the tickets of some levels with the largest of the dense networks' weights."""
    twins = [prune.apply(dense, prune.masks_of_largest(dense, levels[level])) for level in which]
    tables = [
        similarity.overlap(levels[level], twin).assign(level=level) for level, twin in zip(which, twins, strict=True)
    ]
    return pd.concat(tables, ignore_index=True)


def barriers(
    start: Population,
    end: Population,
    points: int,
    split: Split,
    statistics: Mapping[str, Split | None],
    measure: Callable[..., pd.DataFrame] = landscape.now,
) -> pd.DataFrame:
    """The `barrier` between two networks of each `network`, and how high it is, `relative` to the error at its ends.

    In points of error, and in per cent of the mean error at the ends, which is at least that of one wrong image.
    statistics: names → images on which batch norm's statistics are gathered anew, None: interpolated. measure: see
    `lcs.segments`.
    """
    tables = [
        lcs.segments(start, end, split, points, images, measure).assign(statistics=way)
        for way, images in statistics.items()
    ]
    lines = pd.concat(tables, ignore_index=True).rename(columns={"replica": "network"})
    at_ends = ((lines.start + lines.end) / 2).clip(lower=1 / len(split))
    found = lines[["network", "barrier", "statistics"]]
    return found.assign(barrier=100 * lines.barrier, relative=100 * lines.barrier / at_ends)


def mean_distances(ladders: Mapping[str, Levels], measure: Measure = "angle") -> pd.DataFrame:
    """Distance between every two networks of each ladder, mean over replicas: `ladder`, `row`, `column`, `distance`.

    Rows and columns count the networks of a ladder; the distance is nan where that of any replica is.
    """
    columns, entries = ["ladder", "row", "column", "distance"], []
    for title, levels in ladders.items():
        matrix = distances(levels, measure).mean(0).cpu().numpy()
        entries.append(pd.DataFrame([(title, i, j, d) for (i, j), d in np.ndenumerate(matrix)], columns=columns))
    return pd.concat(entries)


def turns(levels: Levels, which: Sequence[int], steps: int = 1) -> np.ndarray:
    """Mean angular distance between some levels and those `steps` before, where there are such: (R,)."""
    angles = distances(levels).cpu().numpy()
    return np.mean([angles[:, level, level - steps] for level in which if level >= steps], axis=0)


def right_angles(cosine: pd.Series) -> pd.Series:
    """Angles from their cosines; 1 is a right angle."""
    return 2 / np.pi * np.arccos(cosine.clip(-1, 1))


def turns_of(groups: Groups, levels: Levels, which: Sequence[int], steps: int = 1) -> pd.DataFrame:
    """Mean angle between some levels and those `steps` before, in right angles: a row per network, a column per group.

    A direction and its opposite are one, as in the penalty, which has the cosine's square: 0 … 1. Levels without one
    `steps` before, or where nothing is shared, are left out.
    """
    found = pd.concat(
        returns.cosines(levels[level], levels[level - steps], groups) for level in which if level >= steps
    )
    angles = found.assign(angle=right_angles(found.cosine.abs()))
    return angles.groupby(["network", "group"], sort=False).angle.mean().unstack()
