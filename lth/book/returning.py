"""Chapter 5: the samples of its claims, and networks in words, mean ± standard deviation (n − 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lth.analysis.ladders import Groups, Levels, right_angles, turns_of
from lth.book import large
from lth.book.samples import by_network
from lth.book.settings.rti_repulsion import RTIRepulsion
from lth.training.recipe import Recipe

Shot = Sequence[np.ndarray]  # accuracies (%) of dense networks, and of what one round of pruning makes of them


@dataclass(frozen=True)
class Rounds:
    """What networks are at some rounds, at medium sparsities: means over these, network by network.

    accuracy, thresholds: tables of `accuracy` (%) and `threshold` by `method`, `arm`, `level`, `network`.
    """

    accuracy: pd.DataFrame
    thresholds: pd.DataFrame
    levels: Sequence[int]

    def score(self, method: str, arm: str) -> np.ndarray:
        """Mean accuracy."""
        return by_network(self.accuracy, "accuracy", method=method, arm=arm, level=self.levels)

    def gain(self, arm: str) -> np.ndarray:
        """How many points better tickets are than their masks with other weights."""
        return self.score("ticket", arm) - self.score("reinit", arm)

    def halfway(self, arm: str) -> np.ndarray:
        """The accuracy in the middle between tickets and their masks with other weights."""
        return (self.score("ticket", arm) + self.score("reinit", arm)) / 2

    def threshold(self, method: str, arm: str) -> np.ndarray:
        """Geometric mean of the sizes below which weights are pruned."""
        logs = self.thresholds.assign(log=np.log(self.thresholds.threshold))
        return np.exp(by_network(logs, "log", method=method, arm=arm, level=self.levels))


def spread(samples: Sequence[float]) -> str:
    """«74.38 ± 0.01»"""
    return f"{np.mean(samples):.2f} ± {np.std(samples, ddof=1):.2f}"


def dodge(
    cosines: pd.DataFrame, correlations: pd.DataFrame, pulls: pd.DataFrame, accuracy: pd.DataFrame, seen: Sequence[str]
) -> pd.DataFrame:
    """Whether a penalty was dodged: in words how far each round is from the one before, for each arm and method.

    cosines, correlations, pulls: tables of `returns`, the first with a group "all" of all weights. accuracy: in per
    cent, one for each network. seen: the groups of weights that see a signal often.
    """
    angles = cosines.assign(angle=right_angles(cosines.cosine))
    reached = pulls.groupby(["arm", "method", "network"], sort=False)[["reached", "left"]].sum().reset_index()
    before_last = correlations.layer != correlations.layer.iloc[-1]
    return _in_short(
        {
            "angle, all weights": (angles[angles.group == "all"], "angle"),
            "angle, layers": (angles[angles.group.isin(seen)], "angle"),
            "correlation of neurons": (correlations[before_last], "correlation"),
            "weights reached (%)": (reached.assign(share=100 * reached.reached / reached.left), "share"),
            "accuracy (%)": (accuracy, "accuracy"),
        }
    )


def obeyed(ladders: Mapping[tuple[str, str], Levels], seen: Groups, which: Sequence[int]) -> pd.DataFrame:
    """Method and arm, and in words how far some levels of that ladder are from the last and from the last but one.

    seen: the groups of weights that see a signal often.
    """
    rows = []
    for (method, arm), levels in ladders.items():
        kinds = {"all weights": {"all": levels[0].masks}, "the layer turned least": seen}
        rows.append({"arm": arm, "method": method})
        for title, groups in kinds.items():
            for steps, to in ((1, "to the last"), (2, "to the last but one")):
                rows[-1][f"{title}, {to}"] = spread(turns_of(groups, levels, which, steps).min(axis=1))
    return pd.DataFrame(rows)


def _in_short(parts: Mapping[str, tuple[pd.DataFrame, str]]) -> pd.DataFrame:
    """Title → a table and its column; of several rows of a network the mean is taken."""
    words = {}
    for title, (rows, column) in parts.items():
        one_each = rows.groupby(["arm", "method", "network"], sort=False)[column].mean()
        means = one_each.groupby(["arm", "method"], sort=False)
        words[title] = means.mean().round(2).astype(str) + " ± " + means.std().round(2).astype(str)
    return pd.DataFrame(words).reset_index()


def crossed(scores: Mapping[tuple[str, str, float], np.ndarray]) -> pd.DataFrame:
    """Weights and masks crossed, in words; scores: whose masks, which weights, strength of the penalty → accuracies."""
    table = pd.DataFrame(
        {"weights": start, "masks of": owner, "penalty": "with it (%)" if strength else "without penalty (%)",
         "words": spread(samples)}
        for (owner, start, strength), samples in scores.items()
    )  # fmt: skip
    table["masks of"] = pd.Categorical(table["masks of"], dict.fromkeys(table["masks of"]))  # in the order told
    return (
        table.pivot(index=["weights", "masks of"], columns="penalty", values="words")
        .reset_index()
        .rename_axis(columns=None)[["weights", "masks of", "without penalty (%)", "with it (%)"]]
    )


def one_shot_recipe(settings: RTIRepulsion, images: int, rate: float) -> Recipe:
    """How [M, App. C] trains ResNet-50: 90 epochs of so many images, fewer where that is asked."""
    batch = settings.imagenet_batches[0]
    steps = round(settings.imagenet_length * 90 * images / batch)
    return Recipe(
        steps=steps, batch_size=batch, lr=rate, schedule="step",
        milestones=tuple(steps * epoch // 90 for epoch in (30, 60, 80)), weight_decay=1e-5, augment="resized",
        precision=settings.imagenet_precision,
    )  # fmt: skip


def one_shot(shots: Mapping[str, Shot]) -> pd.DataFrame:
    """Learning rates, in words, and what pruning in one round does there."""
    return pd.DataFrame(
        {"learning rate": rate, "dense (%)": spread(before), "ticket − dense (points)": spread(after - before)}
        for rate, (before, after) in shots.items()
    )


def one_shot_beside_paper(shots: Mapping[float, Shot]) -> pd.DataFrame:
    """The paper's learning rates for ResNet-50, its numbers, and ours where there are some [M, App. C]."""
    rows = []
    for rate, (dense, change) in large.ONE_SHOT_PAPER.items():
        row = {"learning rate": rate, "paper: dense (%)": dense, "ticket − dense": change}
        if rate in shots:
            before, after = shots[rate]
            row |= {"here: dense (%)": spread(before), "ticket − dense, here": spread(after - before)}
        rows.append(row)
    return pd.DataFrame(rows)
