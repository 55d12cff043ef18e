"""Many machines: what a store lacks, trained and measured as tasks of a Ray cluster.

    Store(root, on=Cluster("ray://head:10001")).train(population, data, recipe)

The missing replicas are cut into shards, one for each free device. A shard works in a store of its own on its machine
(`lth.cluster.shard`); whatever is finished there (a run, a measure, a checkpoint) comes back at once and enters the
store of the caller (`lth.cluster.call`). So no disk need be shared, and a shard whose machine dies goes on elsewhere
from what came back last. On CPUs the numbers are those of a run on one core of one machine.
"""

from __future__ import annotations

import contextvars
import math
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lth.cluster import shard
from lth.cluster.call import TICK, Call, cut, line, shards
from lth.data import Data
from lth.errors import LthError, UsageError
from lth.population import Population
from lth.training.plan import Plan, Progress

try:
    import ray
    from ray import exceptions
    from ray._private import worker
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as OnNode
except ModuleNotFoundError:  # an extra, as not everybody has a cluster
    ray = None

HEAD = {"node:__internal_head__": 0.001}  # Ray's name for where the head is
Item = TypeVar("Item")

@dataclass(frozen=True)
class Branch:
    """Work that is done ahead of its turn. stop: whether it shall end. of: how many share the cluster."""

    stop: threading.Event
    of: int


branch: contextvars.ContextVar[Branch | None] = contextvars.ContextVar("branch", default=None)  # of this thread


def check(address: str) -> None:
    """Raises UsageError where nothing can be run on a cluster at this address: ray, ray://HOST:PORT or HOST:PORT."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UsageError("--on ray inside torchrun: take Ray for many networks, torchrun for one on many devices")
    if ray is None:
        raise UsageError("Ray is not installed here: pip install 'lth[cluster]'")
    if address == "ray":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"--on {address}: write ray (this machine) or ray://HOST:PORT (the head of a cluster)")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise UsageError(f"no Ray cluster answers at {host}:{port} ({error}): is its head running?") from error


class Cluster:
    """The machines of a Ray cluster, on which a `Store` and `Measures` have their work done."""

    def __init__(self, address: str = "ray", device: str = "auto") -> None:
        """address: "ray", the cluster that runs on this machine, or else one of its cores and GPUs; "ray://HOST:PORT".
        device: auto (GPUs where there are some), cpu or cuda.

        Raises UsageError where it cannot be reached, has no GPU where one was asked for, or other versions of Python,
        torch or lth.
        """
        check(address)
        self.address = address
        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # tells nobody
            worker.print_to_stdstream = lambda *_, **__: None  # nor the page on which a notebook's words appear
            quiet = {"log_to_driver": False, "logging_level": "ERROR"}
            try:
                ray.init(**quiet) if address == "ray" else ray.init(address, **quiet)
            except Exception as error:  # of many kinds, some of them just that
                raise UsageError(f"the Ray cluster at {address} cannot be used: {line(error)}") from error
        gpus = ray.cluster_resources().get("GPU", 0)
        if device == "cuda" and not gpus:
            raise UsageError(f"no GPU in the Ray cluster at {address}: take --device cpu, or add a machine with one")
        self.device = "cuda" if gpus and device != "cpu" else "cpu"
        self.resource = "GPU" if self.device == "cuda" else "CPU"
        self.desk = ray.remote(shard.Desk).options(num_cpus=0, resources=HEAD).remote()
        self._refuse_strangers()
        self.calls: dict[str, Call] = {}
        self.busy: set[str] = set()  # names that some branch brings
        self.lock = threading.Lock()
        self.data: tuple[Any, Any] = None, None  # the data sent last, and where they are

    def train(
        self,
        root: Path,
        population: Population,
        plan: Plan,
        keys: Sequence[str],
        watch: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        """Brings the runs of all replicas, under their keys, into the store at `root`.

        watch: is told where all that this cluster trains for the caller stands. KeyboardInterrupt has the shards write
        their checkpoints, which are brought, too. Raises LthError, naming the machine, where a shard fails.
        """
        data, plan = self._sent(plan.data), replace(plan, data=None)
        names = [f"runs/{key}" for key in keys]

        def what(rows: list[int]) -> tuple[Any, ...]:
            part = population[rows]
            return part.to("cpu"), shard.to(plan.of(rows, part.frame), "cpu"), data

        steps = plan.recipe.first_step, plan.recipe.steps
        self._bring(root, names, shard.train, what, population.model, steps=steps, watch=watch)

    def measure(
        self, root: Path, measure: Callable[..., Any], population: Population, names: Sequence[str], *how: Any
    ) -> None:
        """Brings what is measured of all replicas, under its names, into the store at `root`."""
        shared = ray.put(shard.to((measure, *how), "cpu"))
        what = lambda rows: (population[rows].to("cpu"), shared)  # noqa: E731
        self._bring(root, names, shard.measure, what, population.model)

    # --- side by side -----------------------------------------------------------------------------------

    def side_by_side(self, function: Callable[[Item], object], items: Sequence[Item]) -> None:
        """`function(item)` for all of them at the same time, each a branch: what they train and measure comes into the
        store, so that afterwards all of it is there. The first error, or Ctrl-C, ends them all."""
        outer = branch.get()
        mine = Branch(outer.stop if outer else threading.Event(), (outer.of if outer else 1) * len(items))

        def run(item: Item) -> None:
            branch.set(mine)
            function(item)

        with ThreadPoolExecutor(max(1, len(items))) as pool:
            futures = [pool.submit(contextvars.copy_context().run, run, item) for item in items]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                mine.stop.set()
                raise

    def in_branch(self) -> bool:
        """Whether this is called from one."""
        return branch.get() is not None

    def ahead(self, function: Callable[[list[int]], object], replicas: int) -> None:
        """`function(rows)` side by side for parts of so many replicas, which need not wait for each other."""
        self.side_by_side(function, cut(range(replicas), self._share()))

    def _share(self) -> float:
        """How many devices a branch has when all have their share; outside of branches all."""
        mine = branch.get()
        return ray.cluster_resources().get(self.resource, 0) // (mine.of if mine else 1)

    def _free(self) -> float:
        return ray.available_resources().get(self.resource, 0)

    # --- a call -----------------------------------------------------------------------------------------

    def _bring(
        self,
        root: Path,
        names: Sequence[str],
        *job: Any,
        steps: tuple[int, int] = (0, 0),
        watch: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        """Has all names brought into the store, those that another branch is bringing by that one. job: see `Call`."""

        def look() -> None:
            watch(self._progress())
            _obey()

        missing = list(range(len(names)))
        while missing:
            with self.lock:
                mine = [r for r in missing if names[r] not in self.busy]
                self.busy.update(names[r] for r in mine)
            try:
                if mine:
                    devices = self._share() if self.in_branch() else self._free()
                    parts = shards(root, names, mine, devices, self.device)
                    self._run(Call(root, names, parts, *job, self.desk, self.device, *steps), look)
                else:
                    _obey()
                    time.sleep(TICK)
            finally:
                with self.lock:
                    self.busy.difference_update(names[r] for r in mine)
            missing = [r for r in missing if not (root / names[r]).exists()]

    def _run(self, call: Call, look: Callable[[], None]) -> None:
        with self.lock:
            self.calls[call.id] = call
        try:
            with self._reached():
                call.run(look)
        finally:
            with self.lock:
                del self.calls[call.id]

    def _progress(self) -> Progress:
        """Of all that is trained for the caller now."""
        with self.lock:
            calls = [call for call in self.calls.values() if call.steps]
        parts = [mine for call in calls for mine in call.shards]
        replicas, back = sum(call.replicas for call in calls), sum(call.back for call in calls)
        ways = [(call.replicas * call.first, call.replicas * call.steps) for call in calls]
        moved = sum(mine.moved for mine in parts) + sum(call.back * (call.steps - call.first) for call in calls)
        nodes = Counter(mine.where for mine in parts if mine.where)
        places = ", ".join(f"{node} ({count})" for node, count in nodes.most_common(3))
        there = f" on {self.resource}s of {places}" if places else ""
        there += f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
        known = [mine.accuracy for mine in parts if mine.accuracy == mine.accuracy]
        return Progress(
            replicas,
            (sum(first for first, _ in ways) + moved) / max(replicas, 1),
            round(sum(steps for _, steps in ways) / max(replicas, 1)),
            float(np.mean(known)) if known else math.nan,
            f"{nodes.total()} of {len(parts)} shards at work{there}, "
            f"{back} of {replicas} replicas back",
        )

    # --- the cluster ------------------------------------------------------------------------------------

    def _sent(self, data: Data) -> Any:
        """Where the cluster has these data: sent once. UsageError where they fit no memory."""
        if data.train.on_disk:
            raise UsageError(
                f"{data.name} lies in a file that no memory holds, and is not sent to a cluster: train it with torchrun"
            )
        with self.lock:
            if self.data[0] is not data:
                self.data = data, ray.put(data.to("cpu"))
            return self.data[1]

    def _refuse_strangers(self) -> None:
        """UsageError where a machine has other versions than this one. It also has the workers load what they need."""

        def about() -> dict[str, str]:  # sent with its code, as that machine may have another lth, or none
            import socket

            try:
                from lth.cluster.shard import versions
            except ImportError:
                return {"machine": socket.gethostname(), "lth": "none that knows clusters"}
            return {"machine": socket.gethostname(), **versions()}

        asked = []
        for node in ray.nodes():
            for _ in range(int(node["Resources"].get(self.resource, 0)) if node["Alive"] else 0):
                there = OnNode(node["NodeID"], soft=False)
                asked.append(ray.remote(about).options(num_cpus=0, scheduling_strategy=there).remote())
        if not asked:
            raise UsageError(f"the Ray cluster at {self.address} has no {self.resource}: add a machine (`ray start`)")
        ours = shard.versions()
        with self._reached():
            for told in ray.get(asked):
                machine = told.pop("machine")
                if other := [name for name in told if told[name] != ours[name]]:
                    theirs, here = (", ".join(f"{name} {of[name]}" for name in other) for of in (told, ours))
                    raise UsageError(f"{machine} has {theirs}, this machine {here}: install the same on all machines")

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """LthError where the cluster is no more."""
        try:
            yield
        except (exceptions.RayError, ConnectionError) as error:
            raise LthError(
                f"the Ray cluster at {self.address} was lost ({line(error)}): what came back is in the store, and the "
                "same command goes on"
            ) from error


def _obey() -> None:
    """KeyboardInterrupt in a branch that shall end."""
    if (mine := branch.get()) and mine.stop.is_set():
        raise KeyboardInterrupt
