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


def curvature(population: Population, parts: Sequence[Split], tolerance: float) -> pd.DataFrame:
    """The largest eigenvalue of the Hessian, mean over some batches: `eigenvalue`, and `relative`, in relative changes
    of the layers, which a layer's own size does not touch [J, Figs. 2, A11 and A13]."""
    columns = {}
    for name, scale in {"eigenvalue": None, "relative": calibration.layer_lengths(population)}.items():
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
    """By how many powers of ten the largest eigenvalue is smaller in one `way` than in the `other`, network by network.

    As far as the two measures agree (`curvature`, in the weights and in relative changes): the smaller of the two, and
    nothing where their signs differ. So neither verdict rests on one of them alone. Of several steps the mean.
    """
    logs = np.log10(table.set_index(["network", "way"])[["eigenvalue", "relative"]]).groupby(level=[0, 1]).mean()
    one, two = ((logs[column].unstack("way")[other] - logs[column].unstack("way")[way]).dropna() for column in logs)
    agree = np.sign(one) == np.sign(two)
    return np.sign(one) * np.minimum(one.abs(), two.abs()).where(agree, 0)


def rise_at_ends(table: pd.DataFrame) -> pd.Series:
    """How many times larger the loss is at the ends of a `walk` than in its middle, as a power of ten, by network."""
    seen = np.log10(table.pivot(index="network", columns="distance", values="loss"))
    return (seen.iloc[:, 0] + seen.iloc[:, -1]) / 2 - seen.iloc[:, seen.shape[1] // 2]


def flatter(table: pd.DataFrame, ways: Sequence[str], other: str, classes: int, reach: float) -> pd.Series:
    """By how much less the error rises near a network than in the `other` way, network by network.

    In per cent of what it can rise, from the middle up to a guess: a network that has learned less has less to lose,
    and its error would look flat. Mean over the points up to `reach` along each axis, and over those of the `ways` that
    are there. Networks that are within 5 points of a guess are left out.
    """
    near, who = table[(table.x.abs() <= reach) & (table.y.abs() <= reach)], ["network", "way"]
    room = 1 - 1 / classes - surface.middle(near, who, "error")
    rises = (100 * surface.rise(near, who, "error") / room.where(room > 0.05)).unstack("way")
    ways = [way for way in ways if way in rises]
    return (rises[other] - rises[ways].mean(axis=1, skipna=False)).dropna()
