"""Matching, connected, stable and robust networks, and the set around one in which pruning must stay [P, Sec. 2].

The LCS-set (linearly connected sublevel set) of a network are all networks that are no worse than it, up to ε, and that
a straight line without a barrier joins to it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lth import seeds as streams
from lth.analysis import landscape
from lth.data import Split
from lth.errors import UsageError
from lth.methods import prune
from lth.population import Population

RATIOS = tuple(tenth / 10 for tenth in range(1, 10))


def epsilon(errors: Sequence[float]) -> float:
    """ε: the standard deviation (n − 1) of the errors of dense networks that were trained independently, nan left out.

    Raises UsageError for fewer than two of them, and where all are the same: nothing would ever match.
    """
    found = np.asarray(errors, dtype=float)
    found = found[~np.isnan(found)]
    if len(found) < 2 or not np.isfinite(found).all():
        raise UsageError(f"ε is a standard deviation: it needs two errors or more, not {found.tolist()}")
    if not (spread := float(found.std(ddof=1))) > 0:
        raise UsageError(
            f"all {len(found)} dense networks have the error {found[0]:g}, so ε is 0 and nothing can be "
            "measured in it: train more of them (seeds), or in another way (steps, lr)"
        )
    return spread


def is_matching(errors: Sequence[float], dense: Sequence[float] | float, epsilon: float) -> np.ndarray:
    """Whether each error is at most ε above that of the dense network: (R,) bool [P, Def. 2.2].

    Where an error is nan, as of a network that failed in training, so is the answer; all are then 1, 0 or nan.
    """
    above = np.asarray(errors, float) - np.asarray(dense)
    return _known(np.asarray(errors) <= np.asarray(dense) + epsilon, above)


def _known(answers: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """The answers as they are; as 1, 0 and nan if something `measured` is nan."""
    unknown = np.isnan(measured)
    return np.where(unknown, np.nan, answers) if unknown.any() else answers


def _line(one: Population, other: Population, split: Split, points: int) -> pd.DataFrame:
    """Error on the straight line between two networks of each replica, which `replica` tells apart."""
    return landscape.line(one.label(replica=range(len(one))), other, np.linspace(0, 1, points), split)


def error_barrier(one: Population, other: Population, split: Split, points: int = 11) -> np.ndarray:
    """How far the error rises above the chord between the two ends: (R,), at least 0 [P, Def. 2.1]."""
    return landscape.barrier(_line(one, other, split, points), ["replica"])["barrier"].to_numpy()


def is_stable(one: Population, other: Population, split: Split, epsilon: float, points: int = 11) -> np.ndarray:
    """Whether two trained copies of each network are linearly connected: (R,) bool.

    Copies that saw the images in other orders: stability [P, Def. 2.3]. Copies of which one started from `perturb`:
    robustness [P, Def. 3.1]. nan where one of them failed, as in `is_matching`.
    """
    heights = error_barrier(one, other, split, points)
    return _known(heights <= epsilon, heights)


def in_lcs_set(center: Population, other: Population, split: Split, epsilon: float, points: int = 11) -> np.ndarray:
    """Whether `other` is in the LCS-set of `center`, replica by replica: (R,) bool [P, Def. 2.4].

    nan where one of them failed, as in `is_matching`.
    """
    line = _line(center, other, split, points)
    ends = [line.loc[line.alpha == alpha, "error"].to_numpy() for alpha in (0, 1)]
    heights = landscape.barrier(line, ["replica"])["barrier"].to_numpy()
    return _known((ends[1] <= ends[0] + epsilon) & (heights <= epsilon), heights)


def perturb(population: Population, lengths: Sequence[float] | Tensor, number: int = 0) -> Population:
    """θ + v with v drawn uniformly from the sphere of the radius given for each replica [P, Def. 3.1].

    v lives on the prunable weights that the mask keeps. A replica's `seed` and `number` say which v it is.
    """
    lengths = torch.as_tensor(lengths, dtype=torch.float64).cpu()
    known = (lengths.isfinite() & (lengths >= 0)) | torch.as_tensor(~population.sound())
    if lengths.shape != (len(population),) or not known.all():
        raise UsageError(f"a perturbation has one length of at least 0 for each of {len(population)} replicas")
    generators = [streams.torch_stream(seed, streams.PERTURB, number) for seed in population.seeds]
    drawn = {}
    for name, mask in population.masks.items():
        rows = [torch.randn(mask[0].shape, generator=generator, dtype=torch.float64) for generator in generators]
        drawn[name] = torch.stack(rows) * mask.cpu()
    norms = torch.stack([v.flatten(1).square().sum(1) for v in drawn.values()]).sum(0).sqrt()
    params = dict(population.params)
    for name, v in drawn.items():
        scale = (lengths / norms).view(-1, *[1] * (v.ndim - 1))
        params[name] = (params[name].double() + (scale * v).to(params[name].device)).to(params[name].dtype)
    return Population(population.model, params, population.masks, population.buffers, population.frame)


def batch_spread(population: Population, split: Split, batch_size: int) -> np.ndarray:
    """Standard deviation of each replica's loss over random batches of `split`, which have no image in common: (R,)."""
    count = len(split) // batch_size
    if count < 2:
        raise UsageError(f"{len(split)} images make {count} batches of {batch_size}: a spread needs two or more")
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(split))).to(split.labels.device)
    batches = order[: count * batch_size].split(batch_size)  # an image folder is sorted by class
    losses = [_loss(population, Split(split.images[rows], split.labels[rows])) for rows in batches]
    return np.std(losses, axis=0, ddof=1)


@dataclass(frozen=True)
class Adaptive:
    """A rule for `imp.ladder`: prune as much as the training loss allows, but never less than `least` [P, App. F].

    limits:  (R,) training loss on `split` that a network must not exceed on the line to its pruned self; [P] takes the
             dense network's loss plus the spread of its loss over batches. Of 10 %, 20 %, …, 90 % the last before one
             exceeds it is taken.
    density: the share of all prunable weights at which pruning ends.
    points:  places on each line where the loss is computed.
    """

    split: Split
    limits: Sequence[float]
    least: float = 0.2
    density: float = 0.0
    points: int = 4

    def __call__(self, solution: Population) -> list[float]:
        """The ratio for each of the networks to be pruned."""
        if len(self.limits) != len(solution):
            raise UsageError(f"{len(self.limits)} limits for {len(solution)} networks: give one each")
        chosen, still = np.zeros(len(solution)), np.ones(len(solution), bool)
        for ratio in RATIOS:
            with warnings.catch_warnings(action="ignore"):  # of layers that would run empty
                pruned = prune.apply(solution, prune.magnitude_masks(solution, ratio))
            alphas = np.linspace(0, 1, self.points + 1)[1:]
            losses = [_loss(landscape.interpolate(solution, pruned, alpha), self.split) for alpha in alphas]
            still &= np.max(losses, axis=0) <= np.asarray(self.limits)
            chosen[still] = ratio
            if not still.any():
                break
        left = sum(mask.flatten(1).sum(1) for mask in solution.masks.values()).cpu().numpy()
        fewest = round(self.density * sum(mask[0].numel() for mask in solution.masks.values()))
        return np.minimum(np.maximum(chosen, self.least), 1 - np.minimum(fewest / left, 1)).tolist()


def _loss(population: Population, split: Split) -> np.ndarray:
    return population.evaluate(split)["loss"].to_numpy()
