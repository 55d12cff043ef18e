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


def along(population: Population, direction: Tensor, distances: Sequence[float], split: Split) -> pd.DataFrame:
    """Loss and error of θ + t·v on `split`, v of length 1 along `direction`, (R, P), such as an eigenvector of the
    Hessian [J, Fig. 10]. The table has the column `distance` for t."""
    unit = direction / direction.norm(dim=1, keepdim=True)
    table = surface(population, unit, torch.zeros_like(unit), distances, [0.0], split)
    return table.rename(columns={"x": "distance"}).drop(columns="y")


@torch.no_grad()
def input_surface(
    population: Population, image: Tensor, label: int, xs: Sequence[float], ys: Sequence[float], seed: int = 0
) -> pd.DataFrame:
    """The loss of one image moved by x·u + y·v, for every replica [J, Fig. 8].

    image: (C, H, W), brightness from 0 to 1. u and v are random signs, the same for all replicas, so that x and y are
    how much each pixel changes. Rows as in `surface`, with `loss` only.
    """
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (2, *image.shape), generator=generator).to(image) * 2 - 1
    places = [(x, y) for y in ys for x in xs]
    moved = torch.stack([image + x * signs[0] + y * signs[1] for x, y in places])
    moved = moved.to(next(iter(population.params.values())).dtype)
    tables = []
    for replica in range(len(population)):
        logits = population.module(replica).eval()(moved)
        losses = F.cross_entropy(logits, torch.full((len(moved),), label, device=logits.device), reduction="none")
        row = population.frame.iloc[[replica] * len(places)].reset_index(drop=True)
        tables.append(row.assign(x=[x for x, _ in places], y=[y for _, y in places], loss=losses.tolist()))
    return pd.concat(tables, ignore_index=True)
