"""How close networks are: in weight space, and in what they predict.

Masks are compared replica by replica. The predictions of R networks on N examples are compared for all pairs at once,
as (R, R) matrices; the measures of [E, Table 6] and of Fort et al. (2020) are means over parts of them. Logarithms are
natural.

A network none of whose logits is a number has failed in training. What is measured of it, or of a pair with it, is nan,
and in what is measured of several networks together it has no part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from sklearn.manifold import MDS
from torch import Tensor
from torch.nn import functional as F

from lth.data import Split
from lth.errors import UsageError
from lth.methods import prune
from lth.population import Population, Tensors, classes

ALONE = "accuracy"  # the measure of `among` that every network has for itself


def l2_distances(a: Population, b: Population) -> Tensor:
    """‖θ_a − θ_b‖ of every replica of `a` to every replica of `b`, over all parameters: (R_a, R_b) float64."""
    return torch.cdist(a.theta().double(), b.theta().double(), compute_mode="donot_use_mm_for_euclid_dist")


def overlap(a: Population, b: Population) -> pd.DataFrame:
    """How much of each network's mask is in the mask of its counterpart: the frame of `a` with two more columns.

    `overlap`: the share of the weights that `a` keeps that `b` keeps, too, 0 … 1. `chance`: what it would be if both
    had drawn their weights at random, each as many in every layer as it has there.
    """
    if a.model != b.model or len(a) != len(b):
        raise UsageError("masks are compared replica by replica: as many of one as of the other, of one architecture")
    ours, both, by_chance = 0.0, 0.0, 0.0
    for name, mask in a.masks.items():
        one, other = mask.flatten(1).double(), b.masks[name].flatten(1).double()
        ours, both = ours + one.sum(1), both + (one * other).sum(1)
        by_chance = by_chance + one.sum(1) * other.mean(1)
    return a.frame.assign(overlap=(both / ours).cpu().numpy(), chance=(by_chance / ours).cpu().numpy())


def overlaps(population: Population, masks: Mapping[str, Tensors], of: str) -> pd.DataFrame:
    """The `overlap` of the masks with the name `of` with those of each name, which is in the column `masks`."""
    one = prune.apply(population, masks[of])
    parts = [overlap(one, prune.apply(population, other)).assign(masks=name) for name, other in masks.items()]
    return pd.concat(parts, ignore_index=True)


def mds(population: Population, seed: int = 0) -> pd.DataFrame:
    """The frame with `x`, `y`: a map in which distances are as close to those between the networks as can be.

    Metric multidimensional scaling (scikit-learn's SMACOF, the best of eight starts) of the L2 distances.
    The column `stress` is the normalised stress (Kruskal's stress-1) of the whole map: 0 is perfect. Networks that are
    not `sound` have no place on it.
    """
    sound = population.sound()
    if sound.sum() < 2:
        return population.frame.assign(x=np.nan, y=np.nan, stress=np.nan)
    distances = l2_distances(population[sound], population[sound]).cpu().numpy()
    scaling = MDS(2, metric="precomputed", n_init=8, init="random", random_state=seed, normalized_stress=True)
    places = scaling.fit_transform(distances)
    found = np.full((len(population), 2), np.nan)
    found[sound] = places
    return population.frame.assign(x=found[:, 0], y=found[:, 1], stress=scaling.stress_)


def answers(logits: Tensor) -> Tensor:
    """Whether a network has any logit that is a number: (R, N, K) → (R,) bool."""
    return logits.isfinite().flatten(1).any(1)


def disagreement(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """Fraction of examples to which two networks give different classes: (R_a, N, K), (R_b, N, K) → (R_a, R_b)."""
    a, b = classes(logits_a), classes(logits_b)
    differ = torch.stack([(row != b).double().mean(1) for row in a])
    return differ.masked_fill(~(answers(logits_a)[:, None] & answers(logits_b)), torch.nan)


def kl(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """KL(p_a ‖ p_b) = Σ_k p_a log(p_a/p_b), mean over examples, in nats: (R_a, N, K), (R_b, N, K) → (R_a, R_b)."""
    a, b = F.log_softmax(logits_a.double(), -1), F.log_softmax(logits_b.double(), -1)
    return torch.stack([(row.exp() * (row - b)).sum(-1).mean(1) for row in a])


def jsd(logits: Tensor) -> Tensor:
    """Jensen–Shannon divergence of the R networks together: H(mean_r p_r) − mean_r H(p_r), mean over examples.

    (R, N, K) → 0-dim tensor, in nats, between 0 and log R.
    """
    p = F.softmax(logits[answers(logits)].double(), -1)
    entropy = lambda p: torch.special.entr(p).sum(-1)  # noqa: E731
    return (entropy(p.mean(0)) - entropy(p).mean(0)).mean()


def jsd_pairs(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """Jensen–Shannon divergence of every pair: (R_a, N, K), (R_b, N, K) → (R_a, R_b), in nats."""
    found = torch.stack([torch.stack([jsd(torch.stack([a, b])) for b in logits_b]) for a in logits_a])
    return found.masked_fill(~(answers(logits_a)[:, None] & answers(logits_b)), torch.nan)


def ensemble_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Accuracy of the mean of the R networks' class probabilities: (R, N, K), (N,) → 0 … 1."""
    together = F.softmax(logits[answers(logits)].double(), -1).mean(0)  # nan if there are none
    return float((classes(together) == labels).double().mean()) if answers(logits).any() else math.nan


def calibrated(logits: Tensor, labels: Tensor) -> Tensor:
    """Each network's logits times the factor, 1/1000 … 1000, that makes its mean cross-entropy least: (R, N, K).

    Networks that decide alike may be sure of it to different degrees, and divergences tell such networks apart. After
    this (one temperature for each network [Guo et al. 2017]) no scaling of a network's logits changes anything.
    """
    z, rows = logits.double(), torch.arange(logits.shape[1], device=logits.device)
    low, high = (torch.full((len(z), 1, 1), exponent, dtype=z.dtype, device=z.device) for exponent in (-3.0, 3.0))
    for _ in range(40):  # the slope of the cross-entropy, which is convex in the factor, changes its sign once
        middle = (low + high) / 2
        sure = F.softmax(z * 10**middle, -1)
        slope = ((sure * z).sum(-1) - z[:, rows, labels]).mean(1)[:, None, None]
        low, high = torch.where(slope < 0, middle, low), torch.where(slope < 0, high, middle)
    return z * 10**high


def among(logits: Tensor, labels: Tensor) -> pd.DataFrame:
    """How R networks behave as a group: (R, N, K), (N,) → rows `measure`, `value`, `spread`, `n`.

    Accuracies in per cent. `spread` is the standard deviation over the `n` networks or unordered pairs (KL: mean
    of both directions) that `value` is the mean of; the ensemble and the JSD of all are single numbers.
    """
    accuracy = (classes(logits) == labels).double().mean(1).masked_fill(~answers(logits), torch.nan) * 100
    upper = torch.triu_indices(len(logits), len(logits), offset=1).unbind()
    divergence = kl(logits, logits)
    return _rows(
        {
            ALONE: accuracy,
            "ensemble": torch.tensor([100 * ensemble_accuracy(logits, labels)], dtype=torch.float64),
            "pairwise disagreement": disagreement(logits, logits)[upper],
            "pairwise KL": ((divergence + divergence.mT) / 2)[upper],
            "JSD of all": jsd(logits)[None],
        }
    )


def against(logits: Tensor, reference: Tensor) -> pd.DataFrame:
    """How far R networks are from one other: (R, N, K), (1, N, K) → rows as of `among`."""
    both_ways = (kl(logits, reference) + kl(reference, logits).mT) / 2
    return _rows(
        {
            "disagreement with pruned": disagreement(logits, reference)[:, 0],
            "KL with pruned": both_ways[:, 0],
            "JSD with pruned": jsd_pairs(logits, reference)[:, 0],
        }
    )


def in_groups(
    population: Population,
    split: Split,
    by: Sequence[str],
    references: Population | None = None,
    learned: Sequence[bool] | None = None,
) -> pd.DataFrame:
    """`among` for every group of networks that the columns `by` tell apart: rows `by`, `measure`, `value`.

    references: with one network for every value of the first of these columns: then `against` it, too, and under names
    that end in «, calibrated» the same of `calibrated` logits. learned: networks for which it is not true are left out.
    What belongs to pairs or to all of a group together is then NaN, as an ensemble of fewer gains less; everything is
    where no network is left.
    """
    logits, theirs = population.logits(split), references.logits(split) if references else None
    kept = np.ones(len(population), bool) if learned is None else np.asarray(learned)
    tables = []
    for key, rows in population.frame.groupby(list(by), sort=False).groups.items():
        ours = logits[torch.tensor(rows[kept[rows]].tolist() or rows.tolist(), device=logits.device)]
        parts = [among(ours, split.labels)]
        if len(ours) < len(rows):
            parts = [parts[0].assign(value=parts[0]["value"].where(parts[0]["measure"] == ALONE))]
        if references:
            place = int((references.frame[by[0]] == key[0]).to_numpy().nonzero()[0].item())
            one, fitted = theirs[[place]], (calibrated(x, split.labels) for x in (ours, theirs[[place]]))
            scaled = against(*fitted)
            parts += [against(ours, one), scaled.assign(measure=scaled["measure"] + ", calibrated")]
        table = pd.concat(parts)[["measure", "value"]].assign(**dict(zip(by, key, strict=True)))
        tables.append(table if kept[rows].any() else table.assign(value=math.nan))
    return pd.concat(tables, ignore_index=True)[[*by, "measure", "value"]]


def _rows(samples: dict[str, Tensor]) -> pd.DataFrame:
    values = {measure: pd.Series(sample.double().cpu().numpy()) for measure, sample in samples.items()}
    return pd.DataFrame(
        {"measure": m, "value": v.mean(), "spread": v.std(ddof=1), "n": v.count()} for m, v in values.items()
    )
