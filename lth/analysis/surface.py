"""The loss around a network: along one direction, and in a plane of two, in its weights or in its input."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from lth import seeds as streams
from lth.data import Split
from lth.errors import UsageError
from lth.parallel import map_replicas
from lth.population import BATCH, Population


def filter_normalised(population: Population, number: int = 0) -> Tensor:
    """A random direction for each replica, (R, P), in which every filter is as long as that of the weights.

    Only so can sharpness be compared between networks whose weights differ in size [Li et al. 2018]. A filter is what
    makes one output channel or neuron. Zero where weights are pruned, for biases and for batch norm. The weights of
    extra skips move too, and those of the others by the same numbers as without them. A replica's `seed` and `number`
    say which direction it is.
    """
    prunable, extra = (
        [streams.torch_stream(seed, streams.DIRECTION, number, part) for seed in population.seeds] for part in (0, 1)
    )
    parts = []
    for name, weight in population.params.items():
        if weight.ndim < 3:
            parts.append(torch.zeros_like(weight))
            continue
        mask = population.masks.get(name, torch.ones_like(weight, dtype=torch.bool))
        generators = prunable if name in population.masks else extra
        drawn = torch.stack([torch.randn(weight.shape[1:], generator=generator) for generator in generators])
        filters = drawn.to(weight) * mask
        length, own = (tensor.flatten(2).norm(dim=2) for tensor in (filters, weight))
        scale = own / length.clamp_min(torch.finfo(weight.dtype).tiny)
        parts.append((filters * scale.view(*scale.shape, *[1] * (weight.ndim - 2))).flatten(1))
    return torch.cat(parts, dim=1)


def surface(
    population: Population, first: Tensor, second: Tensor, xs: Sequence[float], ys: Sequence[float], split: Split
) -> pd.DataFrame:
    """Loss and error of θ + x·u + y·v on `split`; `first` and `second` are u and v of each replica, (R, P).

    A row per replica and point: the columns of the frame, `x`, `y`, `loss` (nats), `error` and `accuracy` (0 … 1).
    """
    theta = population.theta()
    if first.shape != theta.shape or second.shape != theta.shape:
        raise UsageError(f"directions have a row of θ for each replica, {tuple(theta.shape)}, not {tuple(first.shape)}")

    def look(rows: slice) -> pd.DataFrame:
        some, centre, u, v = population[rows], theta[rows], first[rows], second[rows]
        points = (some.with_theta(centre + x * u + y * v).evaluate(split).assign(x=x, y=y) for y in ys for x in xs)
        return pd.concat(points)

    return pd.concat(population.in_parts(look, images=min(len(split), BATCH["cuda"])), ignore_index=True)


def rise(table: pd.DataFrame, who: Sequence[str], column: str) -> pd.Series:
    """How much higher `column` is on average over the points of `surface` or `input_surface` than in the middle.

    For each network, which the columns `who` name. Of the error this is blind to the size of logits.
    """
    return table.groupby(list(who))[column].mean() - middle(table, who, column)


def middle(table: pd.DataFrame, who: Sequence[str], column: str) -> pd.Series:
    """What `column` is of the networks themselves."""
    return table[(table.x.abs() < 1e-9) & (table.y.abs() < 1e-9)].set_index(list(who))[column]


def along(population: Population, direction: Tensor, distances: Sequence[float], split: Split) -> pd.DataFrame:
    """Loss and error of θ + t·v on `split`, v of length 1 along `direction`, (R, P), such as an eigenvector of the
    Hessian [J, Fig. 10]. The table has the column `distance` for t."""
    unit = direction / direction.norm(dim=1, keepdim=True)
    table = surface(population, unit, torch.zeros_like(unit), distances, [0.0], split)
    return table.rename(columns={"x": "distance"}).drop(columns="y")


@torch.no_grad()
def input_surface(population: Population, split: Split, xs: Sequence[float], ys: Sequence[float]) -> pd.DataFrame:
    """Mean loss and error on images that are moved by x·u + y·v, for every replica [J, Fig. 8].

    u and v are random signs, of each image its own and the same for all replicas, so that x and y are how much the
    brightness of each pixel changes, which goes from 0 to 1. Rows as in `surface`, without `accuracy`.
    """
    each = torch.arange(len(split), device=split.labels.device)
    images, dtype = split.pixels(each), next(iter(population.params.values())).dtype
    signs = torch.stack(
        [
            torch.randint(0, 2, (2, *images.shape[1:]), generator=streams.torch_stream(r, streams.DIRECTION)) * 2 - 1
            for r in range(len(split))
        ],
        dim=1,
    ).to(images)
    if split.std is not None:  # networks see brightness in these units
        signs = signs / split.std.view(-1, 1, 1)

    def look(replica: int) -> pd.DataFrame:
        module, rows = population.module(replica).eval(), []
        for y in ys:
            for x in xs:
                with torch.no_grad():
                    logits = module((images + x * signs[0] + y * signs[1]).to(dtype))
                loss = F.cross_entropy(logits, split.labels).item()
                rows.append((x, y, loss, (logits.argmax(1) != split.labels).double().mean().item()))
        row = population.frame.iloc[[replica] * len(rows)].reset_index(drop=True)
        return row.assign(**dict(zip(("x", "y", "loss", "error"), map(list, zip(*rows, strict=True)), strict=True)))

    return pd.concat(map_replicas(look, range(len(population))), ignore_index=True)
