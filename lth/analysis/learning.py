"""What a training history says of each network in a few numbers: when it began to learn, how its gradient flowed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

LEARNS_BELOW = 0.9  # of the loss of guessing, log(classes)


def steady_flow(history: pd.DataFrame) -> pd.Series:
    """The gradient flow of each row, at a mask update the one before it, so that no peak of the update is in it."""
    flow = history["gradient_flow"]
    return history["gradient_flow_before"].fillna(flow) if "gradient_flow_before" in history else flow


def summary(history: pd.DataFrame, by: Sequence[str], every: int, early: float, classes: int) -> pd.DataFrame:
    """One row per network, named by the columns `by`, in the order of the history:

    onset:      the first step with a training loss below 0.9·log(classes), the last step if there is none; nan for a
                network without any loss, as one that failed (`lth.train.Run.without_failed`);
    flow_start, flow_early, flow_mean: log₁₀ of the gradient flow before training, and its mean over the steps up to
                `early`, and over all, as measured every `every` steps.
    """
    flow = np.log10(steady_flow(history)).where(history["step"] % every == 0)
    learns = history["step"].where(history["loss"] < LEARNS_BELOW * math.log(classes))
    known = history["loss"].notna().groupby([history[name] for name in by]).transform("any")
    table = history[list(by)].assign(
        onset=learns.fillna(history["step"].max()).where(known),
        flow_start=flow.where(history["step"] == 0),
        flow_early=flow.where(history["step"] <= early),
        flow_mean=flow,
    )
    rules = {"onset": "min", "flow_start": "mean", "flow_early": "mean", "flow_mean": "mean"}
    return table.groupby(list(by), sort=False).agg(rules).reset_index()
