"""Train a population: `run = train(population, data, recipe)`.

Groups advance on their own, a short stretch at a time: on a CPU those furthest behind first, one on each core, on a
GPU one after another. Between two stretches every group stands between two steps: there checkpoints are written, and
there a run can be stopped.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lth import distributed, memory
from lth.data import Data
from lth.errors import UsageError
from lth.parallel import cores, keep_freed_memory, workers
from lth.population import Population, concat
from lth.training import checkpoint as checkpoints
from lth.training.group import Group
from lth.training.identity import run_keys
from lth.training.layout import is_wide
from lth.training.losses import Penalty
from lth.training.plan import MaskUpdate, Plan, Probe, Progress, Run
from lth.training.recipe import PER_REPLICA, Recipe

CHECKPOINT_EVERY = 30.0  # seconds
CHECKPOINT_SHARE = 0.02  # of the time, at most, goes into writing checkpoints


def train(
    population: Population,
    data: Data,
    recipe: Recipe,
    *,
    updates: Mapping[str, MaskUpdate] | None = None,
    probes: Sequence[Probe] = (),
    keep: Sequence[int] = (),
    teacher: Population | None = None,
    penalty: Penalty | None = None,
    checkpoint: Path | None = None,
    name: str = "",
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Run:
    """Train every replica of `population` on `data.train`; the population given is left as it is.

    updates:    method → rule: replicas whose column `method` is that word have their masks changed by it.
    probes:     what to record on the way.
    keep:       steps after which the networks are kept (`Run.at`), for rewinding; 0 is the start.
    teacher:    networks to distil from, one for all or one each, where `distill` of the recipe or frame is not 0.
    penalty:    a term to add to the loss, see `lth.training.losses.Penalty`.
    checkpoint: file to continue from and to save to, every 30 seconds and on Ctrl-C (KeyboardInterrupt).
                Removing it is left to the caller. On a CPU a resumed run ends with the same bits as an
                uninterrupted one.
    name:       whose checkpoint it is; if not given, that of runs with these names (`lth.training.identity`).
    watch:      called between stretches.

    A replica whose loss ceases to be a number is trained on, to no avail, and told in `Run.failed`; the others do not
    notice. Replicas that do not fit into a GPU's memory together are trained one half after the other. Raises
    UsageError before any work where the arguments do not fit together.
    """
    plan = Plan(data, recipe, dict(updates or {}), tuple(probes), tuple(sorted(set(keep))), teacher, penalty)
    check(population, plan)
    if (checkpoint or distributed.size() > 1) and not name:
        name = "-".join(run_keys(population, plan))
    distributed.agree(name)
    standings, before = [None], 0.0
    if checkpoint and checkpoint.exists():
        standings, before = checkpoints.restore(checkpoint, name, population, plan.keep)
    groups, start = [], 0
    for standing in standings:
        stop = start + len(standing.tensors["lasted"]) if standing else len(population)
        size = group_size(population)
        for at in range(start, stop, size):
            rows = slice(at, min(at + size, stop))
            part = standing[rows.start - start : rows.stop - start] if standing else None
            groups.append(Group(population, rows, plan, part))
        start = stop
    started = saved = time.monotonic()
    cost = 0.0

    def save() -> None:
        if checkpoint and distributed.rank() == 0:
            checkpoints.save(groups, checkpoint, name, before + time.monotonic() - started)

    on_cpu = population.device.type == "cpu"
    if on_cpu:
        keep_freed_memory()
    try:
        # as many threads each, even for one replica: its numbers must not depend on how many others there are
        threads = threads_each(population)
        at_once = cores() // threads if on_cpu and distributed.size() == 1 else 1
        with workers(at_once, threads) as spread, distributed.stopping_together() as call:
            while waiting := [group for group in groups if not group.begun]:
                spread(Group.begin, waiting)
                groups = _halved(groups)
            while unfinished := [group for group in groups if group.step < recipe.steps]:
                behind = sorted(unfinished, key=lambda group: group.step)
                chosen = behind[:at_once] if on_cpu else unfinished[:1]
                for group in chosen:
                    group.get_ready()
                if any(group.too_big for group in chosen):
                    groups = _halved(groups)
                    continue
                spread(Group.advance, chosen)
                if time.monotonic() - saved > max(CHECKPOINT_EVERY, cost / CHECKPOINT_SHARE):
                    begun = time.monotonic()
                    save()
                    saved = time.monotonic()
                    cost = saved - begun
                call(watch, _progress(groups, recipe))
    except KeyboardInterrupt:
        if not any(group.midway for group in groups):  # otherwise the checkpoint before stays
            save()
        raise
    lasted = torch.cat([group.standing().tensors["lasted"].cpu() for group in groups]).tolist()
    final = concat([group.result() for group in groups])
    ended = [min(step, recipe.steps - (not sound)) for step, sound in zip(lasted, final.sound(), strict=True)]
    run = Run(
        final=final,
        history=pd.concat([group.table() for group in groups], ignore_index=True),
        snapshots={step: concat([group.kept[step] for group in groups]) for step in plan.keep},
        seconds=before + time.monotonic() - started,
        failed={r: step for r, step in enumerate(ended) if step < recipe.steps},
    )
    if run.failed:
        r, step = next(iter(run.failed.items()))
        warnings.warn(
            f"{len(run.failed)} of {len(population)} replicas failed: the loss of replica {r} (seed "
            f"{population.seeds[r]}) is not a number from step {step} on. Run.failed lists them; a lower lr may help",
            stacklevel=2,
        )
    return run


def group_size(population: Population) -> int:
    """How many replicas share one stacked step, to begin with: all on a GPU, one on a CPU."""
    return 1 if population.device.type == "cpu" else len(population)


def threads_each(population: Population) -> int:
    """Cores that one replica gets on a CPU: one, but all of them for a large network.

    Two small networks on two cores do not get in each other's way, two halves of an operation of one small network
    do. Of large ones the caches hold one, and its operations are long enough to be shared.
    """
    return cores() if is_wide(population) else 1


def _halved(groups: list[Group]) -> list[Group]:
    """The groups, with two halves in the place of each that did not fit into the device's memory."""
    if not any(group.too_big for group in groups):
        return groups
    of = groups[0].population
    if any(group.too_big and len(group) == len(of) for group in groups):  # said once
        warnings.warn(f"{len(of)} replicas do not fit into {of.device} together", stacklevel=3)
    halved = [part for group in groups for part in (group.halves() if group.too_big else [group])]
    memory.free()
    return halved


def check(population: Population, plan: Plan) -> None:
    """Raises UsageError where these cannot be trained together."""
    model, data, recipe, updates, frame = population.model, plan.data, plan.recipe, plan.updates, population.frame
    if model.shape != data.shape or model.classes != data.classes:
        raise UsageError(
            f"{model.name} was made for {model.shape} images of {model.classes} classes, "
            f"{data.name} has {data.shape} of {data.classes}"
        )
    if population.device != data.train.device:
        raise UsageError(f"the population is on {population.device}, {data.name} on {data.train.device}")
    if "seed" not in frame:
        raise UsageError("the frame needs a column `seed`: the replica's seed for its data order")
    if taken := sorted({"step", "loss", "accuracy"} & set(frame)):
        raise UsageError(f"column `{taken[0]}` of the frame is one that training writes to its history: rename it")
    for column in {"seed", *PER_REPLICA} & set(frame):
        if frame[column].isna().any():
            raise UsageError(f"column `{column}` of the frame is empty for some replicas: fill it in for all of them")
    for column in {"batch_size", "steps", "optimizer", "momentum"} & set(frame):
        if (frame[column] != getattr(recipe, column)).any():
            raise UsageError(
                f"column `{column}` of the frame differs from the recipe's {getattr(recipe, column)}: replicas "
                "trained together share it. Train one population for each"
            )
    if recipe.batch_size % (processes := distributed.size()):
        raise UsageError(
            f"batch_size={recipe.batch_size} cannot be shared by {processes} processes: take a multiple of "
            f"{processes}, or another number of them"
        )
    if late := [step for step in plan.keep if not recipe.first_step <= step <= recipe.steps]:
        raise UsageError(f"step {late[0]} cannot be kept: the run goes from {recipe.first_step} to {recipe.steps}")
    if recipe.precision == "bf16" and population.device.type == "cuda":
        name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
        if major < 8:
            raise UsageError(f"bf16 needs compute capability 8.0, {name} has {major}.{minor}: take precision='fp32'")
    if recipe.batch_size > len(data.train):
        raise UsageError(
            f"batch_size={recipe.batch_size} is more than the {len(data.train)} training images of {data.name}: "
            f"set it to {len(data.train)} or less"
        )
    if teacher := plan.teacher:
        if (teacher.model.shape, teacher.model.classes) != (model.shape, model.classes):
            raise UsageError(
                f"the teacher was made for {teacher.model.shape} images of {teacher.model.classes} classes, "
                f"its students for {model.shape} of {model.classes}"
            )
        if len(teacher) not in (1, len(population)) or teacher.device != population.device:
            raise UsageError(
                f"{len(teacher)} teachers on {teacher.device} for {len(population)} students on {population.device}: "
                "give one, or one each, on the same device"
            )
    elif recipe.distill or frame.get("distill", pd.Series()).any():
        raise UsageError("`distill` is not 0, but there is no teacher: train(…, teacher=population)")
    if plan.penalty and (found := plan.penalty(population.params, population.masks)).shape != (len(population),):
        raise UsageError(f"the penalty has shape {tuple(found.shape)}, expected a number for each of {len(population)}")
    if unused := updates.keys() - set(frame.get("method", ())):
        raise UsageError(f"no replica has method {', '.join(sorted(unused))}: a mask update would never happen")


def _progress(groups: Sequence[Group], recipe: Recipe) -> Progress:
    replicas = sum(len(group) for group in groups)
    step = sum(group.step * len(group) for group in groups) / replicas
    latest = [accuracy for group in groups for accuracy in (group.history[-1]["accuracy"] if group.history else ())]
    known = [accuracy for accuracy in latest if accuracy == accuracy]
    return Progress(replicas, step, recipe.steps, float(np.mean(known)) if known else math.nan)
