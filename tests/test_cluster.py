"""Many machines: a true Ray cluster of two machines with one core each, on this one, gives the bits of a plain run."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from lth.analysis import smoothness
from lth.book import cli
from lth.cluster import call as calls
from lth.cluster import machines, shard
from lth.cluster.machines import Cluster
from lth.data import Data
from lth.errors import LthError, UsageError
from lth.methods import imp, prune, repulsion
from lth.methods.init import glorot_uniform
from lth.methods.tweaks import GradInit
from lth.models import Model
from lth.population import Population
from lth.store.measures import Measures
from lth.store.runs import Store
from lth.tensor_files import save_tensors
from lth.training import train as training
from lth.training.plan import Probe, Run
from lth.training.recipe import Recipe

RECIPE = Recipe(steps=40, batch_size=8, weight_decay=1e-3)
FOREVER = 300.0  # seconds after which what is waited for will not come
OBJECTS = 80_000_000  # bytes, the least that Ray takes


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without cores and two machines with one core each."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster as Started

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a worker cannot import tests
    head = {"num_cpus": 0, "object_store_memory": OBJECTS, "include_dashboard": False}
    started = patiently(lambda: Started(True, head_node_args=head))
    for _ in range(2):
        patiently(lambda: started.add_node(num_cpus=1, object_store_memory=OBJECTS))
    yield Cluster(started.address)
    ray.shutdown()
    started.shutdown()


def patiently(start: Callable[[], Any]) -> Any:
    """What `start` starts. Ray gives up after half a minute, in which a busy machine starts nothing."""
    for _ in range(9):
        with contextlib.suppress(Exception):
            return start()
    return start()


@pytest.fixture
def store(tmp_path, cluster) -> Store:
    return Store(tmp_path / "store", on=cluster)


def same(a: Run, b: Run) -> bool:
    """Bit-equal weights, masks and kept copies, equal histories."""
    pairs = [(a.final, b.final), *((a.at(step), b.at(step)) for step in a.snapshots)]
    equal = [torch.equal(p.theta(), q.theta()) and torch.equal(p.theta_mask(), q.theta_mask()) for p, q in pairs]
    return all(equal) and a.snapshots.keys() == b.snapshots.keys() and a.history.equals(b.history)


@dataclass(frozen=True)
class Diary:
    """A probe that leaves a file for each of its calls, SEED-PROCESS-NUMBER, and at the third one of a seed does more.

    then: "wait" for the file go, "fail", or allow the process "small" files only. caller: the process of the test.
    """

    folder: str
    caller: int
    seed: int
    then: str = "wait"

    def __call__(self, population: Population, data: Data) -> dict[str, list[int]]:
        folder, me, (seed,) = Path(self.folder), os.getpid(), population.seeds
        number = len(list(folder.glob(f"{seed}-{me}-*")))
        (folder / f"{seed}-{me}-{number}").touch()
        if me != self.caller:  # a worker, which writes a checkpoint and tells where it is between any two stretches
            training.CHECKPOINT_EVERY, training.CHECKPOINT_SHARE, shard.TELL_EVERY = 0.0, float("inf"), 0.0
            if seed == self.seed and number == 2:
                self.more(folder)
        return {"seen": [seed]}

    def more(self, folder: Path) -> None:
        if self.then == "fail":
            raise ValueError("no such luck\nsecond line")
        if self.then == "small":
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        waited = 0.0
        while self.then == "wait" and not (folder / "go").exists():
            time.sleep(0.05)
            waited += 0.05
            if waited > FOREVER:
                raise TimeoutError("nobody came")


def probed(tmp_path: Path, seed: int, then: str = "wait") -> dict:
    """How networks are trained that keep a diary."""
    (tmp_path / "diary").mkdir(exist_ok=True)
    diary = Diary(str(tmp_path / "diary"), os.getpid(), seed, then)
    return {"recipe": RECIPE, "probes": [Probe(10, diary)], "keep": [0, 20]}


def notes(tmp_path: Path, seed: int) -> dict[int, int]:
    """Process → calls of the probe for a seed."""
    found: dict[int, int] = {}
    for file in (tmp_path / "diary").glob(f"{seed}-*"):
        process = int(file.name.split("-")[1])
        found[process] = found.get(process, 0) + 1
    return found


def once(happened: Callable[[], bool], then: Callable[[], None]) -> threading.Thread:
    """A thread that does something once something else has happened."""

    def run() -> None:
        for _ in range(int(20 * FOREVER)):
            if happened():
                return then()
            time.sleep(0.05)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


# --- the same bits ----------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_two_machines_give_the_bits_of_one(store, toy):
    population = glorot_uniform(Model("lenet5"), seeds=range(5), method="dense").label(lr=[0.1, 0.05, 0.1, 0.02, 0.1])
    how = {
        "recipe": RECIPE.model_copy(update={"distill": 0.5}),
        "updates": {"dense": prune.Gradual(sparsity=0.9, start=10, end=30, every=5)},
        "keep": [0, 20],
        "teacher": glorot_uniform(Model("lenet5"), seeds=range(10, 15)),
        "penalty": repulsion.of(population, [glorot_uniform(Model("lenet5"), seeds=range(5, 10))], 2.0),
    }
    told = []
    run = store.train(population, toy, **how, watch=told.append)
    assert same(run, training.train(population, toy, **how))
    assert told[-1].step == RECIPE.steps and told[-1].where.endswith("5 of 5 replicas back")
    assert not list((store.root / "checkpoints").iterdir()) and not list((store.root / "partial").iterdir())
    assert same(replace(store, on=None).train(population, toy, **how), run)


@pytest.mark.thorough
def test_measures_are_those_of_one_machine(tmp_path, cluster, lenets, toy):
    many, one = Measures(tmp_path / "many", on=cluster), Measures(tmp_path / "one")
    hessian = smoothness.curvature, lenets, [toy.train.evenly(20)], 0.5
    pd.testing.assert_frame_equal(many(*hessian), one(*hessian), check_exact=True)
    scales = [measure(GradInit(batch_size=20, iterations=2), lenets, toy.train) for measure in (many, one)]
    assert all(torch.equal(found, scales[1][name]) for name, found in scales[0].items())
    assert many.used == one.used


@pytest.mark.thorough
def test_an_architecture_of_the_users_travels(store, toy):
    from lth.models import register

    class Wide(torch.nn.Module):
        def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(28 * 28, classes)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.layer(images.flatten(1))

    register("wide", Wide)
    population = glorot_uniform(Model("wide"), seeds=[0], method="dense")
    assert same(store.train(population, toy, RECIPE), training.train(population, toy, RECIPE))


# --- what dies goes on ------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_killed_worker_goes_on_from_its_checkpoint(store, lenets, toy, tmp_path, capfd):
    how = probed(tmp_path, seed=1)
    go = tmp_path / "diary" / "go"

    def kill() -> None:
        (worker,) = notes(tmp_path, 1)
        go.touch()
        os.kill(worker, signal.SIGKILL)

    # what a checkpoint of seed 1 says is in the caller's store before its worker is killed in the middle of a step
    killer = once(lambda: any((store.root / "checkpoints").glob("*.safetensors")) and third(tmp_path, 1), kill)
    run = store.train(lenets, toy, **how)
    killer.join()
    assert sorted(notes(tmp_path, 1).values()) == [3, 3]  # before steps 0, 10 and 20; from 20 to 40
    assert same(run, training.train(lenets, toy, **how))
    assert not list((store.root / "checkpoints").iterdir())
    assert "raylet" not in capfd.readouterr().out  # which would stand on a chapter's page


def third(tmp_path: Path, seed: int) -> bool:
    """Whether the probe waits."""
    return max(notes(tmp_path, seed).values(), default=0) == 3


@pytest.mark.thorough
def test_ctrl_c_reaches_the_workers_and_the_same_command_goes_on(store, lenets, toy, tmp_path, monkeypatch, cluster):
    how, go, stop = probed(tmp_path, seed=1), tmp_path / "diary" / "go", calls.Call._stop

    def told_then_go(call: calls.Call) -> None:
        machines.ray.get(call.desk.stop.remote(call.id))
        go.touch()
        stop(call)

    def interrupt(progress: object) -> None:
        if third(tmp_path, 1):
            raise KeyboardInterrupt

    monkeypatch.setattr(calls.Call, "_stop", told_then_go)
    with pytest.raises(KeyboardInterrupt):
        store.train(lenets, toy, **how, watch=interrupt)
    assert list((store.root / "checkpoints").iterdir())
    first = notes(tmp_path, 1)
    run = store.train(lenets, toy, **how)
    assert sum(notes(tmp_path, 1).values()) - sum(first.values()) == 2  # after steps 30 and 40
    assert same(run, training.train(lenets, toy, **how))
    assert not cluster.calls and not cluster.busy


@pytest.mark.thorough
@pytest.mark.parametrize(("then", "words"), [("fail", "ValueError: no such luck"), ("small", "cannot write")])
def test_what_fails_is_told_in_a_line_with_the_machine(store, lenets, toy, tmp_path, then, words):
    how = probed(tmp_path, seed=1, then=then)
    store.train(lenets[[0]], toy, **how)
    with pytest.raises(LthError) as told:
        store.train(lenets[:2], toy, **how)
    assert str(told.value).startswith(f"on {socket.gethostname()}: ") and words in str(told.value)
    assert "\n" not in str(told.value)
    assert len(list((store.root / "runs").iterdir())) == 1
    for worker in notes(tmp_path, 1):  # which can write no more
        os.kill(worker, signal.SIGKILL)


# --- ladders ----------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_networks_climb_their_ladders_without_waiting(store, lenets, toy, tmp_path, monkeypatch, cluster):
    """Seed 0 waits in its first round for seed 1 to end its last one."""
    how, branches, bring = probed(tmp_path, seed=0), [], Cluster.train

    def noted(self: Cluster, *args: object) -> None:
        branches.append(self.in_branch())
        bring(self, *args)

    monkeypatch.setattr(Cluster, "train", noted)
    train = lambda population, recipe, **kind: store.train(  # noqa: E731
        population, toy, recipe, **{"probes": how["probes"], **kind}
    )
    last = 20_001  # the seed of its order of images
    opener = once(lambda: sum(notes(tmp_path, last).values()) == 5, (tmp_path / "diary" / "go").touch)
    terms = {"penalty": lambda start, earlier: repulsion.of(start, earlier, 2.0), "ratio": 0.5}
    runs = imp.ladder(lenets[:2], 2, train, RECIPE, **terms, ahead=cluster.ahead)
    opener.join()
    assert branches and all(branches)  # when all climb together, all is there
    plain = lambda population, recipe, **kind: training.train(  # noqa: E731
        population, toy, recipe, probes=how["probes"], **kind
    )
    for run, other in zip(runs, imp.ladder(lenets[:2], 2, plain, RECIPE, **terms), strict=True):
        assert same(run, other)


@pytest.mark.thorough
def test_branches_share_what_both_want_and_end_together(store, lenets, toy, tmp_path, cluster):
    how = probed(tmp_path, seed=-1)
    cluster.side_by_side(lambda _: store.train(lenets, toy, **how), range(3))
    assert [sum(notes(tmp_path, seed).values()) for seed in lenets.seeds] == [5, 5, 5]  # each trained once

    how = probed(tmp_path, seed=7)

    def one(branch: int) -> None:
        if branch:
            store.train(lenets[[0]].label(seed=7), toy, **how)  # which waits for ever
        while not third(tmp_path, 7):
            time.sleep(0.05)
        (tmp_path / "diary" / "go").touch()
        raise LthError("no more")

    with pytest.raises(LthError, match="no more"):
        cluster.side_by_side(one, range(2))


# --- cut ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "devices", "parts"),
    [([0, 1, 2, 5, 6], 2, [[0, 1, 2], [5, 6]]), ([3], 8, [[3]]), ([1, 2], 0, [[1, 2]]), ([], 4, [])],
)
def test_replicas_are_cut_evenly(rows, devices, parts):
    assert calls.cut(rows, devices) == parts


def test_on_a_gpu_the_replicas_of_a_checkpoint_stay_together(tmp_path):
    """So a cluster of another size goes on from it; a checkpoint of others, or half a file, is nobody's."""
    (tmp_path / "checkpoints").mkdir()
    names = [f"runs/{key}" for key in "abcdef"]
    for keys in ("d-b", "x-y", "a-x"):
        save_tensors(tmp_path / shard.checkpoint(keys.split("-")), {"t": torch.zeros(1)}, {"name": keys})
    (tmp_path / "checkpoints" / "half.safetensors").write_bytes(b"no header")
    on_gpus, on_cores = ([p.rows for p in calls.shards(tmp_path, names, range(5), 2, d)] for d in ("cuda", "cpu"))
    assert on_gpus == [[3, 1], [0, 2], [4]]
    assert on_cores == [[0, 1, 2], [3, 4]]


# --- asked for wrongly ------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_other_versions_are_refused_by_name(cluster, monkeypatch):
    monkeypatch.setattr(shard, "versions", lambda: {**VERSIONS, "torch": "1.0"})
    with pytest.raises(UsageError, match="has torch .*, this machine torch 1.0: install the same on all machines"):
        Cluster(cluster.address)
    with pytest.raises(UsageError, match="no GPU in the Ray cluster"):
        Cluster(cluster.address, "cuda")


VERSIONS = shard.versions()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ray://127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
        ("kubernetes", "--on kubernetes: write ray"),
        ("ray://head", "--on ray://head: write ray"),
    ],
)
def test_an_address_where_nothing_is(address, words, tmp_path):
    pytest.importorskip("ray")
    said = CliRunner().invoke(cli.cli, ["run", "3", "--preset", "smoke", "--out", str(tmp_path), "--on", address])
    assert isinstance(said.exception, UsageError) and words in str(said.exception)


def test_without_ray_and_inside_torchrun(monkeypatch):
    monkeypatch.setattr(machines, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'lth\[cluster\]'"):
        machines.check("ray")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(UsageError, match="inside torchrun"):
        machines.check("ray")
