"""The loss along straight lines between networks, and the barrier on the way.

Planes are in `lth.analysis.plane`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import nn

from lth.data import Split
from lth.errors import UsageError
from lth.parallel import map_replicas
from lth.population import Population


def interpolate(start: Population, end: Population, alpha: float) -> Population:
    """θ(α) = (1 − α)·θ_start + α·θ_end, replica by replica; outside 0 … 1 this extrapolates.

    One end point serves all of `start`, whose frame the points have. The masks must be the same, or one within the
    other, as from round to round of iterative pruning: the points then have the larger one. Otherwise the line would
    run through networks of which neither end is one. Batch norm's statistics are interpolated, too: at the ends they
    are those of the networks, in between not quite those of the interpolated weights.
    """
    end = end.repeat(len(start)) if len(end) == 1 < len(start) else end
    if start.model != end.model or len(start) != len(end):
        raise UsageError("a line joins networks of one model: as many ends as starts, or one end for all")
    masks, others = start.theta_mask(), end.theta_mask()
    if not ((masks | ~others).all(1) | (others | ~masks).all(1)).all():
        raise UsageError("a line between networks of which neither's mask holds the other's leaves the sparse networks")
    union = {name: mask | end.masks[name] for name, mask in start.masks.items()}
    mixed = {n: torch.lerp(b, end.buffers[n], alpha) if b.is_floating_point() else b for n, b in start.buffers.items()}
    theta = torch.lerp(start.theta(), end.theta(), alpha)
    return replace(start, masks=union, buffers=mixed).with_theta(theta)


@torch.no_grad()
def reestimate(population: Population, split: Split, batch: int = 500) -> Population:
    """The same networks with batch norm's statistics gathered anew on all images of `split`.

    Between two networks the interpolated statistics are not those that the interpolated weights would gather. Mean and
    variance are those of batches, weighted by their sizes. Without batch norm nothing changes.
    """
    found = replace(population, buffers={n: b.clone() for n, b in population.buffers.items()})
    dtype, together = found.theta().dtype, 1 if found.device.type == "cpu" else len(found)

    def gather(network: nn.Module) -> None:
        norms, seen = [part for part in network.train().modules() if hasattr(part, "running_mean")], 0
        for piece in split.pieces(batch):
            seen += len(piece)
            for norm in norms:
                norm.momentum = len(piece) / seen
            network(split.pixels(piece).to(dtype).repeat(1, together, 1, 1))

    if found.buffers:
        networks = [found.module(r) for r in range(len(found))] if together == 1 else [found.network()]
        map_replicas(torch.no_grad()(gather), networks)
    return found


def line(
    start: Population, end: Population, alphas: Sequence[float], split: Split, statistics: Split | None = None
) -> pd.DataFrame:
    """Loss and error of θ(α) on all of `split` for every replica of `start` and every α [E, Fig. 5c].

    statistics: images on which batch norm's statistics are gathered anew at every point; else they are interpolated.
    The table has the columns of `start` and `alpha`, `loss` (nats), `error`, `accuracy` (0 … 1).
    """
    tables = []
    for alpha in alphas:
        point = interpolate(start, end, alpha)
        point = reestimate(point, statistics) if statistics else point
        tables.append(point.evaluate(split).assign(alpha=alpha))
    return pd.concat(tables, ignore_index=True)


def now(measure: Callable[..., pd.DataFrame], *args: Any) -> pd.DataFrame:
    """What a measure gives, kept nowhere; a chapter's `measure` keeps it."""
    return measure(*args)


def piecewise(
    networks: Sequence[Population],
    alphas: Sequence[float],
    split: Split,
    statistics: Split | None = None,
    measure: Callable[..., pd.DataFrame] = now,
) -> pd.DataFrame:
    """Loss and error on the straight lines from each of `networks` to the next one, replica by replica [P, Fig. 2].

    The table is that of `line` with two more columns: `leg`, the line's number, and `place`, which is leg + α.
    measure: measures each line, and may keep what it finds (`lth.store.measures`).
    """
    if len(networks) < 2:
        raise UsageError("a path leads through two networks or more")
    legs = [
        measure(line, one.label(leg=leg), other, list(map(float, alphas)), split, statistics)
        for leg, (one, other) in enumerate(zip(networks[:-1], networks[1:], strict=True))
    ]
    return pd.concat(legs, ignore_index=True).assign(place=lambda table: table.leg + table.alpha)


def barrier(line: pd.DataFrame, by: Sequence[str], value: str = "error") -> pd.DataFrame:
    """Height of the barrier on each line: max over α in 0 … 1 of value(α) − [(1 − α)·value(0) + α·value(1)].

    `by` are the columns that tell the lines of the table apart. Returns a row per line: `by` and `barrier`,
    in the units of `value`, at least 0; nan where the line has a nan. Raises UsageError where a line lacks α = 0 or
    α = 1, or where `by` leaves two lines together.
    """

    def height(points: pd.DataFrame) -> float:
        path = points.set_index("alpha")[value]
        if 0 not in path.index or 1 not in path.index:
            raise UsageError("a barrier is measured between the end points: alphas must hold 0 and 1")
        if path.index.has_duplicates:
            raise UsageError(f"{', '.join(by)} do not tell the lines apart: name more columns in `by`")
        path = path[(path.index >= 0) & (path.index <= 1)]
        chord = (1 - path.index) * path[0] + path.index * path[1]
        return float((path - chord).max(skipna=False))

    lines = line.groupby(list(by), sort=False, dropna=False)
    return pd.DataFrame([{**dict(zip(by, key, strict=True)), "barrier": height(points)} for key, points in lines])
