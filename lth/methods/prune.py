"""Magnitude pruning: at once, or gradually during training; and rewinding a pruned network.

A layer of n weights at sparsity s keeps its max(1, round(n·(1 − s))) largest magnitudes. Ties go to the
weight that comes first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lth.data import Data
from lth.errors import UsageError
from lth.population import Population, Tensors


def kept(n: int, sparsity: float) -> int:
    """How many of `n` weights remain at `sparsity`: max(1, round(n·(1 − sparsity)))."""
    return max(1, round(n * (1 - sparsity)))


def largest(scores: Tensor, count: int | Tensor) -> Tensor:
    """(r, n) scores → (r, n) bool, True for the `count` largest of each row; the first of equals wins.

    `count` is one number for all rows, or one each, (r,).
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    first = torch.arange(scores.shape[1], device=scores.device) < torch.as_tensor(count).to(scores.device).view(-1, 1)
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, first.expand_as(scores))


def check_sparsity(sparsity: float) -> None:
    """Raises UsageError where `sparsity` is none."""
    if not 0 <= sparsity < 1:
        raise UsageError(f"sparsity is the fraction of zeros, at least 0 and below 1, not {sparsity}")


def magnitude_masks_per_layer(population: Population, sparsity: float) -> Tensors:
    """Every prunable layer at the same sparsity: name → (R, *shape) bool. Pruned weights stay pruned."""
    check_sparsity(sparsity)
    masks = {}
    for name, old in population.masks.items():
        scores = population.params[name].abs().masked_fill(~old, -1).flatten(1)
        masks[name] = largest(scores, kept(scores.shape[1], sparsity)).view_as(old) & old
    return masks


def magnitude_masks_global(population: Population, sparsity: float) -> Tensors:
    """One ranking over all prunable layers of a replica: name → (R, *shape) bool. Pruned stays pruned."""
    check_sparsity(sparsity)
    old = torch.cat([m.flatten(1) for m in population.masks.values()], dim=1)
    scores = torch.cat([population.params[n].abs().flatten(1) for n in population.masks], dim=1)
    new = largest(scores.masked_fill(~old, -1), kept(old.shape[1], sparsity)) & old
    parts = new.split([m[0].numel() for m in population.masks.values()], dim=1)
    return {n: part.view_as(m) for (n, m), part in zip(population.masks.items(), parts, strict=True)}


def apply(population: Population, masks: Tensors) -> Population:
    """The population under new masks: what they hide is set to zero."""
    params = {n: p * masks[n] if n in masks else p for n, p in population.params.items()}
    return replace(population, params=params, masks=masks)


def rewind(pruned: Population, weights: Population) -> Population:
    """`weights` under the masks of `pruned`: θ_K ⊙ m, with the frame of `weights`.

    With the pruning run's own early weights this makes a lottery ticket, with other initial weights a network
    to train from scratch, with the pruned weights themselves a restart of training. A single pruned network
    serves all of `weights`; otherwise replica i takes mask i. Batch-norm statistics are those of `weights`.
    """
    if pruned.model != weights.model:
        raise UsageError(f"masks of {pruned.model} do not fit {weights.model}")
    if len(pruned) not in (1, len(weights)):
        raise UsageError(f"{len(pruned)} pruned networks for {len(weights)} sets of weights: give one, or one each")
    if len(pruned) < len(weights):
        pruned = pruned.repeat(len(weights))
    return apply(weights, pruned.masks)


@dataclass(frozen=True)
class Gradual:
    """Gradual magnitude pruning, a mask update for `train` [Zhu and Gupta 2018; E].

    Per-layer sparsity after step t of start, start + every, …, end:
    s_t = s·(1 − (1 − (t − start)/(end − start))³). Masks only shrink.
    """

    sparsity: float
    start: int
    end: int
    every: int

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        if not (0 <= self.start < self.end and self.every > 0):
            raise UsageError(f"gradual pruning needs 0 ≤ start < end and every > 0, not {self}")

    def at(self, step: int) -> float:
        """Sparsity that the schedule asks for after `step` steps."""
        done = min(max((step - self.start) / (self.end - self.start), 0.0), 1.0)
        return self.sparsity * (1 - (1 - done) ** 3)

    def due(self, step: int) -> bool:
        """Whether the masks shrink after `step` steps; the end always counts."""
        return step == self.end or (self.start <= step < self.end and (step - self.start) % self.every == 0)

    def masks(self, population: Population, step: int, data: Data) -> Tensors:
        """The masks after `step` steps."""
        return magnitude_masks_per_layer(population, self.at(step))
