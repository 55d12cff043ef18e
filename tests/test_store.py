"""The store: what was trained is never trained again, and nothing that stops a run changes its numbers."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import random
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch

from lth import files
from lth.data import Data, Split, fingerprint
from lth.errors import LthError, UsageError
from lth.methods import prune
from lth.methods.init import glorot_uniform
from lth.models import Model
from lth.population import Population
from lth.store import runs as store_module
from lth.store.runs import Store
from lth.training import group as engine
from lth.training import train
from lth.training.identity import run_keys
from lth.training.plan import Plan, Probe, Run
from lth.training.recipe import Recipe

HOW = {
    "recipe": Recipe(steps=40, batch_size=8, weight_decay=1e-3),
    "updates": {"dense": prune.Gradual(sparsity=0.9, start=10, end=30, every=5)},
    "keep": [0, 20],
}


def sparsity(population: Population, data: Data) -> dict:
    return {"sparsity": population.sparsity()}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def trained(monkeypatch) -> list[list[int]]:
    """The seeds of every population that is really trained, call by call."""
    calls: list[list[int]] = []

    def counted(population: Population, *args: object, **kind: object) -> Run:
        calls.append(population.seeds)
        return train.train(population, *args, **kind)

    monkeypatch.setattr(store_module, "train", counted)
    return calls


def same(a: Run, b: Run) -> bool:
    """Bit-equal weights, masks and snapshots, equal histories."""
    pairs = [(a.final, b.final), *((a.at(step), b.at(step)) for step in a.snapshots)]
    equal = [torch.equal(p.theta(), q.theta()) and torch.equal(p.theta_mask(), q.theta_mask()) for p, q in pairs]
    return all(equal) and a.snapshots.keys() == b.snapshots.keys() and a.history.equals(b.history)


def runs(store: Store) -> list[Path]:
    return sorted((store.root / "runs").iterdir())


# --- trained once -------------------------------------------------------------------------------------------


def test_a_second_call_trains_nothing_and_gives_the_same(store, lenets, toy, trained):
    kind = HOW | {"probes": [Probe(15, sparsity)]}
    plain = train.train(lenets, toy, **kind)
    first, second = (store.train(lenets, toy, **kind) for _ in range(2))
    assert trained == [[0, 1, 2]]
    assert same(first, plain) and same(second, plain)
    assert second.final.frame.equals(lenets.frame)
    assert len(runs(store)) == 3
    assert not list((store.root / "checkpoints").iterdir()) and not list((store.root / "partial").iterdir())


def test_only_new_seeds_are_trained(store, toy, trained):
    population = glorot_uniform(Model("lenet5"), seeds=[5, 6, 7, 8], method="dense")
    store.train(population[[2, 0]], toy, **HOW)
    everything = store.train(population, toy, **HOW)
    assert trained == [[7, 5], [6, 8]]
    assert same(everything, train.train(population, toy, **HOW))


@pytest.mark.threads
def test_a_single_new_seed_gives_the_numbers_it_would_give_among_others(store, lenets, toy, trained):
    store.train(lenets[:2], toy, **HOW)
    everything = store.train(lenets, toy, **HOW)
    assert trained == [[0, 1], [2]]
    assert same(everything, train.train(lenets, toy, **HOW))


def test_labels_are_not_part_of_the_name(store, lenets, toy, trained):
    kind = {"recipe": HOW["recipe"], "keep": [20]}
    store.train(lenets, toy, **kind)
    other = lenets[[1, 0]].label(method="Scratch", level=[1.5, 2.5])
    again = store.train(other, toy, **kind)
    assert len(trained) == 1
    assert again.final.frame.equals(other.frame) and again.at(20).frame.equals(other.frame)
    assert again.history.method.eq("Scratch").all()
    assert again.history.groupby("level").seed.unique().map(list).to_dict() == {1.5: [1], 2.5: [0]}


@dataclass(frozen=True)
class OtherGradual(prune.Gradual):
    """The same fields under another name."""


def test_whatever_changes_the_result_changes_the_name(lenets, toy):
    def key(population: Population = lenets[[0]], data: Data = toy, **changes: object) -> str:
        kind = {"probes": ()} | HOW | changes
        (name,) = run_keys(population, Plan(data, **kind))
        return name

    one, gradual = lenets[[0]], HOW["updates"]["dense"]
    other_weights = one.with_theta(one.theta() + torch.nn.functional.one_hot(torch.tensor([7]), 44_426) * 1e-6)
    names = {
        "as it is": key(),
        "data order": key(one.label(seed=9)),
        "lr of the replica": key(one.label(lr=0.01)),
        "decay of the replica": key(one.label(weight_decay=0.01)),
        "one weight": key(other_weights),
        "masks": key(replace(one, masks=prune.magnitude_masks_per_layer(one, 0.01))),
        "data": key(data=replace(toy, fingerprint="other")),
        "no update": key(updates={}),
        "later update": key(updates={"dense": replace(gradual, end=35)}),
        "other update": key(updates={"dense": OtherGradual(**vars(gradual))}),
        "keep": key(keep=[0]),
        "probe": key(probes=[Probe(10, sparsity)]),
        "steps of the probe": key(probes=[Probe(20, sparsity)]),
    }
    recipe = {"steps": 41, "batch_size": 9, "optimizer": "adam", "lr": 0.06, "schedule": "constant", "warmup": 1}
    recipe |= {"momentum": 0.8, "weight_decay": 0, "decay": "kernels_l2", "gamma": 0.2}
    for field, value in recipe.items():
        names[field] = key(recipe=HOW["recipe"].model_copy(update={field: value}))
    assert len(set(names.values())) == len(names)
    alike = [
        key(one.label(method="dense", level=3)),
        key(lenets[[0]]),
        key(recipe=Recipe(**HOW["recipe"].model_dump())),
    ]
    assert alike + [run_keys(lenets, Plan(toy, **HOW))[0]] == [names["as it is"]] * 4


def test_probes_are_told_apart_by_what_they_do(store, lenets, toy, trained):
    """Two lambdas have one name, and must not share one stored history."""
    measures = [lambda population, data: {"a": population.sparsity()}, lambda population, data: {"a": [1.0]}]
    for measure in (*measures, partial(sparsity), *measures):
        store.train(lenets[[0]], toy, Recipe(steps=2, batch_size=4), probes=[Probe(1, measure)])
    assert len(trained) == 3


RULE = """
from dataclasses import dataclass
from lth.methods import prune

@dataclass(frozen=True)
class Own:
    def due(self, step):
        return step == 3

    def masks(self, population, step, data):
        return prune.masks_at_random(population, 0.8, step)
"""


def test_an_edited_rule_does_not_give_the_networks_of_the_old_one(store, lenets, toy, trained, tmp_path, monkeypatch):
    """Of the same name, in a file of the same name: 80 % at random, then 30 % by magnitude, then as it was."""
    sparsities = []
    edited = RULE.replace("masks_at_random(population, 0.8, step)", "magnitude_masks(population, 0.3)")
    for number, text in enumerate((RULE, edited, "# as it was\n" + RULE)):
        path = tmp_path / str(number) / "rules.py"
        path.parent.mkdir()
        path.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location("rules", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "rules", module)
        spec.loader.exec_module(module)
        kind = {"updates": {"dense": module.Own()}, "recipe": Recipe(steps=5, batch_size=4)}
        sparsities += store.train(lenets[[0]], toy, **kind).final.sparsity().tolist()
    assert sparsities == pytest.approx([0.8, 0.3, 0.8], abs=1e-3)
    assert len(trained) == 2 and len(runs(store)) == 2


def test_a_rule_that_is_no_dataclass_is_refused(store, lenets, toy, trained):
    class Own:
        def due(self, step: int) -> bool:
            return False

    with pytest.raises(UsageError, match="Own, is no dataclass"):
        store.train(lenets, toy, Recipe(steps=2), updates={"dense": Own()})
    assert not trained


def test_a_probe_that_changes_what_it_refers_to_is_told(store, lenets, toy):
    seen = []
    probe = Probe(1, lambda population, data: seen.append(1) or {"seen": [1.0]})
    with pytest.warns(UserWarning, match="changed something that it refers to"):
        store.train(lenets[[0]], toy, Recipe(steps=2, batch_size=4), probes=[probe])


def test_what_is_stored_says_what_it_is(store, lenets, toy):
    store.train(lenets.label(lr=[0.1, 0.2, 0.3]), toy, **HOW)
    (key,) = run_keys(lenets[[1]].label(lr=0.2), Plan(toy, **HOW))
    meta = store.verify(key)
    assert meta["replica"] == {"seed": 1, "init_seed": 1, "method": "dense", "lr": 0.2}
    assert meta["recipe"] == {"steps": 40, "batch_size": 8, "weight_decay": 1e-3}
    assert meta["data"] == {"name": "toy", "fingerprint": "toy"}
    assert meta["torch"] == torch.__version__ and meta["device"].startswith("CPU") and meta["seconds"] > 0
    assert sorted(meta["files"]) == ["final.safetensors", "history.csv", "step_20.safetensors"]


# --- stopped ------------------------------------------------------------------------------------------------


@pytest.mark.threads
@pytest.mark.parametrize("calls", [0, 3])
def test_an_interrupted_run_goes_on_and_ends_the_same(store, lenets, toy, monkeypatch, calls):
    monkeypatch.setattr(engine, "STRETCH", 0)  # stop after every step
    left = [calls]

    def stop(progress: train.Progress) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.train(lenets, toy, **HOW, watch=stop)
    assert not (store.root / "runs").exists()
    assert len(list((store.root / "checkpoints").iterdir())) == 1
    steps = []
    resumed = store.train(lenets, toy, **HOW, watch=lambda progress: steps.append(progress.step))
    assert steps[0] > (calls - 1) / 3 and len(steps) < 120
    assert same(resumed, train.train(lenets, toy, **HOW))
    assert not list((store.root / "checkpoints").iterdir())


def test_a_crash_between_two_replicas_being_written_changes_nothing(store, lenets, toy, monkeypatch):
    real, written = Store._write, []

    def crash(self: Store, key: str, *args: object) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(key)
        real(self, key, *args)

    monkeypatch.setattr(Store, "_write", crash)
    with pytest.raises(KeyboardInterrupt):
        store.train(lenets[:2], toy, **HOW)
    assert [run.name for run in runs(store)] == written
    monkeypatch.undo()
    assert same(store.train(lenets[:2], toy, **HOW), train.train(lenets[:2], toy, **HOW))


PROCESS = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from conftest import toy_data
from test_store import HOW, Store, engine, glorot_uniform, train, Model
engine.STRETCH, train.CHECKPOINT_EVERY, train.CHECKPOINT_SHARE = 0.01, 0, float("inf")
population = glorot_uniform(Model("lenet5"), seeds=range(3), method="dense")
run = Store(Path(sys.argv[1])).train(
    population, toy_data(), **HOW, watch=lambda progress: print(progress.step, flush=True)
)
print("done")
"""


def process(store: Store, room: int | None = None) -> subprocess.Popen:
    """Another process that makes the run of `HOW`, saving at every opportunity and telling its step.

    room: bytes that its files may have; beyond that writing fails, as on a full disk.
    """
    code = PROCESS.format(tests=str(Path(__file__).parent))
    limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))) if room else None
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, str(store.root)], preexec_fn=limit, **pipes)


def test_kill_at_any_moment_then_the_same_command_ends_with_the_same_numbers(store, lenets, toy, trained):
    seen: list[float] = []
    with process(store) as killed:
        for _ in range(random.randint(2, 12)):
            seen.append(float(killed.stdout.readline()))
        killed.kill()
    assert killed.returncode == -9 and not (store.root / "runs").exists(), seen
    with process(store) as again:
        steps = again.stdout.read().split()
    assert again.returncode == 0 and steps.pop() == "done"
    assert float(steps[0]) > seen[-2], "it began from the start"
    found = store.train(lenets, toy, **HOW)
    assert not trained
    assert same(found, train.train(lenets, toy, **HOW)), seen


@pytest.mark.thorough
def test_two_processes_at_once(store, lenets, toy, trained):
    both = [process(store), process(store)]
    for one in both:
        assert one.communicate()[0].endswith("done\n") and one.returncode == 0
    assert len(runs(store)) == 3 and not list((store.root / "partial").iterdir())
    assert same(store.train(lenets, toy, **HOW), train.train(lenets, toy, **HOW))
    assert not trained


@pytest.mark.thorough
def test_a_full_disk_is_said_and_the_same_command_goes_on(store, lenets, toy, trained):
    with process(store, room=400_000) as full:  # a checkpoint of three LeNet5 needs a megabyte
        _, told = full.communicate()
    assert full.returncode == 1
    assert re.search(r"LthError: cannot write .*checkpoints.*\.safetensors: .*File too large", told), told
    assert not list((store.root / "checkpoints").iterdir())
    with process(store) as again:
        assert again.communicate()[0].endswith("done\n")
    assert same(store.train(lenets, toy, **HOW), train.train(lenets, toy, **HOW))
    assert not trained


def test_a_disk_that_fills_up_at_the_end_keeps_the_checkpoint(store, lenets, toy, monkeypatch):
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 0)
    monkeypatch.setattr(train, "CHECKPOINT_SHARE", math.inf)
    monkeypatch.setattr(engine, "STRETCH", 0)
    monkeypatch.setattr(store_module, "write_text", full)
    with pytest.raises(LthError, match="cannot write to the store: .*No space left"):
        store.train(lenets, toy, **HOW)
    assert len(list((store.root / "checkpoints").iterdir())) == 1
    assert not list((store.root / "partial").iterdir())
    monkeypatch.undo()
    steps: list[float] = []
    store.train(lenets, toy, **HOW, watch=lambda progress: steps.append(progress.step))
    assert not steps or min(steps) > 20


def test_checkpoints_of_a_long_run_stay_one_file_of_one_size(lenets, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 0)
    monkeypatch.setattr(train, "CHECKPOINT_SHARE", math.inf)
    path, sizes = tmp_path / "run", []

    def look(progress: train.Progress) -> None:
        assert [file.name for file in tmp_path.iterdir()] in ([], ["run"])
        if path.exists():
            sizes.append(path.stat().st_size)

    train.train(lenets, toy, Recipe(steps=600, batch_size=4), keep=[0], checkpoint=path, watch=look)
    assert len(sizes) > 5
    assert max(sizes) < 1.01 * min(sizes)


def test_what_killed_processes_left_is_swept_after_a_day(store, lenets, toy):
    old, new = store.root / "partial" / "old", store.root / "partial" / "new"
    torn = store.root / "checkpoints" / ".x.safetensors.1.partial"
    for folder in (old, new, torn.parent):
        folder.mkdir(parents=True)
    torn.write_text("half", encoding="utf-8")
    for path in (old, torn):
        os.utime(path, (0, 0))
    store.train(lenets[[0]], toy, **HOW)
    assert not old.exists() and not torn.exists() and new.exists()


def test_a_failed_replica_is_stored_as_such(store, toy):
    """Its numbers are as certain as any other's: it is not trained again."""
    population = glorot_uniform(Model("lenet5"), seeds=range(2), method="dense", lr=[0.05, 1e30])
    with pytest.warns(UserWarning, match="1 of 2 replicas failed"):
        first = store.train(population, toy, **HOW)
    again = store.train(population, toy, **HOW)
    assert first.failed == again.failed and list(again.failed) == [1]
    (key,) = run_keys(population[[1]], Plan(toy, **HOW))
    assert store.verify(key)["failed"] == first.failed[1]


# --- damaged ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    """A store with one run; to be copied."""
    from conftest import toy_data

    root = tmp_path_factory.mktemp("filled")
    Store(root).train(glorot_uniform(Model("lenet5"), seeds=[0], method="dense"), toy_data(), **HOW)
    return root


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name", ["final.safetensors", "step_20.safetensors", "history.csv", "meta.json"]
)
@pytest.mark.parametrize(
    "how", [flip, Path.unlink, lambda path: path.write_text("", encoding="utf-8")], ids=["bit", "lost", "empty"]
)
def test_a_damaged_run_is_named_with_the_way_out(store, filled, toy, trained, name, how):
    shutil.copytree(filled, store.root)
    population = glorot_uniform(Model("lenet5"), seeds=[0], method="dense")
    intact = store.train(population, toy, **HOW)
    (folder,) = runs(store)
    if (name, how) == ("meta.json", flip):
        (folder / name).write_text(json.dumps({"files": ["final.safetensors"]}), encoding="utf-8")
    else:
        how(folder / name)
    with pytest.raises(LthError, match=f"lth store rm {folder.name}") as caught:
        store.train(population, toy, **HOW)
    assert "\n" not in str(caught.value) and not trained
    shutil.rmtree(folder)
    assert same(store.train(population, toy, **HOW), intact)


def test_foreign_files_are_left_alone(store, filled, lenets, toy):
    shutil.copytree(filled, store.root)
    (store.root / "runs" / "notes.txt").write_text("mine", encoding="utf-8")
    (store.root / "runs" / "deadbeef").mkdir()
    (store.root / "checkpoints" / "x.safetensors").write_text("mine too", encoding="utf-8")
    store.train(lenets, toy, **HOW)
    assert (store.root / "runs" / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert (store.root / "checkpoints" / "x.safetensors").read_text(encoding="utf-8") == "mine too"
    assert (store.root / "runs" / "deadbeef").is_dir()


def test_a_file_in_the_place_of_a_run_is_named(store, lenets, toy):
    (key, *_) = run_keys(lenets, Plan(toy, **HOW))
    (store.root / "runs").mkdir(parents=True)
    (store.root / "runs" / key).write_text("no run", encoding="utf-8")
    with pytest.raises(LthError, match=f"lth store rm {key}"):
        store.train(lenets, toy, **HOW)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", "a population"])
def test_a_damaged_checkpoint_is_named_with_the_way_out(store, lenets, toy, content):
    def stop(progress: train.Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.train(lenets, toy, **HOW, watch=stop)
    (checkpoint,) = (store.root / "checkpoints").iterdir()
    lenets.save(checkpoint) if content == "a population" else checkpoint.write_bytes(content)
    with pytest.raises(LthError, match=f"{checkpoint}.*remove it") as caught:
        store.train(lenets, toy, **HOW)
    assert "\n" not in str(caught.value)


def test_a_store_that_cannot_be_written_is_said_before_training(tmp_path, lenets, toy, trained):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(LthError, match="cannot write to the store.*LTH_STORE"):
        Store(tmp_path / "file" / "store").train(lenets, toy, **HOW)
    assert not trained


def test_the_store_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("LTH_STORE", str(tmp_path))
    assert files.default_root() == tmp_path
    monkeypatch.delenv("LTH_STORE")
    assert files.default_root().parts[-2:] == (".lth", "store")
    assert os.fspath(files.default_root()).startswith(os.fspath(files.ROOT))


def test_exchanged_images_are_not_taken_for_the_old_ones(store, lenets, toy):
    true, recipe = replace(toy, fingerprint=fingerprint(toy.train, toy.test)), Recipe(steps=2, batch_size=8)
    store.train(lenets[[0]], true, recipe)
    other = replace(true, train=Split(toy.train.images.flip(3), toy.train.labels))
    with pytest.raises(UsageError, match="images of toy are not those of its fingerprint"):
        store.train(lenets[[0]], other, recipe)
    store.train(lenets[[0]], replace(other, fingerprint=fingerprint(other.train, other.test)), recipe)
    assert len(list((store.root / "runs").iterdir())) == 2
