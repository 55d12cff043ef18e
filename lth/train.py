"""Train a population: `run = train(population, data, recipe)`.

Groups advance on their own, those furthest behind first, a short stretch at a time. Between two stretches
every group stands between two steps: there checkpoints are written, and there a run can be stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from lth import engine
from lth.data import Data
from lth.engine import Group
from lth.errors import UsageError
from lth.identity import run_keys
from lth.parallel import cores, replica_pool
from lth.population import Population, Tensors, concat
from lth.recipe import PER_REPLICA, Recipe

CHECKPOINT_EVERY = 30.0  # seconds


class MaskUpdate(Protocol):
    """A rule that changes masks during training, such as `lth.methods.prune.Gradual`; a frozen dataclass."""

    def due(self, step: int) -> bool:
        """Whether the masks change once `step` optimiser steps are done."""

    def masks(self, population: Population, step: int) -> Tensors:
        """The new masks of these replicas: name → (r, *shape) bool."""


@dataclass(frozen=True)
class Probe:
    """Something to record every `every` steps, before the first and after the last one too.

    measure: population → column name → one number per replica, (r,).
    """

    every: int
    measure: Callable[[Population], Mapping[str, Any]]


@dataclass(frozen=True)
class Progress:
    """Where a training run stands. accuracy: on the latest training batches, mean over replicas."""

    replicas: int
    step: float
    steps: int
    accuracy: float


@dataclass(frozen=True)
class Run:
    """What training gives.

    final:     the trained population.
    history:   one row per replica and logged step: the replica's columns, `step`, `loss` and `accuracy` on the
               training batches since the row before, and what the probes measured.
    snapshots: step → the population after that many steps.
    seconds:   of wall time, for all replicas together, interruptions not counted.
    """

    final: Population
    history: pd.DataFrame
    snapshots: dict[int, Population]
    seconds: float

    def at(self, step: int) -> Population:
        """The population after `step` steps, which must have been one of `keep`."""
        if step not in self.snapshots:
            raise UsageError(f"step {step} was not kept: train(…, keep=[{step}]) keeps it")
        return self.snapshots[step]


def train(
    population: Population,
    data: Data,
    recipe: Recipe,
    *,
    updates: Mapping[str, MaskUpdate] | None = None,
    probes: Sequence[Probe] = (),
    keep: Sequence[int] = (),
    checkpoint: Path | None = None,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Run:
    """Train every replica of `population` on `data.train`; the population given is left as it is.

    updates:    method → rule: replicas whose column `method` is that word have their masks changed by it.
    probes:     what to record on the way.
    keep:       steps after which the networks are kept (`Run.at`), for rewinding; 0 is the start.
    checkpoint: file to continue from and to save to, every 30 seconds and on Ctrl-C (KeyboardInterrupt).
                Removing it is left to the caller. On a CPU a resumed run ends with the same bits as an
                uninterrupted one.
    watch:      called between stretches.

    Raises UsageError before any work where the arguments do not fit together.
    """
    updates = dict(updates or {})
    check(population, data, recipe, updates, keep)
    size = group_size(population)
    groups = [
        Group(population[at : at + size], data, recipe, updates, probes, keep) for at in range(0, len(population), size)
    ]
    name = "-".join(run_keys(population, data.fingerprint, recipe, updates, probes, keep)) if checkpoint else ""
    before = engine.restore(groups, checkpoint, name) if checkpoint and checkpoint.exists() else 0.0
    started = saved = time.monotonic()

    def save() -> None:
        if checkpoint:
            engine.save(groups, checkpoint, name, before + time.monotonic() - started)

    try:
        # on a CPU one thread each, even for one replica: its numbers must not depend on how many others there are
        with replica_pool(max(2, len(groups)) if population.device.type == "cpu" else 1) as spread:
            while unfinished := [group for group in groups if group.step < recipe.steps]:
                spread(Group.advance, sorted(unfinished, key=lambda group: group.step)[: cores()])
                watch(_progress(groups, recipe))
                if time.monotonic() - saved > CHECKPOINT_EVERY:
                    save()
                    saved = time.monotonic()
    except KeyboardInterrupt:
        if not any(group.midway for group in groups):  # otherwise the checkpoint before stays
            save()
        raise
    return Run(
        final=concat([group.result() for group in groups]),
        history=pd.concat([group.table() for group in groups], ignore_index=True),
        snapshots={step: concat([group.kept[step] for group in groups]) for step in sorted(set(keep))},
        seconds=before + time.monotonic() - started,
    )


def group_size(population: Population) -> int:
    """How many replicas share one stacked step: all on a GPU, one on a CPU."""
    return 1 if population.device.type == "cpu" else len(population)


def check(
    population: Population, data: Data, recipe: Recipe, updates: Mapping[str, MaskUpdate], keep: Sequence[int]
) -> None:
    """Raises UsageError where these cannot be trained together."""
    model = population.model
    if model.shape != data.shape or model.classes != data.classes:
        raise UsageError(
            f"{model.name} was made for {model.shape} images of {model.classes} classes, "
            f"{data.name} has {data.shape} of {data.classes}"
        )
    if population.device != data.train.images.device:
        raise UsageError(f"the population is on {population.device}, {data.name} on {data.train.images.device}")
    if "seed" not in population.frame:
        raise UsageError("the frame needs a column `seed`: the replica's seed for its data order")
    if taken := sorted({"step", "loss", "accuracy"} & set(population.frame)):
        raise UsageError(f"column `{taken[0]}` of the frame is one that training writes to its history: rename it")
    for column in {"seed", *PER_REPLICA} & set(population.frame):
        if population.frame[column].isna().any():
            raise UsageError(f"column `{column}` of the frame is empty for some replicas: fill it in for all of them")
    if late := [step for step in keep if not 0 <= step <= recipe.steps]:
        raise UsageError(f"step {late[0]} cannot be kept: the run has {recipe.steps} steps")
    if unused := updates.keys() - set(population.frame.get("method", ())):
        raise UsageError(f"no replica has method {', '.join(sorted(unused))}: a mask update would never happen")


def _progress(groups: Sequence[Group], recipe: Recipe) -> Progress:
    replicas = sum(len(group.work) for group in groups)
    step = sum(group.step * len(group.work) for group in groups) / replicas
    latest = [row["accuracy"] for group in groups for row in group.history[-len(group.work) :]]
    return Progress(replicas, step, recipe.steps, float(np.mean(latest)) if latest else math.nan)
