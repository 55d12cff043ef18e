"""The speed benchmark, against a clock that we set ourselves, and the page made from its numbers."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from lth.book import speed
from lth.files import ROOT
from lth.models import ARCHITECTURES
from lth.training.plan import Progress

SCRIPT = ROOT / "benchmarks" / "train.py"


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    """The script as a module, which processes that it starts can import, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        yield importlib.import_module("train")


def row(model: str, replicas: int, **values: object) -> dict:
    """A row as the benchmark writes it: 40 against 10 replica-steps per second unless told otherwise."""
    told = {"model": model, "parameters": 1234, "image": "1×28×28", "batch": 128, "precision": "fp32"}
    told |= {"replicas": replicas, "measured": "2001-02-03T04:05:06+00:00", "load_average": 0.5}
    told |= {"replica_steps_per_second": 40.0, "plain_replica_steps_per_second": 10.0, "ratio": 4.0}
    told |= {"images_per_second": 5120.0, "plain_images_per_second": 1280.0, "first_step_seconds": 1.25}
    return told | {"cores_busy_elsewhere": 0.0, "note": "", "peak_bytes": 3 * 2**20, "plain_peak_bytes": 2**30} | values


def left_out(model: str, replicas: int) -> dict:
    kept = ("model", "parameters", "image", "batch", "precision", "replicas", "measured", "load_average")
    return {key: row(model, replicas)[key] for key in kept} | {"note": "left out: too large"}


def machine(kind: str, *rows: dict) -> dict:
    return {"device": f"the {kind}", "kind": kind, "cores": 2, "torch": "9.9", "memory": "bytes", "rows": list(rows)}


# --- the script -----------------------------------------------------------------------------------------------


def test_speed_is_counted_from_when_all_have_begun(bench: ModuleType, monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr(bench, "clock", lambda device: now)
    monkeypatch.setattr(bench, "busy_elsewhere", lambda: 0.5 * now)

    def slow_start(population, data, recipe, *, keep, watch):
        nonlocal now
        assert keep == [1]
        now += 7.0  # set-up and the first step of half the replicas
        watch(Progress(4, 0.5, recipe.steps, 0.0))
        now += 5.0  # the first step of the others
        watch(Progress(4, 1.0, recipe.steps, 0.0))
        for stretch in itertools.count(1):
            now += 0.5
            watch(Progress(4, 1.0 + 10 * stretch, recipe.steps, 0.0))

    def plain(*arguments):
        nonlocal now
        now += 1000.0  # its own first step does not count either
        yield
        while True:
            now += 0.125
            yield

    monkeypatch.setattr(bench, "train", slow_start)
    monkeypatch.setattr(bench, "plain_loop", plain)
    found = bench.race(bench.Contest("lenet5", 4, 16, "fp32", "cpu"), seconds=3.0)
    assert found["first_step_seconds"] == 7.0
    assert found["replica_steps_per_second"] == 4 * 10 / 0.5 and found["images_per_second"] == 16 * 80
    assert found["plain_replica_steps_per_second"] == 1 / 0.125 and found["ratio"] == 10
    assert found["cores_busy_elsewhere"] == 0.5 and found["note"] == "other programs took 0.5 cores meanwhile"


def test_the_plain_loop_is_plain_sgd(bench: ModuleType):
    population, data, recipe = bench.Contest("lenet_300_100", 2, 16, "fp32", "cpu").set_up(steps=3)
    images, labels = data.train.images / 255.0, data.train.labels
    loop = bench.plain_loop(population, images, labels, recipe)
    for _ in range(3):
        next(loop)
    trained = list(loop.gi_frame.f_locals["module"].parameters())
    weights = [p[0].clone().requires_grad_() for p in population.params.values()]
    velocities = [torch.zeros_like(w) for w in weights]
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    for batch in order[: 3 * 16].view(3, 16):
        x = images[batch].flatten(1)
        for layer in range(0, 6, 2):
            x = (F.relu(x) if layer else x) @ weights[layer].T + weights[layer + 1]
        loss = -x.log_softmax(1)[torch.arange(16), labels[batch]].mean()
        for w, v, g in zip(weights, velocities, torch.autograd.grad(loss, weights), strict=True):
            v.mul_(recipe.momentum).add_(g)
            w.data -= recipe.lr * v
    for ours, theirs in zip(weights, trained, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not torch.equal(weights[0], population.params["fc1.weight"][0])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_can_be_measured(bench: ModuleType, name: str):
    contest = bench.Contest(name, 1, 2, "fp32", "cpu")
    module = contest.architecture.build("cpu")
    assert contest.parameters == sum(p.numel() for p in module.parameters())
    assert module.eval()(torch.zeros(1, *contest.architecture.shape)).shape == (1, 10)


def test_what_would_not_fit_is_left_out(bench: ModuleType, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench, "alone", lambda cache, function, *arguments: {} if function is bench.race else 1)
    monkeypatch.setattr(bench, "free_memory", lambda device: 3 * 20 * 5 * 44_426)
    fits, large = (bench.measure(bench.Contest("lenet5", r, 128, "fp32", "cpu"), 1.0) for r in (5, 6))
    assert fits["peak_bytes"] == 1 and "note" not in fits
    assert large["note"] == "left out: about 0 GiB for weights alone" and "peak_bytes" not in large
    assert "left out" in bench.line(large)


def no_memory(path: str) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def end(path: str) -> None:
    os.kill(os.getpid(), 9)


def fail(path: str) -> None:
    raise RuntimeError("something else")


def allocate(path: str) -> None:
    torch.empty(2**62, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("work", "kind", "says"),
    [
        (no_memory, MemoryError, "^out of memory$"),
        (allocate, MemoryError, "^out of memory$"),
        (end, MemoryError, "the system ended it"),
        (fail, RuntimeError, "something else"),
    ],
)
def test_want_of_memory_is_told_apart(bench: ModuleType, tmp_path: Path, work: Callable, kind: type, says: str):
    with pytest.raises(kind, match=says):
        bench.alone(str(tmp_path), work, "")


def test_out_of_memory_is_a_row(bench: ModuleType, monkeypatch: pytest.MonkeyPatch):
    def alone(*arguments):
        raise MemoryError("out of memory")

    monkeypatch.setattr(bench, "alone", alone)
    found = bench.measure(bench.Contest("lenet5", 1, 128, "fp32", "cpu"), 1.0)
    assert found["note"] == "out of memory" and bench.line(found).endswith("out of memory")


def test_a_new_row_takes_the_place_of_the_old_one(bench: ModuleType, tmp_path: Path):
    path, here = tmp_path / "machine.json", {k: v for k, v in machine("cpu").items() if k != "rows"}
    for new in (row("resnet20", 4), row("lenet5", 16), row("lenet5", 4), row("lenet5", 16, ratio=5.0)):
        path.write_text(json.dumps(bench.merged(path, here, new)), encoding="utf-8")
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert [(r["model"], r["replicas"], r["ratio"]) for r in rows] == [
        ("lenet5", 4, 4.0),
        ("lenet5", 16, 5.0),
        ("resnet20", 4, 4.0),
    ]
    other = bench.merged(path, here | {"torch": "10.0"}, row("conv4", 1))
    assert [r["model"] for r in other["rows"]] == ["conv4"]


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("CPU: Intel(R) Xeon(R) Processor, 2 cores", "cpu-intel-xeon-processor-2-cores.json"),
        ("NVIDIA H200", "nvidia-h200.json"),
    ],
)
def test_file_names(bench: ModuleType, device: str, name: str):
    assert bench.file_name(device) == name


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--models", "lenet6"], "unknown: lenet6; known are lenet5, "),
        (["--replicas", "1,0"], "not a list of positive whole numbers"),
        (["--precision", "fp8"], "known are fp32, tf32, bf16"),
        (["--seconds", "0"], "--seconds must be above 0"),
        (["--quick", "--save"], "leave out one of"),
    ],
)
def test_wrong_arguments_are_refused(bench: ModuleType, monkeypatch, capsys, words: list[str], says: str):
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    with pytest.raises(SystemExit) as stop:
        bench.arguments()
    assert stop.value.code == 2 and says in capsys.readouterr().err


@pytest.mark.thorough
def test_it_runs(tmp_path: Path):
    """The whole script on the smallest case, and numbers that hang together."""
    path = tmp_path / "speed.json"
    command = [sys.executable, str(SCRIPT), "--quick", "--device", "cpu", "--models", "lenet5", "--replicas", "3"]
    command += ["--seconds", "0.3", "--json", str(path)]
    surroundings = os.environ | {"OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, capture_output=True, encoding="utf-8", env=surroundings, timeout=120)
    assert said.returncode == 0, said.stderr
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["kind"] == "cpu" and found["torch"] == torch.__version__
    (row,) = found["rows"]
    ours, plain = row["replica_steps_per_second"], row["plain_replica_steps_per_second"]
    assert row["ratio"] == pytest.approx(ours / plain) and row["images_per_second"] == pytest.approx(8 * ours)
    assert row["replicas"] == 3 and ours > 1 and plain > 1 and 0 < row["first_step_seconds"] < 60
    assert f"{row['ratio']:.2f}×" in said.stdout
    # working copies, momentum and results at the very least, and not the libraries as well
    assert 3 * 3 * 4 * 44_426 < row["peak_bytes"] < 2**28


# --- the page -------------------------------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path: Path) -> Callable[..., str]:
    """The page made from these machines, in a staged tree at tmp_path."""

    def make(**machines: dict) -> str:
        folder = tmp_path / "book" / "benchmarks"
        folder.mkdir(parents=True, exist_ok=True)
        for name, told in machines.items():
            (folder / f"{name}.json").write_text(json.dumps(told), encoding="utf-8")
        (tmp_path / "book" / "speed.md").write_text(
            (ROOT / "book" / "speed.md").read_text(encoding="utf-8"), encoding="utf-8"
        )
        speed.write(tmp_path, tmp_path / "none")
        return (tmp_path / "book" / "speed.md").read_text(encoding="utf-8")

    return make


def test_the_page_says_what_was_not_measured(page: Callable[..., str]):
    text = page()
    assert "No GPU has been measured beside" in text and "No CPU has been measured beside" in text
    assert speed.MARK not in text and "Measured so far" not in text
    text = page(small=machine("cpu", row("lenet5", 1)))
    assert "Measured so far: the cpu." in text
    assert "No GPU has been measured beside" in text and "No CPU" not in text
    text = page(large=machine("cuda", row("lenet5", 1)))
    assert "Measured so far: the cuda; the cpu." in text and "No GPU" not in text and "No CPU" not in text


def test_the_tables_hold_the_numbers(page: Callable[..., str], tmp_path: Path):
    fast = row("lenet5", 4, replica_steps_per_second=2000.0, plain_replica_steps_per_second=1000.0, ratio=2.0)
    text = page(box=machine("cpu", row("lenet5", 1, note="odd"), fast, row("conv4", 1), left_out("conv4", 4)))
    lines = [line.replace("\N{NO-BREAK SPACE}", " ") for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    head = [["network (batch)", "plain loop", "R = 1", "R = 4"], ["---"] * 4]
    speeds = [["lenet5 (128)", "505", "40 (4.00×)", "2,000 (2.00×)"], ["conv4 (128)", "10", "40 (4.00×)", "–"]]
    costs = [["lenet5 (128)", "1.0 GiB", *["3 MiB, 1.2 s"] * 2], ["conv4 (128)", "1.0 GiB", "3 MiB, 1.2 s", "–"]]
    assert cells == head + speeds + head + costs
    assert "- lenet5, R = 1: odd." in text and "- conv4, R = 4: left out: too large." in text
    assert "Measured 2001-02-03 with torch 9.9" in text
    for linked in re.findall(r"benchmarks/[\w.-]+\.(?:png|csv)", text):
        assert (tmp_path / "book" / linked).stat().st_size > 0
    data = pd.read_csv(tmp_path / "book" / "benchmarks" / "box.csv")
    assert data["ratio"].dropna().tolist() == [4.0, 2.0, 4.0]


def test_each_precision_has_its_section(page: Callable[..., str]):
    text = page(box=machine("cuda", row("lenet5", 1), row("lenet5", 1, precision="bf16")))
    names = re.findall(r":name: (\S+)", text)
    assert names == [f"{kind}-box-{p}" for p in ("fp32", "bf16") for kind in ("fig-speed", "tab-speed", "tab-cost")]


def test_a_machine_where_nothing_fitted(page: Callable[..., str]):
    text = page(box=machine("cpu", left_out("resnet50", 64)))
    assert "- resnet50, R = 64: left out: too large." in text and "{figure}" not in text


@pytest.mark.parametrize(("value", "text"), [(1234.5, "1,234"), (100.0, "100"), (99.94, "99.9"), (0.1234, "0.123")])
def test_numbers(value: float, text: str):
    assert speed.number(value) == text


@pytest.mark.parametrize("file", sorted((ROOT / "book" / "benchmarks").glob("*.json")), ids=lambda file: file.stem)
def test_what_is_kept_hangs_together(file: Path):
    told = json.loads(file.read_text(encoding="utf-8"))
    assert told["kind"] in ("cpu", "cuda") and told["rows"]
    rows = pd.DataFrame(told["rows"])
    assert set(rows["model"]) <= set(ARCHITECTURES) and not rows.duplicated(["model", "replicas", "precision"]).any()
    done = rows.dropna(subset="ratio")
    ours, plain = done["replica_steps_per_second"], done["plain_replica_steps_per_second"]
    np.testing.assert_allclose(done["ratio"], ours / plain)
    np.testing.assert_allclose(done["images_per_second"], ours * done["batch"])


def test_the_fastest_of_each_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = [row("resnet20", 1), row("resnet20", 4, images_per_second=7000.0), row("lenet5", 4)]
    (tmp_path / "a.json").write_text(json.dumps(machine("cpu", *rows, left_out("resnet20", 64))), encoding="utf-8")
    (tmp_path / "b.json").write_text(
        json.dumps(machine("cuda", row("resnet20", 16, images_per_second=90000.0))), encoding="utf-8"
    )
    monkeypatch.setattr(speed, "BENCHMARKS", tmp_path)
    found = speed.fastest("resnet20")
    assert found.to_dict("list") == {
        "machine": ["the cpu", "the cuda"],
        "precision": ["fp32", "fp32"],
        "images per second": [7000.0, 90000.0],
    }
