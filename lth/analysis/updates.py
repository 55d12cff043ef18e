"""What one mask update does to a network: which connections it exchanges, and how long the gradient is afterwards.

A gradient has the unit of the loss over that of the weights, so a difference of two norms says little by itself: it
grows with the norm. `powers`, log₁₀ of norm after over norm before, is the same whatever the loss is multiplied by.
It is not the same when one layer of a ReLU network is multiplied by a > 0 and the next divided by it, which changes
nothing that the network computes: the parts of the gradient in these layers change by 1/a and a. The mean of the
layers' own `powers` is (`by_layer`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lth.data import Split
from lth.gradients import mean_gradients
from lth.population import Population

FATES = ("stays", "dropped", "grown")


def fates(before: Population, after: Population, layer: str) -> pd.DataFrame:
    """`fate`, `row` and `column` (output and input) of each connection of a linear layer of the first replica."""
    old, new = (some.masks[layer][0].cpu().numpy() for some in (before, after))
    found = {"stays": old & new, "dropped": old & ~new, "grown": new & ~old}
    parts = [pd.DataFrame(np.argwhere(found[fate]), columns=["row", "column"]).assign(fate=fate) for fate in FATES]
    return pd.concat(parts, ignore_index=True)


def changes(history: pd.DataFrame) -> pd.DataFrame:
    """The rows of a history in which masks were updated, with the norms of the gradient around it.

    `norm_before` and `norm_after`, their difference `change` [E, Fig. 3], and `powers`, log₁₀ of their ratio.
    """
    rows = history.dropna(subset="gradient_flow_before")
    before, after = np.sqrt(rows.gradient_flow_before), np.sqrt(rows.gradient_flow)
    with np.errstate(divide="ignore", invalid="ignore"):
        powers = np.log10(after / before).where((before > 0) & (after > 0))  # nan where a gradient is zero
    kept = rows.drop(columns=["loss", "accuracy", "gradient_flow", "gradient_flow_before"])
    return kept.assign(norm_before=before, norm_after=after, change=after - before, powers=powers)


def layer_norms(population: Population, split: Split) -> Tensor:
    """Norm of the gradient in the active weights of each prunable layer: (R, layers) float64."""
    gradients, _ = mean_gradients(population, split)
    parts = [(gradients[n] * mask).flatten(1).double().norm(dim=1) for n, mask in population.masks.items()]
    return torch.stack(parts, dim=1)


def of_weights(before: Population, after: Population, split: Split) -> list[float]:
    """log₁₀ of the norm after over the norm before, of the weights alone, for each replica; nan where one is zero.

    Biases have a gradient that no update touches, and before learning most of the norm is theirs
    (`gradient_flow.of_guessing`).
    """
    old, new = (layer_norms(some, split).norm(dim=1) for some in (before, after))
    powers = (new / old).log10()
    return powers.where(powers.isfinite(), torch.nan).tolist()


def by_layer(before: Population, after: Population, split: Split) -> list[float]:
    """Mean over layers of log₁₀ of the norm after over the norm before, for each replica.

    A layer whose gradient is zero before or after is left out; nan where no layer remains.
    """
    old, new = layer_norms(before, split), layer_norms(after, split)
    powers = (new / old).log10()
    return powers.where(powers.isfinite(), torch.nan).nanmean(1).tolist()


def factors(ends: pd.DataFrame, column: str) -> pd.DataFrame:
    """What an update multiplies a number by: rows `mask`, `method`, `step`, and `factor`, after over before.

    ends: rows `mask`, `when` («before» or «after»), `method`, `step`, and the `column`.
    """
    wide = ends.pivot(index=["method", "mask", "step"], columns="when", values=column).dropna()
    return (wide["after"] / wide["before"]).rename("factor").reset_index()


def grown(ends: pd.DataFrame, column: str, method: str, steps: Sequence[int]) -> pd.Series:
    """By how many powers of ten a number is larger right after an update than right before, mean over some steps.

    ends: rows `mask`, `when` («before» or «after»), `method`, `step`, and the `column`. By mask.
    """
    return _mean_log(ends, column, method, "after", steps) - _mean_log(ends, column, method, "before", steps)


def moved(factors: pd.DataFrame, method: str, steps: Sequence[int]) -> pd.Series:
    """By how many powers of ten updates change a number, up or down, mean over some steps. By mask.

    factors: of `factors`. What one update adds and the next takes away does not cancel here, as it does in `grown`.
    """
    rows = factors[(factors.method == method) & factors.step.isin(steps)]
    return np.log10(rows.factor).abs().groupby(rows["mask"]).mean()


def larger(ends: pd.DataFrame, column: str, method: str, other: str, steps: Sequence[int]) -> pd.Series:
    """By how many it is larger in one method than in another right before updates, likewise."""
    return _mean_log(ends, column, method, "before", steps) - _mean_log(ends, column, other, "before", steps)


def _mean_log(ends: pd.DataFrame, column: str, method: str, when: str, steps: Sequence[int]) -> pd.Series:
    rows = ends[(ends.method == method) & (ends.when == when)]
    return np.log10(rows.pivot(index="mask", columns="step", values=column))[list(steps)].mean(axis=1)


def in_words(table: pd.DataFrame, who: str) -> pd.DataFrame:
    """«mean ± standard deviation» of the `powers` over masks: a row for each value of `who`, a column per `step`."""
    powers = table.groupby([who, "step"], sort=False).powers
    words = powers.mean().map("{:.3f}".format) + " ± " + powers.std().map("{:.3f}".format)
    return words.unstack("step").reset_index().rename_axis(columns=None).rename(columns=lambda name: str(name))
