"""A shard's work on a machine of a cluster: in a store of its own, and sent home as it is finished.

Shard and caller talk through the `Desk`, an actor beside the cluster's head: the one leaves there what it has to tell,
the other takes it, and says there when it is time to stop.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch

import lth
from lth.data import Data
from lth.errors import LthError
from lth.files import ABANDONED
from lth.models import register
from lth.population import Population
from lth.store.archives import Archives
from lth.store.measures import Measures
from lth.store.runs import Store, unfinished
from lth.training.plan import Plan, Progress

TELL_EVERY = 1.0  # seconds between two words on where training stands
PREFIX = "lth-shard-"  # of a shard's folder among the temporary ones


class Desk:
    """Messages of shards, call by call: (shard, kind, …) of plain Python."""

    def __init__(self) -> None:
        self.told: dict[str, list[tuple]] = {}
        self.stopped: set[str] = set()

    def tell(self, call: str, *message: Any) -> bool:
        """Whether the shard may go on."""
        self.told.setdefault(call, []).append(message)
        return call not in self.stopped

    def take(self, call: str) -> list[tuple]:
        return self.told.pop(call, [])

    def stop(self, call: str) -> None:
        self.stopped.add(call)


@dataclass
class Mail:
    """A shard's way home.

    tell: (kind, …) → what gives the desk's answer, whether to go on. root: the shard's store. device: cpu or cuda.
    """

    tell: Callable[..., Callable[[], bool]]
    root: Path
    device: str
    checkpoint: str = ""  # the name of the one that is written now
    sent: int = 0  # when that was written last
    told: float = 0.0

    def files(self, name: str) -> None:
        """Sends a run or a measure home, where it then is, and no more here. KeyboardInterrupt where all is to end."""
        path = self.root / name
        paths = sorted(path.iterdir()) if path.is_dir() else [path]
        go_on = self.tell("done", name, {str(p.relative_to(self.root)): p.read_bytes() for p in paths})()
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not go_on:
            raise KeyboardInterrupt

    def watch(self, progress: Progress) -> None:
        """Tells where training stands, now and then; KeyboardInterrupt where it is to end."""
        self.send_checkpoint()
        if time.monotonic() - self.told > TELL_EVERY:
            self.told = time.monotonic()
            if not self.tell("at", progress.replicas, progress.step, progress.accuracy)():
                raise KeyboardInterrupt

    def send_checkpoint(self) -> None:
        file = self.root / self.checkpoint
        if self.checkpoint and file.exists() and file.stat().st_mtime_ns != self.sent:
            self.sent = file.stat().st_mtime_ns
            self.tell("checkpoint", self.checkpoint, file.read_bytes())()


def train(mail: Mail, names: Sequence[str], rows: list[int], population: Population, plan: Plan, data: Data) -> None:
    """Trains some replicas of a shard; its plan comes without the data, which all shards share."""
    part, own = population[rows], plan.of(rows, population.frame.iloc[rows])
    own = replace(to(own, mail.device), data=to(data, mail.device))
    (mail.root / "checkpoints").mkdir(exist_ok=True)
    try:
        Store(mail.root).fill(keys(names), part.to(mail.device), own, mail.watch)
    finally:
        mail.send_checkpoint()


def measure(mail: Mail, names: Sequence[str], rows: list[int], population: Population, how: tuple[Any, ...]) -> None:
    """Measures some replicas of a shard. how: the measure, its arguments and its options."""
    what, args, options = to(how, mail.device)
    Measures(mail.root, Archives(mail.root))(what, population[rows].to(mail.device), *args, **options)


def work(
    home: tuple[Any, str, int],
    job: Callable[..., None],
    device: str,
    names: Sequence[str],
    checkpoints: Mapping[str, bytes],
    build: tuple[str, Callable] | None,
    *what: Any,
) -> tuple[str, str] | None:
    """A shard: `job` for the replicas of these names, on a CPU one after another. The kind and words of a failure.

    home: the desk, and which call and shard this is. checkpoints: content of those that the caller has of them.
    build: name and builder of an architecture of the user's.
    """
    import ray

    def tell(*message: Any) -> Callable[[], bool]:
        desk, call, place = home
        answer = desk.tell.remote(call, place, *message)
        return lambda: ray.get(answer)

    try:
        torch.set_num_threads(1)  # whatever the machine has: the numbers of a run on one core
        _sweep()
        if build:
            register(*build)
        with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
            mail, start = Mail(tell, Path(folder), device), 0
            tell("begun", socket.gethostname())()
            for part in parts(names, device):
                mail.checkpoint = checkpoint(part)
                if mail.checkpoint in checkpoints:
                    (mail.root / mail.checkpoint).parent.mkdir(exist_ok=True)
                    (mail.root / mail.checkpoint).write_bytes(checkpoints[mail.checkpoint])
                job(mail, part, list(range(start, start + len(part))), *what)
                for name in part:
                    mail.files(name)
                start += len(part)
    except KeyboardInterrupt:
        return None
    except Exception as error:  # noqa: BLE001 - the caller tells it in one line
        words = str(error).split("\n")[0]
        return type(error).__name__, words if isinstance(error, LthError) else f"{type(error).__name__}: {words}"
    return None


def parts(names: Sequence[str], device: str) -> list[Sequence[str]]:
    """Those of a shard's names that are worked on together: on a GPU all, on a CPU one after another."""
    return [names] if device == "cuda" else [[name] for name in names]


def checkpoint(names: Sequence[str]) -> str:
    """The name of the checkpoint of runs that are trained together."""
    return unfinished(keys(names))


def keys(names: Sequence[str]) -> list[str]:
    """Those of the runs of these names."""
    return [name.removeprefix("runs/") for name in names]


def to(thing: Any, device: str) -> Any:
    """The same on another device, with all that it holds."""
    if hasattr(thing, "to"):
        return thing.to(device)
    if isinstance(thing, list | tuple):
        return type(thing)(to(part, device) for part in thing)
    if isinstance(thing, Mapping):
        return {name: to(part, device) for name, part in thing.items()}
    if is_dataclass(thing) and not isinstance(thing, type):
        moved = {f.name: to(getattr(thing, f.name), device) for f in fields(thing) if f.init}
        changed = {name: part for name, part in moved.items() if part is not getattr(thing, name)}
        return replace(thing, **changed) if changed else thing
    return thing


def versions() -> dict[str, str]:
    """What must be the same on all machines."""
    code = hashlib.sha256()
    for file in sorted(Path(lth.__file__).parent.rglob("*.py")):
        code.update(file.read_bytes())
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "torch": torch.__version__,
        "lth": f"{lth.__version__} (code {code.hexdigest()[:8]})",
    }


def _sweep() -> None:
    """Removes what shards that were killed on this machine left, once it is a day old."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > ABANDONED:
                shutil.rmtree(folder)
