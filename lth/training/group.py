"""A group of replicas that are trained together, from event to event: mask updates, kept copies, the history."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lth import distributed, memory
from lth.errors import LthError
from lth.population import Population, Tensors
from lth.training import optim
from lth.training.batches import Batches
from lth.training.layout import doubts_layout, faster, kind_of_step, likes_channels_last
from lth.training.plan import MaskUpdate, Plan, Probe
from lth.training.step import BLOCK, Step

LOG_EVERY = 100  # steps between two rows of the history
BELONGS = "belongs"  # in an entry of a group's history: whether it is a row of the replica's own
STRETCH = 0.2  # seconds a group trains at most before others get their turn: three on two cores end together


@dataclass
class Standing:
    """Where r replicas are in their training; everything that a checkpoint holds of them.

    step, logged: steps done, and steps done at the last row of the history. history: one entry per row, each value a
    list of r numbers but `step`. tensors: see `Step.tensors`. kept: step → the replicas as they were then.
    """

    step: int = 0
    logged: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    tensors: Tensors = field(default_factory=dict)
    kept: dict[int, Population] = field(default_factory=dict)

    def __getitem__(self, rows: slice) -> Standing:
        """That of some of the replicas."""
        some = lambda value: value[rows] if isinstance(value, list) else value  # noqa: E731
        history = [{name: some(value) for name, value in entry.items()} for entry in self.history]
        tensors = {name: tensor[rows] for name, tensor in self.tensors.items()}
        return Standing(self.step, self.logged, history, tensors, {s: kept[rows] for s, kept in self.kept.items()})


class Group:
    """Replicas that are trained together: a working copy of them, their optimiser's state, their history.

    rows: their places in the population. On a GPU all replicas are one group, if its memory holds them; on a CPU,
    where stacked replicas are slower than a loop, each is a group of its own. Only a group at work takes the device's
    memory: before and afterwards what it is lies in the host's.
    """

    def __init__(self, population: Population, rows: slice, plan: Plan, standing: Standing | None = None) -> None:
        """`standing`: to go on from there; otherwise `begin` comes first."""
        self.population, self.rows, self.plan = population, rows, plan
        self.frame = population.frame.iloc[rows].reset_index(drop=True)
        seeds, examples = [int(seed) for seed in self.frame["seed"]], len(plan.data.train)
        recipe, size = plan.recipe, plan.data.train.images.shape[2:]
        self.batches = Batches(seeds, examples, recipe.batch_size, recipe.augment, size)
        # steps done, steps at the last row of the history, steps whose examples are in line
        self.step = self.logged = self.loaded = plan.recipe.first_step
        self.history: list[dict[str, Any]] = []
        self.kept: dict[int, Population] = {}
        self.upcoming: tuple[int, Any] | None = None  # a step and the examples from there on
        self.work: Population | None = None
        self.taking: Step | None = None
        self.resting: Tensors = {}  # what it is while it is not at work, see `Step.tensors`
        self.begun = standing is not None
        self.midway = not self.begun  # whether it stands inside a step, where nothing of it may be saved
        self.recorded = population.device.type == "cpu"  # whether the step is ready to be taken
        self.too_big = False  # for the device's memory
        if standing is not None:
            self.step = self.loaded = standing.step
            self.logged, self.history, self.kept = standing.logged, standing.history, standing.kept
            self.resting = standing.tensors

    def __len__(self) -> int:
        return len(self.frame)

    def begin(self) -> None:
        """What happens before the first step."""
        with self._in_memory():
            self.to_work()
        if self.too_big:
            return
        self._events()
        if self.population.device.type == "cuda" and len(self) < len(self.population):
            self.rest()  # until its turn comes
        self.begun, self.midway = True, False

    def to_work(self) -> None:
        """Puts the replicas on the device, as they were given or where they rested."""
        mine, plan = self.population[self.rows], self.plan
        copy = _channels_last if likes_channels_last(mine, plan.recipe.precision) else torch.clone
        work = replace(
            mine,
            params={n: copy(p.detach()) for n, p in mine.params.items()},
            masks={n: copy(m) for n, m in mine.masks.items()},
            buffers={n: b.clone() for n, b in mine.buffers.items()},
        )
        teacher, penalty = plan.teacher, plan.penalty
        if teacher is not None:
            teacher = teacher.repeat(len(self)) if len(teacher) == 1 else teacher[self.rows]
        penalty = penalty and penalty[self.rows]
        taking = Step(work, plan.data, plan.recipe, teacher, penalty, masks_change=bool(plan.updates))
        if self.resting:
            for name, tensor in taking.tensors().items():
                tensor.copy_(self.resting[name])
            taking.note_changes()
        self.work, self.taking, self.resting = work, taking, {}

    def rest(self) -> None:
        """Gives back the device's memory; what is to go on from, or to be saved, stays in the host's."""
        if self.taking is not None:
            self.resting = {name: tensor.cpu() for name, tensor in self.taking.tensors().items()}
            self.work = self.taking = None
            self.loaded, self.recorded = self.step, self.population.device.type == "cpu"

    def standing(self) -> Standing:
        """Where it is; shares its memory."""
        tensors = self.taking.tensors() if self.taking is not None else self.resting
        return Standing(self.step, self.logged, self.history, tensors, self.kept)

    def halves(self) -> list[Group]:
        """The same replicas as two groups that go on from where this one is, which ends."""
        self.rest()
        start, stop, standing = self.rows.start, self.rows.stop, self.standing()
        middle = (start + stop) // 2
        cuts = slice(start, middle), slice(middle, stop)
        parts = [standing[c.start - start : c.stop - start] if self.begun else None for c in cuts]
        return [Group(self.population, cut, self.plan, part) for cut, part in zip(cuts, parts, strict=True)]

    def get_ready(self) -> None:
        """Before the first step: to work, and on a GPU the step is compiled and recorded.

        `too_big` says that there was not enough memory for that; LthError where one replica is too big. Always in the
        same thread: the compiler does not survive being called from several.
        """
        if self.taking is not None and self.recorded:
            return
        self.midway = True  # the step is rehearsed, which a Ctrl-C may leave undone in part
        with self._in_memory():
            if not self.recorded:
                self._settle_layout()
            if self.taking is None:
                self.to_work()
            if not self.recorded:
                self.taking.record()
                self.recorded = True
        self.midway = False

    def _settle_layout(self) -> None:
        """Times the step with the channels last and first, where nobody knows which is faster on this GPU."""
        mine, precision = self.population, self.plan.recipe.precision
        if mine.device.type == "cpu" or not doubts_layout(mine, precision):
            return
        kind, seconds = kind_of_step(mine, precision), {}
        for last in (True, False):
            self.rest()
            faster[kind] = last
            try:
                self.to_work()
                seconds[last] = self.taking.rehearse()
            finally:
                del faster[kind]
        faster[kind] = min(seconds, key=seconds.get)
        self.rest()

    @contextmanager
    def _in_memory(self) -> Iterator[None]:
        """Notes where the device's memory is short."""
        try:
            yield
        except RuntimeError as error:
            if not memory.is_short(error):
                raise
            if len(self) == 1:
                size, name = self.plan.recipe.batch_size, self.population.model.name
                raise LthError(
                    f"one {name} and a batch of {size} images do not fit into the memory of {self.population.device}: "
                    "take a smaller batch_size"
                ) from error
            self.too_big = True
        self.too_big = distributed.any_of(self.too_big)

    def advance(self) -> None:
        """Train until the next event, or for about `STRETCH` seconds."""
        self.midway = True
        stop = self._next_event()
        if self.step >= self.loaded:
            self.taking.load(self.step, *self._examples(self.step, stop))
            self.loaded = stop
        started = time.monotonic()
        while self.step < self.loaded:
            self.taking.take()
            self.step += 1
            if time.monotonic() - started > STRETCH and distributed.size() == 1:
                break
        if self.step == stop:
            if stop < self.plan.recipe.steps:  # drawn while a GPU still works on the steps before
                self.upcoming = stop, self._examples(stop, self._next_event())
                self.taking.expect(stop, self.upcoming[1][0])
            self._events()
            if stop == self.plan.recipe.steps:
                self.rest()
        self.midway = False

    def _examples(self, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        if self.upcoming and self.upcoming[0] == start:
            return self.upcoming[1]
        share = self.plan.recipe.batch_size // distributed.size()
        mine = slice(share * distributed.rank(), share * (distributed.rank() + 1))
        order, moves = (None if p is None else p[:, :, mine].contiguous() for p in self.batches.between(start, stop))
        if self.population.device.type == "cuda":
            order, moves = order.pin_memory(), None if moves is None else moves.pin_memory()
        return order, moves

    def _next_event(self) -> int:
        """The step after which something other than training happens next."""
        plan, last = self.plan, self.plan.recipe.steps
        return next(
            step
            for step in range(self.step + 1, last + 1)
            if step in (last, self.step + BLOCK)
            or step % LOG_EVERY == 0
            or step in plan.keep
            or any(step % probe.every == 0 for probe in plan.probes)
            or any(rule.due(step) for rule in plan.updates.values())
        )

    def _events(self) -> None:
        """What happens after `self.step` steps: mask updates, then keeping, then recording."""
        plan, last = self.plan, self.step == self.plan.recipe.steps
        distributed.as_first_(list(self.work.buffers.values()))
        due = {method: rule for method, rule in plan.updates.items() if rule.due(self.step)}
        due = {method: rule for method, rule in due.items() if (self.work.frame["method"] == method).any()}
        updated = np.isin(self.work.frame["method"], list(due)) if due else np.zeros(len(self.work), bool)
        around = [probe for probe in plan.probes if due and probe.around_updates]
        measured: dict[str, Any] = {}

        def measure(probe: Probe, rows: np.ndarray, suffix: str = "") -> None:
            for name, value in probe.measure(self.work, plan.data).items():
                measured[name + suffix] = np.where(rows, _numbers(value), math.nan)

        for probe in around:
            measure(probe, updated, "_before")
        for method, rule in due.items():
            self._update_masks(np.flatnonzero(self.work.frame["method"] == method), rule)
        if self.step in plan.keep:
            self.kept[self.step] = self.result()
        regular = last or (self.step > plan.recipe.first_step and self.step % LOG_EVERY == 0)
        for probe in plan.probes:
            if last or (self.step % probe.every == 0 and (self.step > plan.recipe.first_step or probe.at_start)):
                measure(probe, np.ones(len(self.work), bool))
                regular = True
            elif probe in around:
                measure(probe, updated)
        if regular or around:
            count = self.step - self.logged
            mean = self.taking.sums / count if count and regular else self.taking.sums * math.nan
            loss, accuracy = mean.T.tolist()
            entry = {"step": self.step, "loss": loss, "accuracy": accuracy}
            entry |= {name: value.tolist() for name, value in measured.items()}
            # a row between the regular ones belongs only to those whose masks changed
            self.history.append(entry | {BELONGS: [True] * len(self.work) if regular else updated.tolist()})
        if regular:
            self.taking.sums.zero_()
            self.logged = self.step

    def _update_masks(self, rows: np.ndarray, rule: MaskUpdate) -> None:
        """Gives the replicas `rows` the rule's new masks; weights and optimiser state outside them become zero."""
        for name, mask in rule.masks(self.work[rows], self.step, self.plan.data).items():
            old = self.work.masks[name]
            if mask.shape != (len(rows), *old.shape[1:]):
                raise LthError(
                    f"{type(rule).__name__} gave a mask of shape {tuple(mask.shape)} for {name} of {len(rows)} "
                    f"replicas, expected {(len(rows), *old.shape[1:])}"
                )
            old[torch.as_tensor(rows, device=old.device)] = mask
            distributed.as_first_([old])
            optim.erase_(self.work.params[name], old, self.taking.states[name])
        self.taking.note_changes()

    def result(self) -> Population:
        """A contiguous copy of the replicas as they are now."""
        of, tensors = self.population, self.standing().tensors
        options = {"device": of.device, "memory_format": torch.contiguous_format, "copy": True}
        copy = lambda kind: {n: tensors[f"{kind}.{n}"].to(**options) for n in getattr(of, kind)}  # noqa: E731
        copied = Population(of.model, copy("params"), copy("masks"), copy("buffers"), self.frame)
        return copied.with_plus_zeros()

    def table(self) -> pd.DataFrame:
        """The history, replica by replica, with the replicas' own columns in front."""
        cell = lambda value, r: value[r] if isinstance(value, list) else value  # noqa: E731
        rows = [{n: cell(v, r) for n, v in entry.items()} for r in range(len(self)) for entry in self.history]
        owners = np.repeat(np.arange(len(self)), len(self.history))
        table = self.frame.iloc[owners].reset_index(drop=True).assign(**pd.DataFrame(rows))
        return table[table[BELONGS]].drop(columns=BELONGS).reset_index(drop=True)


def _numbers(measured: Any) -> list[float]:
    """What a probe measured, a tensor on any device or anything numpy knows, as a list."""
    return measured.tolist() if isinstance(measured, Tensor) else np.asarray(measured).tolist()


def _channels_last(stack: Tensor) -> Tensor:
    """A copy in which each replica's convolution kernel is channels-last, the layout convolutions like best."""
    if stack.ndim != 5:
        return stack.clone()
    return stack.permute(0, 1, 3, 4, 2).clone(memory_format=torch.contiguous_format).permute(0, 1, 4, 2, 3)
