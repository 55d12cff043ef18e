"""Accuracy on images that were put aside, and the test accuracy at the epoch where it is best [J, Sec. 4.1]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lth.data import Data
from lth.errors import UsageError
from lth.methods.tweaks import weights_left
from lth.population import Population
from lth.training.plan import Run


@dataclass(frozen=True)
class Validation:
    """What a `lth.training.plan.Probe` may measure every epoch: accuracy on the validation and on the test images."""

    def __call__(self, population: Population, data: Data) -> dict[str, list[float]]:
        """`validation` and `test` of each replica, 0 … 1. UsageError where no images were put aside."""
        if data.validation is None:
            raise UsageError(f"{data.name} has no validation images: data.hold_out() puts some aside")
        splits = {"validation": data.validation, "test": data.test}
        return {name: population.evaluate(split)["accuracy"].tolist() for name, split in splits.items()}


def best_epoch(history: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """For each network, which the columns `by` name, the row of the history with the best `validation`; the last of
    equals, which has been trained for longer. Its `test` is the test accuracy at the best validation epoch. Of a
    network without any it is the last row, in which both are nan."""
    last = ~history.duplicated(list(by), keep="last")
    unknown = history["validation"].isna().groupby([history[name] for name in by]).transform("all")
    measured = history[history["validation"].notna() | (last & unknown)][::-1]
    ranks = measured["validation"].fillna(-1)
    best = ranks.groupby([measured[name] for name in by], sort=False).idxmax()
    return measured.loc[best[::-1]].reset_index(drop=True)


def accuracies(run: Run, **columns: Any) -> pd.DataFrame:
    """A row per network of a run that was watched by `Validation`: `network`, `level` and `way` of the frame, `step`
    and `accuracy`, the test accuracy (%) at the best epoch, `last`, that at the end, and `weights`, all of them."""
    who, percent = ["network", "level"], lambda rows: (100 * rows.test).round(6)
    best = best_epoch(run.history, who).assign(accuracy=percent)
    end = run.history[~run.history.duplicated(who, keep="last")].assign(last=percent)
    weights = run.final.frame[who].assign(weights=weights_left(run.final).tolist())
    kept = best[[*who, "way", "step", "accuracy"]].merge(end[[*who, "last"]], on=who)
    return kept.merge(weights, on=who).assign(**columns)
