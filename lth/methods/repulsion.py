"""Keeping a network away from solutions it has found before, or drawing it to them [M, Sec. 3]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from lth.errors import UsageError
from lth.population import Population, Tensors


@dataclass(frozen=True)
class Repulsion:
    """J_r(θ) = λ_r/|Θ| · Σ cos²(θ ⊙ m, θ_r ⊙ m) over the optima θ_r in Θ: a penalty in training [M, Sec. 3].

    Only weights that m keeps count, so of every optimum only those are held: n numbers each, ever fewer from round to
    round. Biases and batch norm have no part in it.

    strength: (r,) λ_r of each replica: positive repels, negative attracts, 0 is no penalty.
    places:   (r, n) where the kept weights are among all prunable ones, layer after layer.
    optima:   (r, K, n) directions θ_r ⊙ m of length 1; a row of zeros stands for none.
    count:    (r,) |Θ|, how many there are, at least 1.
    """

    strength: Tensor
    places: Tensor
    optima: Tensor
    count: Tensor

    def __call__(self, params: Tensors, masks: Tensors) -> Tensor:
        """J_r of each replica: (r,)."""
        weights = torch.cat([params[name].flatten(1) for name in masks], dim=1).gather(1, self.places)
        length = weights.norm(dim=1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
        cosines = (self.optima @ (weights / length).unsqueeze(2)).squeeze(2)
        return self.strength * cosines.square().sum(1) / self.count

    def __getitem__(self, rows: slice) -> Self:
        return type(self)(self.strength[rows], self.places[rows], self.optima[rows], self.count[rows])

    @property
    def nbytes(self) -> int:
        """Memory that it takes, in bytes."""
        return sum(t.numel() * t.element_size() for t in (self.strength, self.places, self.optima, self.count))


def of(start: Population, optima: Sequence[Population], strength: float | Sequence[float]) -> Repulsion:
    """The repulsion of each replica from its own earlier solutions.

    start:    the networks to be trained; their masks are m. Each replica must keep as many weights as the others.
    optima:   populations in the order of `start`; [] is no penalty. `[-1:]` of all repels from the last one only.
    strength: λ_r, the same for all or one for each replica. [M] takes 2 to repel and −1 to attract.
    """
    kept = _prunable(start.masks)
    if len(counts := set(kept.sum(1).tolist())) > 1:
        raise UsageError(f"replicas repelled together keep equally many weights, not {min(counts)} and {max(counts)}")
    for other in optima:
        if other.model != start.model or len(other) != len(start):
            raise UsageError("every replica is repelled from solutions of its own: as many, of the same architecture")
    places = kept.nonzero()[:, 1].view(len(start), -1)
    weights = [_prunable({n: other.params[n] for n in start.masks}).gather(1, places) for other in optima]
    like = next(iter(start.params.values()))
    directions = torch.stack(weights, 1) if weights else like.new_zeros(len(start), 0, places.shape[1])
    lengths = directions.norm(dim=2, keepdim=True)
    lambdas = torch.as_tensor(strength, dtype=like.dtype, device=like.device).expand(len(start)).clone()
    count = (lengths[..., 0] > 0).sum(1).clamp_min(1)
    return Repulsion(lambdas, places, directions / lengths.clamp_min(torch.finfo(like.dtype).tiny), count)


def _prunable(tensors: Tensors) -> Tensor:
    return torch.cat([t.flatten(1) for t in tensors.values()], dim=1)
