"""Pruning by magnitude, at random or by other scores, at once or gradually in training; and rewinding.

A layer of n weights at sparsity s keeps its max(1, round(n·(1 − s))) largest magnitudes. Ties go to the
weight that comes first.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lth import seeds as streams
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


def down_to(population: Population, scores: Tensors, left: Sequence[int]) -> Tensors:
    """Masks with exactly so many weights left of each replica, over all layers together, see `without_lowest`.

    A replica with fewer weights keeps its mask.
    """
    now = population.weights_left().tolist()
    return without_lowest(population, scores, [max(0.0, 1 - want / own) for want, own in zip(left, now, strict=True)])


def without_lowest(
    population: Population, scores: Tensors, ratio: float | Sequence[float], per_layer: bool = False
) -> Tensors:
    """Masks without the share `ratio` of the weights left, those that score lowest: name → (R, *shape) bool.

    scores: name → (R, *shape) for each prunable parameter. ratio: one for all replicas, or one for each.
    Of r weights round(ratio·r) go, as with `torch.nn.utils.prune`; ranked over all prunable layers of a replica, or
    within each. Of equal scores the one that comes last goes first. A layer that runs empty is told in a warning.
    Raises UsageError for a ratio outside 0 … 1 and for scores that are not numbers, except those of a replica that is
    not `Population.sound`: its masks are any.
    """
    ratios = [ratio] * len(population) if isinstance(ratio, (int, float)) else [float(share) for share in ratio]
    if len(ratios) != len(population) or not all(0 <= share < 1 for share in ratios):
        raise UsageError(f"a ratio is a share of the weights left, one for all or one each, not {ratio}")
    failed = torch.as_tensor(~population.sound(), device=population.device)  # whose masks do not matter
    scores = {n: scores[n].masked_fill(failed.view(-1, *[1] * (scores[n].ndim - 1)), 0) for n in population.masks}
    if strange := [name for name in population.masks if not scores[name].isfinite().all()]:
        raise UsageError(f"scores of {', '.join(strange)} are not numbers: nothing can be ranked by them")
    names, masks = list(population.masks), {}
    for part in [[name] for name in names] if per_layer else [names]:
        left = torch.cat([population.masks[n].flatten(1) for n in part], dim=1)
        ranked = torch.cat([scores[n].flatten(1) for n in part], dim=1).masked_fill(~left, -torch.inf)
        counts = torch.tensor([r - round(share * r) for r, share in zip(left.sum(1).tolist(), ratios, strict=True)])
        new = (largest(ranked, counts) & left).split([population.masks[n][0].numel() for n in part], dim=1)
        masks |= {n: m.view_as(population.masks[n]) for n, m in zip(part, new, strict=True)}
    for name, before in population.masks.items():
        lost = before.flatten(1).any(1) & ~masks[name].flatten(1).any(1) & ~failed
        if lost.any():
            seeds = [population.seeds[r] for r in lost.nonzero()[:, 0].tolist()]
            warnings.warn(
                f"{name} has no weights left (seed {', '.join(map(str, seeds))}): nothing gets through it any more. "
                "Prune per layer, or less",
                stacklevel=3,
            )
    return masks


def magnitude_masks(population: Population, ratio: float | Sequence[float], per_layer: bool = False) -> Tensors:
    """Masks without the smallest of the weights that are left, see `without_lowest`."""
    return without_lowest(population, {n: population.params[n].abs() for n in population.masks}, ratio, per_layer)


def masks_of_largest(weights: Population, like: Population) -> Tensors:
    """Masks of the largest of `weights`, as many in every layer as `like` keeps there: name → (R, *shape) bool.

    With the initial weights, and a ticket for `like`, this is the control that has seen no training: what a ticket owes
    to the size of its first weights and to how many each layer has. The weights' own masks have no part in it.
    """
    if weights.model != like.model or len(weights) != len(like):
        raise UsageError("masks are counted replica by replica: as many of one as of the other, of one architecture")
    sizes = {name: weights.params[name].abs().flatten(1) for name in like.masks}
    return {name: largest(sizes[name], mask.flatten(1).sum(1)).view_as(mask) for name, mask in like.masks.items()}


def masks_at_random(population: Population, ratio: float | Sequence[float], number: int = 0) -> Tensors:
    """Masks without a random share of the weights that are left, see `without_lowest`.

    A replica's `seed` and `number` decide; with the same ones, masks of two ratios lie within each other.
    """
    scores = {}
    for layer, (name, mask) in enumerate(population.masks.items()):
        generators = [streams.torch_stream(seed, streams.MASK, layer, number) for seed in population.seeds]
        drawn = torch.stack([torch.rand(mask[0].shape, generator=generator) for generator in generators])
        scores[name] = drawn.to(mask.device)
    return without_lowest(population, scores, ratio)


def apply(population: Population, masks: Tensors) -> Population:
    """The population under new masks: what they hide is set to zero."""
    params = {n: p * masks[n] if n in masks else p for n, p in population.params.items()}
    return replace(population, params=params, masks=masks)


def rewind(pruned: Population, weights: Population) -> Population:
    """`weights` under the masks of `pruned`: θ_K ⊙ m, with the frame of `weights`.

    With the pruning run's own early weights this makes a lottery ticket, with other initial weights a network
    to train from scratch, with the pruned weights themselves a restart of training. A single pruned network
    serves all of `weights`; otherwise replica i takes mask i. Batch-norm statistics are those of `weights`. The mask of
    a network that is not `sound` says nothing: what is made with it is nan, too.
    """
    if pruned.model != weights.model:
        raise UsageError(f"masks of {pruned.model} do not fit {weights.model}")
    if len(pruned) not in (1, len(weights)):
        raise UsageError(f"{len(pruned)} pruned networks for {len(weights)} sets of weights: give one, or one each")
    if len(pruned) < len(weights):
        pruned = pruned.repeat(len(weights))
    return apply(weights, pruned.masks).without(~pruned.sound())


@dataclass(frozen=True)
class Gradual:
    """Gradual magnitude pruning, a mask update for `train` [Zhu and Gupta 2018; E].

    Per-layer sparsity after step t of start, start + every, …, end:
    s_t = s·(1 − (1 − (t − start)/(end − start))³). Masks only shrink. The layer named `dense`, if
    any, keeps all that it has.
    """

    sparsity: float
    start: int
    end: int
    every: int
    dense: str = ""

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
        masks = magnitude_masks_per_layer(population, self.at(step))
        return {name: population.masks[name] if name == self.dense else mask for name, mask in masks.items()}
