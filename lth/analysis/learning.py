"""Who learns, when learning begins, how the gradient flows: what a training history says of each network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

LEARNS_BELOW = 0.9  # of the loss of guessing, log(classes)


def learns(accuracy: pd.Series | np.ndarray, classes: int = 10) -> pd.Series | np.ndarray:
    """Whether networks have learned: their accuracy, in per cent, is more than twice that of guessing."""
    return accuracy > 2 * 100 / classes


def changes(history: pd.DataFrame) -> pd.DataFrame:
    """The rows at mask updates with `change`: the gradient's norm right after the update less that right before."""
    rows = history.dropna(subset="gradient_flow_before")
    return rows.assign(change=np.sqrt(rows["gradient_flow"]) - np.sqrt(rows["gradient_flow_before"]))


def steady_flow(history: pd.DataFrame) -> pd.Series:
    """The gradient flow of each row, at a mask update the one before it, so that no peak of the update is in it."""
    flow = history["gradient_flow"]
    return history["gradient_flow_before"].fillna(flow) if "gradient_flow_before" in history else flow


def summary(history: pd.DataFrame, by: Sequence[str], every: int, early: float, classes: int) -> pd.DataFrame:
    """One row per network, named by the columns `by`, in the order of the history:

    onset:      the first step with a training loss below 0.9·log(classes), the last step if there is none; nan for a
                network without any loss, as one that failed (`lth.training.plan.Run.without_failed`);
    flow_start, flow_early, flow_mean: log₁₀ of the gradient flow before training, and its mean over the steps up to
                `early`, and over all, as measured every `every` steps; at a mask update before it;
    after_early, after_mean: the same, but at a mask update after it, as in the program of [E].
    """
    measured = history["step"] % every == 0
    flow, after = (np.log10(f).where(measured) for f in (steady_flow(history), history["gradient_flow"]))
    learns = history["step"].where(history["loss"] < LEARNS_BELOW * math.log(classes))
    known = history["loss"].notna().groupby([history[name] for name in by]).transform("any")
    in_time = history["step"] <= early
    table = history[list(by)].assign(
        onset=learns.fillna(history["step"].max()).where(known),
        flow_start=flow.where(history["step"] == 0),
        flow_early=flow.where(in_time),
        flow_mean=flow,
        after_early=after.where(in_time),
        after_mean=after,
    )
    rules = {name: "min" if name == "onset" else "mean" for name in table.columns[len(by) :]}
    return table.groupby(list(by), sort=False).agg(rules).reset_index()
