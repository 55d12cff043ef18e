"""How smooth a landscape is, by four measures of [J]; each gives a table and can be kept (`lth.store.measures`).

Networks are to be `settled` first, so that what is compared are decisions and not the size of logits or of layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from lth.analysis import calibration, hessian, landscape, surface
from lth.data import Split
from lth.population import Population


def settled(population: Population, statistics: Split, validation: Split) -> Population:
    """The networks that did not diverge, with batch norm's statistics gathered anew on some training images, as early
    in training they lag behind, and with logits divided by the temperature that fits the validation images."""
    sound = population.theta().isfinite().all(1).cpu().numpy()
    return calibration.calibrated(landscape.reestimate(population[sound], statistics), validation)


def curvature(
    population: Population, parts: Sequence[Split], tolerance: float, relative: bool = True
) -> pd.DataFrame:
    """The largest eigenvalue of the Hessian, mean over some batches: `eigenvalue`, and `relative`, in relative changes
    of the layers, which a layer's own size does not touch [J, Figs. 2, A11 and A13]."""
    columns, scales = {}, {"eigenvalue": None}
    if relative:
        scales["relative"] = calibration.layer_lengths(population)
    for name, scale in scales.items():
        found = [hessian.top(population, part, tolerance=tolerance, scale=scale).values[:, 0] for part in parts]
        columns[name] = torch.stack(found).mean(0).cpu().numpy()
    return population.frame.assign(**columns)


def plane(population: Population, ticks: Sequence[float], split: Split) -> pd.DataFrame:
    """Loss and error in the plane of two random directions with the lengths of the filters [J, Fig. 4]."""
    u, v = (surface.filter_normalised(population, number) for number in (0, 1))
    return surface.surface(population, u, v, ticks, ticks, split)


def walk(
    population: Population, part: Split, distances: Sequence[float], split: Split, tolerance: float
) -> pd.DataFrame:
    """Loss and error of `split` along the eigenvector of the largest eigenvalue on the batch `part` [J, Fig. 10]."""
    sharpest = hessian.top(population, part, tolerance=tolerance).vectors[:, 0]
    return surface.along(population, sharpest, distances, split)


def smoother(table: pd.DataFrame, way: str, other: str) -> pd.Series:
    """By how many powers of ten the largest eigenvalue is smaller in one `way` than in the `other`, network by network:
    the less of what `curvature` says in the weights and in relative changes."""
    logs = np.log10(table.set_index(["network", "way"])[["eigenvalue", "relative"]]).unstack("way")
    less = [logs[column][other] - logs[column][way] for column in ("eigenvalue", "relative")]
    return np.minimum(*less).dropna()


def rise_at_ends(table: pd.DataFrame) -> pd.Series:
    """How many times larger the loss is at the ends of a `walk` than in its middle, as a power of ten, by network."""
    seen = np.log10(table.pivot(index="network", columns="distance", values="loss"))
    return (seen.iloc[:, 0] + seen.iloc[:, -1]) / 2 - seen.iloc[:, seen.shape[1] // 2]


def sharper(table: pd.DataFrame, way: str, other: str, steps: Sequence[int]) -> pd.Series:
    """By how many powers of ten the largest eigenvalue is larger in one `way` than in the `other`, mean over some steps
    of training, by network."""
    rows = table[table.step.isin(steps)].set_index(["network", "step", "way"])
    logs = np.log10(rows.eigenvalue).unstack("way").groupby("network").mean()
    return (logs[way] - logs[other]).dropna()


def flatter(table: pd.DataFrame, ways: Sequence[str], other: str) -> pd.Series:
    """How many points less the error rises around a network (`surface.rise`) than in the `other` way, mean of those of
    the `ways` that are there, by network."""
    rises = 100 * surface.rise(table, ["network", "way"], "error").unstack("way")
    ways = [way for way in ways if way in rises]
    return (rises[other] - rises[ways].mean(axis=1, skipna=False)).dropna()
