"""How much the solutions of successive pruning rounds have in common [M, Sec. 4.1, App. B]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lth.errors import UsageError
from lth.population import Population

Measure = Literal["angle", "cosine", "euclidean"]


def distances(rounds: Sequence[Population], measure: Measure = "angle") -> Tensor:
    """Distance between the networks of every two rounds, replica by replica: (R, L, L) float64.

    Two networks are compared in the weights that both masks keep, m = m₁ ⊙ m₂; biases and batch norm have no part.
    "angle": 2·∠(θ₁ ⊙ m, θ₂ ⊙ m)/π, which is 0 for networks that differ in scale only and near 1 for unrelated ones.
    "cosine": 1 − cos. "euclidean": the length of the difference. NaN where nothing is shared, and for
    networks that failed in training. The dense initialisation
    may be one of the rounds; [M] puts it last.
    """
    first = rounds[0]
    if any(other.model != first.model or len(other) != len(first) for other in rounds):
        raise UsageError("rounds are compared replica by replica: as many in each, of one architecture")
    if measure not in ("angle", "cosine", "euclidean"):
        raise UsageError(f"measure is 'angle', 'cosine' or 'euclidean', not {measure!r}")
    found = []
    for r in range(len(first)):
        rows = [(torch.cat([p.params[n][r].flatten() for n in p.masks]), _mask(p, r)) for p in rounds]
        masks = torch.stack([mask for _, mask in rows]).double()
        weights = torch.stack([row for row, _ in rows]).double() * masks
        squares, products = weights.square() @ masks.T, weights @ weights.T  # ‖θ_i ⊙ m_j‖², and over m_i ⊙ m_j
        cosine = (products / (squares * squares.T).sqrt()).clamp(-1, 1)
        cosine.fill_diagonal_(1)  # exactly
        if measure == "euclidean":
            distance = (squares + squares.T - 2 * products).clamp_min(0).sqrt()
        else:
            distance = 1 - cosine if measure == "cosine" else 2 / math.pi * cosine.acos()
        failed = weights.isnan().any(1)
        found.append(distance.masked_fill((masks @ masks.T == 0) | failed | failed[:, None], math.nan))
    return torch.stack(found)


def _mask(population: Population, r: int) -> Tensor:
    return torch.cat([mask[r].flatten() for mask in population.masks.values()])
