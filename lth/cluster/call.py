"""One population that is trained or measured on a cluster: its shards from the first to the last message."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from lth.cluster import shard
from lth.errors import LthError, UsageError
from lth.files import write_bytes
from lth.models import Model
from lth.store.archives import put
from lth.training import checkpoint

with suppress(ModuleNotFoundError):  # `lth.cluster.machines.check` says so
    import ray
    from ray import exceptions

TICK = 0.2  # seconds between two looks at the desk
PATIENCE = 20.0  # seconds that shards have to write a checkpoint and stop
DEATHS = 3  # of a shard's workers, after which it is no accident


@dataclass
class Shard:
    """Replicas of a call that one device works on.

    where: its machine while it is at work. moved: replica-steps of what it is at. checkpoints: names of those it sent.
    """

    rows: list[int]
    where: str = ""
    deaths: int = 0
    moved: float = 0.0
    accuracy: float = math.nan
    checkpoints: set[str] = field(default_factory=set)


@dataclass
class Call:
    """What is brought into the store at `root`.

    names:  of all replicas of a population, "runs/KEY" or "measures/KEY.safetensors".
    shards: those of them that this call brings.
    job:    `lth.cluster.shard.train` or `measure`; what: rows → what it is given.
    first, steps: where training begins and ends; 0 for a measure.
    back:   how many replicas have come.
    """

    root: Path
    names: Sequence[str]
    shards: list[Shard]
    job: Callable[..., None]
    what: Callable[[list[int]], tuple[Any, ...]]
    model: Model
    desk: Any
    device: str
    first: int = 0
    steps: int = 0
    back: int = 0

    def __post_init__(self) -> None:
        self.id = uuid4().hex
        self.replicas = sum(len(mine.rows) for mine in self.shards)
        self.waiting: dict[Any, Shard] = {}  # for Ray's tasks

    def run(self, look: Callable[[], None]) -> None:
        """Sees all shards to their end. look: is called again and again; where it raises, the shards write their
        checkpoints, which are taken, and end. Raises LthError, naming the machine, where one fails."""
        try:
            for mine in self.shards:
                self._begin(mine)
            while self.waiting:
                for mine, task in self._ended():
                    if self._succeeded(mine, task):
                        for name in mine.checkpoints:
                            (self.root / name).unlink(missing_ok=True)
                    else:
                        self._begin(mine)
                look()
        except BaseException:
            self._stop()
            raise

    def _begin(self, mine: Shard) -> None:
        """Sends a shard on its way, with the checkpoints that are here."""
        mine.rows = [r for r in mine.rows if not (self.root / self.names[r]).exists()]
        names, build = [self.names[r] for r in mine.rows], self.model.registered
        files = [shard.checkpoint(part) for part in shard.parts(names, self.device)]
        known = {file: (self.root / file).read_bytes() for file in files if (self.root / file).exists()}
        mine.checkpoints |= known.keys()
        needs = {"num_cpus": 1, "num_gpus": int(self.device == "cuda"), "max_retries": 0}
        told = f"{self.job.__name__} {len(names)} {self.model.name}"
        task = ray.remote(shard.work).options(name=told, **needs)
        home, own = (self.desk, self.id, self.shards.index(mine)), (self.model.name, build) if build else None
        self.waiting[task.remote(home, self.job, self.device, names, known, own, *self.what(mine.rows))] = mine

    def _ended(self) -> list[tuple[Shard, Any]]:
        """The shards that have ended, and their tasks, once all that they sent is taken."""
        ended, _ = ray.wait(list(self.waiting), timeout=TICK)
        for place, kind, *told in ray.get(self.desk.take.remote(self.id)):
            self._taken(self.shards[place], kind, told)
        return [(self.waiting.pop(task), task) for task in ended]

    def _taken(self, mine: Shard, kind: str, told: list[Any]) -> None:
        """Does what a shard's message asks for."""
        if kind == "begun":
            (mine.where,) = told
        elif kind == "at":
            replicas, step, mine.accuracy = told
            mine.moved = replicas * (step - self.first)
        elif kind == "checkpoint":
            name, content = told
            mine.checkpoints.add(name)
            try:
                write_bytes(self.root / name, content)
            except OSError as error:
                raise LthError(f"cannot write to the store: {error}. Set LTH_STORE to another folder") from error
        else:
            put(self.root, *told)
            self.back, mine.moved = self.back + 1, 0.0

    def _succeeded(self, mine: Shard, task: Any) -> bool:
        """Whether a shard that has ended did so as it should, or its worker died. Raises what failed."""
        where, mine.where, mine.moved = mine.where or "a machine of the cluster", "", 0.0
        try:
            failure = ray.get(task)
        except exceptions.RayTaskError as error:
            failure = "", str(error.cause or error).strip().split("\n")[-1]
        except exceptions.RayError as error:
            mine.deaths += 1
            if mine.deaths > DEATHS:
                raise LthError(
                    f"on {where}: the worker died {mine.deaths} times over the same networks, most likely because "
                    f"memory ran out ({line(error)}); what came back is kept"
                ) from error
            return False
        if failure:
            kind, words = failure
            raise (UsageError if kind == "UsageError" else LthError)(f"on {where}: {words}")
        return True

    def _stop(self) -> None:
        """Has the shards write their checkpoints and end, and takes what they send."""
        with suppress(exceptions.RayError, ConnectionError, LthError):
            ray.get(self.desk.stop.remote(self.id))
            for task, mine in self.waiting.items():
                if not mine.where:
                    ray.cancel(task)
            until = time.monotonic() + PATIENCE
            while self.waiting and time.monotonic() < until:
                self._ended()
            for task in self.waiting:
                ray.cancel(task, force=True)


def shards(root: Path, names: Sequence[str], rows: Sequence[int], devices: float, device: str) -> list[Shard]:
    """Some replicas cut into a shard for each device, at least one. On a GPU, where they are trained together, those of
    one checkpoint in the store at `root` stay together."""
    left, found = list(rows), []
    if device == "cuda":
        place = {names[r]: r for r in rows}
        for file in sorted((root / "checkpoints").glob("*.safetensors")):
            own = [place.get(f"runs/{key}") for key in checkpoint.owners(file)]
            if own and set(own) <= set(left):
                found.append(Shard(own))
                left = [r for r in left if r not in own]
    return found + [Shard(part) for part in cut(left, devices)]


def cut(rows: Sequence[int], devices: float) -> list[list[int]]:
    """As many parts of rows as there are devices, at least one; as equal as can be, none of them empty."""
    parts = np.array_split(np.asarray(rows, int), max(1, int(devices)))
    return [part.tolist() for part in parts if len(part)]


def line(error: Exception) -> str:
    """The first line of what it says."""
    return str(error).strip().split("\n")[0]
