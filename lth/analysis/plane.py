"""Two-dimensional slices of the loss and error landscape through three networks [P, Figs. 3 and 6]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lth.data import Split
from lth.errors import UsageError
from lth.population import Population

TOGETHER = 32  # networks that are evaluated at a time


@dataclass(frozen=True)
class Plane:
    """The plane through three networks of each replica.

    corners: (R, 3, 2) float64, the coordinates of `origin`, `first` and `second`. The first axis points from the origin
    to the first network, the second is at right angles to it (Gram-Schmidt); lengths are Euclidean distances in the
    prunable weights. `through` makes one.
    """

    origin: Population
    first: Population
    second: Population
    corners: Tensor

    def at(self, replica: int, points: np.ndarray) -> Population:
        """The networks of one replica at `points`, (N, 2): N rows, with the columns `x` and `y` in the frame.

        Prunable weights go where the plane goes. Everything else, batch norm's statistics included, is a mean of the
        three networks' inside their triangle; outside, it is that of the nearest point of the triangle [P, App. B].
        """
        corners, points = self.corners[replica].cpu().numpy(), np.asarray(points, float)
        free = np.linalg.solve((corners[1:] - corners[0]).T, points.T).T  # θ = θ₀ + a·(θ₁ − θ₀) + b·(θ₂ − θ₀)
        near = np.linalg.solve((corners[1:] - corners[0]).T, nearest(corners, points).T).T
        ends = [network[[replica]] for network in (self.origin, self.first, self.second)]

        def mixed(kind: Callable[[Population], dict[str, Tensor]], prunable: bool) -> dict[str, Tensor]:
            found = {}
            for name, start in kind(ends[0]).items():
                shares = free if prunable and name in self.origin.masks else near
                a, b = (torch.as_tensor(share).to(start).view(-1, *[1] * (start.ndim - 1)) for share in shares.T)
                found[name] = start + a * (kind(ends[1])[name] - start) + b * (kind(ends[2])[name] - start)
            return found

        frame = ends[0].frame.loc[[0] * len(points)].reset_index(drop=True)
        masks = {name: mask.expand(len(points), *mask.shape[1:]) for name, mask in ends[0].masks.items()}
        return replace(
            ends[0],
            params=mixed(lambda network: network.params, True),
            buffers=mixed(lambda network: network.buffers, False),
            masks=masks,
            frame=frame.assign(x=points[:, 0], y=points[:, 1]),
        )

    def grid(self, replica: int, points: int = 51, margin: float = 0.5, square: bool = False) -> np.ndarray:
        """A grid around the three networks: (points², 2), row by row.

        `margin` is what lies outside them on each side, as a share of the side of the rectangle that they span. Both
        sides are made as long as the longer one if `square`, for pictures with one scale in both directions.
        """
        corners = self.corners[replica].cpu().numpy()
        low, high = corners.min(0), corners.max(0)
        sides = np.full(2, (high - low).max()) if square else high - low
        (left, bottom), (right, top) = (low + high) / 2 + np.outer([-1, 1], (0.5 + margin) * sides)
        x, y = np.meshgrid(np.linspace(left, right, points), np.linspace(bottom, top, points))
        return np.stack([x.ravel(), y.ravel()], axis=1)

    def evaluate(self, split: Split, points: int = 51, margin: float = 0.5, square: bool = False) -> pd.DataFrame:
        """Loss and error on `split` on the `grid` of each replica: columns of `origin`, `replica`, `x`, `y`, `loss`,
        `error`, `accuracy`."""
        tables = []
        for replica in range(len(self.origin)):
            grid = self.grid(replica, points, margin, square)
            for some in np.array_split(grid, -(-len(grid) // TOGETHER)):
                tables.append(self.at(replica, some).evaluate(split, TOGETHER).assign(replica=replica))
        return pd.concat(tables, ignore_index=True)


def through(origin: Population, first: Population, second: Population) -> Plane:
    """The plane through three networks of each replica, whose masks `origin` holds.

    Raises UsageError where they lie on one line, or are of several models or numbers. A plane through a network that
    failed in training is nowhere: its corners are nan, and so is all that is evaluated on it.
    """
    others = (first, second)
    if any(other.model != origin.model or len(other) != len(origin) for other in others):
        raise UsageError("a plane goes through three networks of one model for each replica: as many of each")
    if any((other.masks[n] & ~mask).any() for other in others for n, mask in origin.masks.items()):
        raise UsageError("the plane leaves the sparse networks: the mask of `origin` must hold those of the other two")
    one, two = (_prunable(other) - _prunable(origin) for other in others)
    length = one.norm(dim=1)
    along = (one * two).sum(1) / length
    across = (two - along[:, None] * one / length[:, None]).norm(dim=1)
    flat = ~((length > 0) & (across > 1e-6 * length)) & (one + two).isfinite().all(1)
    if flat.any():
        seed = origin.seeds[int(flat.long().argmax())]
        raise UsageError(f"the three networks of seed {seed} lie on one line (or two are the same): no plane is theirs")
    zero = torch.zeros_like(length)
    corners = torch.stack([torch.stack(xy, 1) for xy in ((zero, zero), (length, zero), (along, across))], 1)
    return Plane(origin, first, second, corners)


def _prunable(population: Population) -> Tensor:
    """The prunable weights of each replica: (R, n) float64."""
    return torch.cat([population.params[n].flatten(1) for n in population.masks], dim=1).double()


def nearest(corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Of each point, (N, 2), the nearest one of the triangle with these corners, (3, 2): itself if it lies inside."""
    edges = np.roll(corners, -1, axis=0) - corners
    shares = np.einsum("ned,ed->ne", points[:, None] - corners, edges) / (edges**2).sum(1)
    feet = corners + shares.clip(0, 1)[..., None] * edges  # the nearest point of each edge
    best = ((points[:, None] - feet) ** 2).sum(2).argmin(1)
    side = edges[:, 0] * (points[:, None, 1] - corners[:, 1]) - edges[:, 1] * (points[:, None, 0] - corners[:, 0])
    inside = (side >= 0).all(1) | (side <= 0).all(1)
    return np.where(inside[:, None], points, feet[np.arange(len(points)), best])
