"""Matching, connected, stable and robust networks, and the set around one in which pruning must stay [P, Sec. 2].

The LCS-set (linearly connected sublevel set) of a network are all networks that are no worse than it, up to ε, and that
a straight line without a barrier joins to it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import stats
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


def epsilon_interval(errors: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Between which values ε lies, if the errors are normal: from the distribution of a sample's variance, χ²."""
    found, free = epsilon(errors), len(errors) - 1
    tails = stats.chi2.ppf([(1 + level) / 2, (1 - level) / 2], free)
    return tuple(float(end) for end in found * np.sqrt(free / tails))


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


def measured(line: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """What the definitions ask of lines between two networks: `by`, which tells the lines apart, `barrier` [P, Def.
    2.1], and `start` and `end`, the error of the two; in the units of the column `error` of `landscape.line`."""
    table = landscape.barrier(line, by)
    for name, alpha in (("start", 0), ("end", 1)):
        table = table.merge(line.loc[line.alpha == alpha, [*by, "error"]].rename(columns={"error": name}), on=list(by))
    return table


def segments(
    one: Population,
    other: Population,
    split: Split,
    points: int = 11,
    statistics: Split | None = None,
    measure: Callable[..., pd.DataFrame] = landscape.now,
) -> pd.DataFrame:
    """The straight line between two networks of each replica: a row of `measured` each, errors from 0 to 1.

    `replica` is its number, `distance` that of the two networks in all parameters. statistics: images on which batch
    norm's statistics are gathered anew at every point, the ends too; else they are interpolated. measure: measures the
    line, and may keep what it finds (`lth.store.measures`).
    """
    alphas, start = np.linspace(0, 1, points).tolist(), one.label(replica=range(len(one)))
    line = measure(landscape.line, start, other, alphas, split, statistics)
    distance = (other.theta() - one.theta()).norm(dim=1).cpu().numpy()
    return measured(line, ["replica"]).assign(distance=distance)


def error_barrier(
    one: Population, other: Population, split: Split, points: int = 11, statistics: Split | None = None
) -> np.ndarray:
    """How far the error rises above the chord between the two ends: (R,), at least 0 [P, Def. 2.1]."""
    return segments(one, other, split, points, statistics)["barrier"].to_numpy()


def is_stable(found: pd.DataFrame, epsilon: float) -> np.ndarray:
    """Whether two trained copies of each network are linearly connected, from their `segments`: (R,) bool.

    Copies that saw the images in other orders: stability [P, Def. 2.3]. Copies of which one started from `perturb`:
    robustness [P, Def. 3.1]. ε is in the units of the table. nan where one of them failed, as in `is_matching`.
    """
    heights = found["barrier"].to_numpy()
    return _known(heights <= epsilon, heights)


def in_lcs_set(found: pd.DataFrame, epsilon: float) -> np.ndarray:
    """Whether the end of each of the `segments` is in the LCS-set of its start: (R,) bool [P, Def. 2.4].

    nan where one of them failed, as in `is_matching`.
    """
    heights = found["barrier"].to_numpy()
    return _known((found["end"].to_numpy() <= found["start"].to_numpy() + epsilon) & (heights <= epsilon), heights)


def radius(line: pd.DataFrame, by: Sequence[str], epsilon: float) -> pd.DataFrame:
    """How far along each line from a network its error stays within ε of its own: the reach of its LCS-set there.

    line: as from `landscape.line`, with `distance` from the network in place of α and `error` in the units of ε; `by`
    tells the lines apart. Where the error has risen too far between two points, the line between these is straight.
    Returns `by` and `radius`; the last distance where the line ends inside, which `inside` tells. nan where an error
    is.
    """
    rows = []
    for key, points in line.groupby(list(by), sort=False):
        points = points.sort_values("distance")
        away, rise = points["distance"].to_numpy(), points["error"].to_numpy() - points["error"].iloc[0] - epsilon
        out = int((rise > 0).argmax()) if (rise > 0).any() else 0
        share = -rise[out - 1] / (rise[out] - rise[out - 1]) if out else 1.0
        end = away[out - 1] + share * (away[out] - away[out - 1]) if out else away[-1]
        told = {"radius": end, "inside": not out} if not np.isnan(rise).any() else {"radius": np.nan, "inside": False}
        rows.append({**dict(zip(by, key, strict=True)), **told})
    return pd.DataFrame(rows)


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
    losses = [_loss(population, split.take(rows)) for rows in batches]
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
