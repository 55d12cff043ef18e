"""How close networks are: in weight space, and in what they predict.

The predictions of R networks on N examples are compared for all pairs at once, as (R, R) matrices; the
measures of [E, Table 6] and of Fort et al. (2020) are means over parts of them. Logarithms are natural.

A network none of whose logits is a number has failed in training. What is measured of it, or of a pair with it, is nan,
and in what is measured of several networks together it has no part.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch
from sklearn.manifold import MDS
from torch import Tensor
from torch.nn import functional as F

from lth.data import Split
from lth.errors import UsageError
from lth.population import Population, classes


def l2_distances(a: Population, b: Population) -> Tensor:
    """‖θ_a − θ_b‖ of every replica of `a` to every replica of `b`, over all parameters: (R_a, R_b) float64."""
    return torch.cdist(a.theta().double(), b.theta().double(), compute_mode="donot_use_mm_for_euclid_dist")


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


def pairwise_disagreement(logits: Tensor) -> float:
    """Mean disagreement over all pairs of R networks, at least two: (R, N, K) → 0 … 1."""
    if len(logits) < 2:
        raise UsageError("disagreement within pairs needs two networks or more")
    logits = logits[answers(logits)]
    n = len(logits)
    return math.nan if n < 2 else float(disagreement(logits, logits).sum() / (n * (n - 1)))


def ensemble_gain(logits: Tensor, labels: Tensor) -> float:
    """Accuracy of the ensemble above the mean accuracy of its R members: (R, N, K), (N,) → −1 … 1."""
    members = (classes(logits[answers(logits)]) == labels).double().mean()
    return ensemble_accuracy(logits, labels) - float(members)


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
            "accuracy": accuracy,
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


def to_reference(population: Population, reference: Population, split: Split) -> pd.DataFrame:
    """The frame with `disagreement`, `kl` (mean of both directions) and `jsd` of each replica to one network."""
    ours, theirs = population.logits(split), reference.logits(split)
    columns = {
        "disagreement": disagreement(ours, theirs)[:, 0],
        "kl": (kl(ours, theirs) + kl(theirs, ours).mT)[:, 0] / 2,
        "jsd": jsd_pairs(ours, theirs)[:, 0],
    }
    return population.frame.assign(**{name: values.cpu().numpy() for name, values in columns.items()})


def _rows(samples: dict[str, Tensor]) -> pd.DataFrame:
    values = {measure: pd.Series(sample.double().cpu().numpy()) for measure, sample in samples.items()}
    return pd.DataFrame(
        {"measure": m, "value": v.mean(), "spread": v.std(ddof=1), "n": v.count()} for m, v in values.items()
    )
