"""The plan of a run and what comes of it: what travels from a notebook to the step and back.

A rule that changes masks (`MaskUpdate`) and what is recorded on the way (`Probe`) make, with a recipe and data, a
`Plan`; from it come a run's name (`lth.training.identity`), its training, and in the end a `Run`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd

from lth.data import Data
from lth.errors import LthError, UsageError
from lth.population import Population, Tensors
from lth.training.losses import Penalty
from lth.training.recipe import Recipe


class MaskUpdate(Protocol):
    """A rule that changes masks during training, such as `lth.methods.prune.Gradual`; a frozen dataclass."""

    def due(self, step: int) -> bool:
        """Whether the masks change once `step` optimiser steps are done."""

    def masks(self, population: Population, step: int, data: Data) -> Tensors:
        """The new masks of these replicas: name → (r, *shape) bool. What a weight was before does not matter to a
        new one: outside its mask it was zero, and so was its momentum."""


@dataclass(frozen=True)
class Probe:
    """Something to record every `every` steps and after the last one.

    measure:        population, data → column name → one number per replica, (r,).
    around_updates: also right before each mask update, as NAME_before, and right after it.
    at_start:       also before the first step.
    """

    every: int
    measure: Callable[[Population, Data], Mapping[str, Any]]
    around_updates: bool = False
    at_start: bool = True


@dataclass(frozen=True)
class Plan:
    """What is done to every group of a run: the arguments of `lth.training.train.train`."""

    data: Data
    recipe: Recipe
    updates: Mapping[str, MaskUpdate] = field(default_factory=dict)
    probes: Sequence[Probe] = ()
    keep: Sequence[int] = ()
    teacher: Population | None = None
    penalty: Penalty | None = None

    def of(self, rows: Sequence[int], frame: pd.DataFrame) -> Plan:
        """What is done to some of the replicas, whose own frame is given."""
        used = {method: rule for method, rule in self.updates.items() if (frame.get("method") == method).any()}
        teacher = self.teacher[rows] if self.teacher is not None and len(self.teacher) > 1 else self.teacher
        return replace(self, updates=used, teacher=teacher, penalty=self.penalty and self.penalty[rows])


@dataclass(frozen=True)
class Progress:
    """Where a training run stands. accuracy: on the latest training batches, mean over the replicas that have one.

    where: on many machines, what is at work where, in words.
    """

    replicas: int
    step: float
    steps: int
    accuracy: float
    where: str = ""


@dataclass(frozen=True)
class Run:
    """What training gives.

    final:     the trained population.
    history:   one row per replica and logged step: the replica's columns, `step`, `loss` and `accuracy` on the
               training batches since the row before, and what the probes measured. A probe around updates adds rows
               for the replicas updated; those between two regular ones have no loss and accuracy of their own.
    snapshots: step → the population after that many steps.
    seconds:   of wall time, for all replicas together, interruptions not counted.
    failed:    replica → the step (0 … steps − 1) at which its loss ceased to be a number, the last one where only its
               parameters are none in the end (`Population.sound`); {} is what one hopes for.
    left_out:  steps that were kept once, and are not among the networks that travel with the book.
    """

    final: Population
    history: pd.DataFrame
    snapshots: dict[int, Population]
    seconds: float
    failed: dict[int, int]
    left_out: frozenset[int] = frozenset()

    def at(self, step: int) -> Population:
        """The population after `step` steps, which must have been one of `keep`."""
        if step in self.left_out:
            raise LthError(
                f"step {step} of these networks does not travel with the book: move its archives out of "
                "book/editions/networks and remove the runs (`lth store rm`), and they are trained again"
            )
        if step not in self.snapshots:
            raise UsageError(f"step {step} was not kept: train(…, keep=[{step}]) keeps it")
        return self.snapshots[step]

    def without_failed(self) -> Run:
        """The same run with nan in the place of all that the failed replicas were and measured, at every step.

        So they are left out of means, and what is made from them, such as a ticket with such a mask, is nan as well.
        """
        if not self.failed:
            return self
        failed = np.isin(np.arange(len(self.final)), list(self.failed))
        owner = (self.history["step"].diff() <= 0).cumsum()  # a replica's steps increase
        measured = [name for name in self.history if name != "step" and name not in self.final.frame]
        history = self.history.assign(**self.history[measured].mask(owner.isin(list(self.failed))))
        snapshots = {step: kept.without(failed) for step, kept in self.snapshots.items()}
        return replace(self, final=self.final.without(failed), history=history, snapshots=snapshots)
