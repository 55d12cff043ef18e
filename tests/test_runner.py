"""Executing chapters: failures, interruptions, and results that are there whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lth import data
from lth.book import CHAPTERS, runner
from lth.book.chapter import Chapter
from lth.book.claims import ledger
from lth.book.presets import parameters
from lth.errors import LthError, Stopped
from lth.files import ROOT

LTH = Path(sys.executable).with_name("lth")
TINY = "model=lenet_300_100 steps=600 prune_start=160 prune_end=400 batch_size=32 points=8"
SMALL = [word for pair in TINY.split() for word in ("-p", pair)]


def notebook(path: Path, *cells: str) -> Path:
    nb = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": ""}}
    )
    nb.cells = [nbformat.v4.new_code_cell("x = 1", metadata={"tags": ["parameters"]})]
    nb.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(nb, path)
    return path


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(*cells, deadline=…): executes a notebook of these cells as the chapter `tiny`."""
    out = tmp_path / "edition"
    out.mkdir()

    def execute(*cells: str, **how) -> Path:
        monkeypatch.setitem(CHAPTERS, "tiny", str(notebook(tmp_path / "tiny.ipynb", *cells)))
        how = {"preset": "smoke", "device": "cpu", "deadline": None, "display": lambda *told: None, **how}
        return runner.execute("tiny", {"x": 2}, out=out, **how)

    return execute


WRITE = "import os, pathlib; (pathlib.Path(os.environ['LTH_OUT']) / 'x.txt').write_text(str(x))"


def test_a_failing_cell_leaves_the_older_result(run, tmp_path):
    folder = run(WRITE)
    assert (folder / "x.txt").read_text(encoding="utf-8") == "2"
    before = (folder / "tiny.ipynb").read_bytes()
    (folder.parent / f".tiny-{HERE}-{ended()}-left_1").mkdir()  # by an execution that was killed: it goes, too
    with pytest.raises(LthError, match="tiny: cell .* failed: ZeroDivisionError: division by zero") as failure:
        run(WRITE, "1 / 0")
    assert (folder / "tiny.ipynb").read_bytes() == before
    assert sorted(path.name for path in folder.parent.iterdir()) == ["tiny"]
    kept = Path(os.environ["LTH_STORE"]) / "failed" / "tiny.ipynb"
    assert str(kept) in str(failure.value) and "ZeroDivisionError" in kept.read_text(encoding="utf-8")


def test_only_what_trains_is_executed(run, tmp_path):
    """What is used is noted in the folder of the chapter as it goes; no notebook, no older result is touched."""
    kind = """
import os, pathlib
class Trainer:
    def train(self, x):
        folder = pathlib.Path(os.environ["LTH_OUT"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "networks.json").write_text(f"{x} {os.environ['LTH_NICE']}")
"""
    folder = run(kind, "chapter = Trainer()\n1 / 0", "chapter.train(x)", "2 / 0", training=True, nice=3)
    assert [path.name for path in folder.iterdir()] == ["networks.json"]
    assert (folder / "networks.json").read_text(encoding="utf-8") == "2 3"
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


HERE, DAY = socket.gethostname(), 86_400


def ended() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("machine", "process", "days", "left"),
    [
        (HERE, ended, 0, False),
        (HERE, os.getpid, 0, True),
        (HERE, os.getpid, 2, True),
        ("an-other.node", ended, 0, True),
        ("an-other.node", ended, 0.9, True),
        ("an-other.node", os.getpid, 1.1, False),
        ("odd", lambda: "x", 0, True),
        ("odd", lambda: "x", 1.1, False),
    ],
)
def test_what_others_are_writing_stays_and_what_they_left_goes(tmp_path, machine, process, days, left):
    """A result that was set aside comes back where the other was killed between its two renames."""
    folder = tmp_path / "tiny"
    other = tmp_path / f".tiny-{machine}-{process()}-x_1"
    (other / "control").mkdir(parents=True)
    (other / "old").mkdir()
    (other / "old" / "x.txt").touch()
    then = time.time() - days * DAY
    for path in [other, *other.rglob("*")]:
        os.utime(path, (then, then))
    runner._sweep("tiny", tmp_path)
    assert other.exists() == left
    assert (folder / "x.txt").exists() != left


def test_a_folder_of_another_machine_is_as_young_as_its_youngest_file(tmp_path):
    other = tmp_path / ".tiny-elsewhere-1-x"
    (other / "control").mkdir(parents=True)
    (other / "control" / "progress.json").write_text("{}", encoding="utf-8")
    for path in (other, other / "control"):
        os.utime(path, (0, 0))
    runner._sweep("tiny", tmp_path)
    assert other.exists()


def test_a_kernel_that_was_killed_ran_out_of_memory(run):
    with pytest.raises(LthError, match="its process was killed, most likely because memory ran out") as failure:
        run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert "\n" not in str(failure.value) and "what was trained is kept" in str(failure.value)


def test_a_newer_result_replaces_the_folder_whole(run):
    run(WRITE, "(pathlib.Path(os.environ['LTH_OUT']) / 'old.txt').write_text('')")
    folder = run(WRITE)
    assert sorted(path.name for path in folder.iterdir()) == ["tiny.ipynb", "x.txt"]
    noted = json.loads((folder / "tiny.ipynb").read_text(encoding="utf-8"))["metadata"]["papermill"]
    assert noted["input_path"] == noted["output_path"] == "tiny.ipynb"  # no folders of this machine


def test_progress_tells_the_section_and_the_cell(run):
    told = []
    run(WRITE, "import time; time.sleep(1)", display=lambda chapter, progress: told.append((chapter, progress)))
    assert ("tiny", {"section": "", "cell": 4, "cells": 4}) in told
    assert all(progress["cells"] == 4 for _, progress in told)


def test_our_own_errors_are_told_without_a_traceback(run):
    with pytest.raises(LthError) as failure:
        run("from lth.errors import LthError\nraise LthError('the store is full: empty it')")
    assert str(failure.value) == "tiny: the store is full: empty it"


@pytest.mark.thorough
def test_the_deadline_reaches_the_notebook_as_an_interrupt(run, tmp_path):
    """It has passed as soon as the cell has begun, however slow the machine is."""
    begun, noted = tmp_path / "begun", tmp_path / "noted"

    class Deadline:
        def __lt__(self, now: float) -> bool:
            return begun.exists()

    cell = f"""
import pathlib, time
from lth.book import control
control.obey_stop()
try:
    pathlib.Path({str(begun)!r}).touch()
    time.sleep(600)
except KeyboardInterrupt:
    pathlib.Path({str(noted)!r}).write_text("stopped cleanly")
    raise
"""
    with pytest.raises(Stopped, match="The same command goes on from there"):
        run(cell, deadline=Deadline())
    assert noted.read_text(encoding="utf-8") == "stopped cleanly"


def cli(*words: str, store: Path, out: Path, **how) -> subprocess.Popen:
    environment = {**os.environ, "LTH_STORE": str(store)}
    words = (LTH, "run", "lt_basin", "--preset", "smoke", *SMALL, "--out", out, *words)
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, encoding="utf-8", cwd=ROOT, **how)


def wait_for(process: subprocess.Popen, words: str) -> None:
    """Until the process says these words on stderr."""
    said = ""
    for line in process.stderr:
        said += line
        if words in line:
            return
    pytest.fail(f"it ended without saying {words!r}: {said}")


@pytest.mark.thorough
def test_interrupted_runs_go_on_and_end_with_the_same_numbers(tmp_path):
    """Time limit, Ctrl-C and kill -9, one after the other, against a run that nobody disturbed."""
    whole, disturbed = tmp_path / "whole", tmp_path / "disturbed"
    calm = cli(store=tmp_path / "store-a", out=whole)
    assert calm.wait() == 0, calm.stderr.read()

    store = tmp_path / "store-b"
    older = disturbed / "lt_basin" / "older.txt"
    older.parent.mkdir(parents=True)
    older.write_text("an older result", encoding="utf-8")
    limited = cli("--time-limit", "4s", store=store, out=disturbed)
    assert limited.wait() == 75, limited.stderr.read()
    assert "The same command goes on from there" in limited.stderr.read()

    interrupted = cli(store=store, out=disturbed)
    wait_for(interrupted, "training 21 replicas")  # the pruned networks are done, the others have begun
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.wait() == 75, interrupted.stderr.read()
    assert "steps left for 21 replicas" in interrupted.stderr.read()
    assert list((store / "checkpoints").glob("*.safetensors"))

    killed = cli(store=store, out=disturbed)
    wait_for(killed, "training 21 replicas")
    killed.kill()
    killed.wait()
    assert older.exists()
    assert list(disturbed.glob(".lt_basin-*"))  # what was being written when it was killed

    last = cli(store=store, out=disturbed)
    assert last.wait() == 0, last.stderr.read()
    assert [path.name for path in disturbed.iterdir()] == ["lt_basin"]
    for file in sorted((whole / "lt_basin" / "data").glob("*.csv")):
        pd.testing.assert_frame_equal(
            pd.read_csv(file), pd.read_csv(disturbed / "lt_basin" / "data" / file.name), rtol=0, atol=0
        )
    claims = [json.loads((out / "lt_basin" / "claims.json").read_text(encoding="utf-8")) for out in (whole, disturbed)]
    assert claims[0] == claims[1]
    stamp = json.loads((whole / "lt_basin" / "provenance.json").read_text(encoding="utf-8"))
    assert stamp["parameters"]["steps"] == 600 and stamp["preset"] == "smoke"
    assert stamp["networks trained"] == 27  # nine for each of three pruning solutions


NAME = "a $x$ *b* [l](m)"


def pictures(folder: Path, seed: int) -> None:
    """28 × 28 images of two classes, one bright above, one below."""
    random = np.random.default_rng(seed)
    for split, count in (("train", 60), ("test", 20)):
        for number, kind in enumerate(("cat", "dog")):
            (folder / split / kind).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 120, (28, 28))
                pixels[14 * number : 14 * number + 14] += 120
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / kind / f"{i}.png")


@pytest.fixture
def decoy():
    """Other pictures, which the same relative path means inside the checkout."""
    folder = ROOT / "build" / f"decoy-{os.getpid()}" / NAME
    pictures(folder, seed=1)
    yield folder
    shutil.rmtree(folder.parent)


@pytest.mark.thorough
def test_what_the_user_named_is_what_runs_and_no_page_says_where_it_lies(tmp_path, decoy):
    """A data set, a store and a folder for results, all by paths that mean something else in the checkout."""
    mine = tmp_path / decoy.relative_to(ROOT)
    pictures(mine, seed=0)
    places = {"HOME": str(tmp_path / "home"), "LTH_STORE": "~/store", "LTH_DATA": "", "XDG_CACHE_HOME": "cache"}
    chosen = [f"dataset=./{mine.relative_to(tmp_path)}", "model=lenet_300_100"]
    chosen += ["steps=20", "prune_start=5", "prune_end=10"]
    words = [LTH, "run", "3", "--preset", "smoke", "--out", "out", *(w for pair in chosen for w in ("-p", pair))]
    pipes = {"capture_output": True, "encoding": "utf-8"}
    said = subprocess.run(words, cwd=tmp_path, env=os.environ | places, check=False, **pipes)
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[1] == "  19 claims: 19 not run"  # networks that guess
    assert "lt_basin, cell 3 of 22: " in said.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["build", "cache", "home", "out"]
    assert len(list((tmp_path / "home" / "store" / "runs").iterdir())) == 27

    stamp = json.loads((tmp_path / "out" / "lt_basin" / "provenance.json").read_text(encoding="utf-8"))
    assert stamp["data fingerprint"] == data.load(str(mine)).fingerprint != data.load(str(decoy)).fingerprint
    assert stamp["data"] == stamp["parameters"]["dataset"] == NAME
    executed = nbformat.read(tmp_path / "out" / "lt_basin" / "03_lt_basin.ipynb", as_version=4)
    assert executed.metadata.papermill.parameters.dataset == NAME
    for file in (path for path in (tmp_path / "out").rglob("*") if path.suffix in (".ipynb", ".json", ".csv")):
        text = file.read_text(encoding="utf-8")
        assert not any(place in text for place in (str(tmp_path), str(ROOT), sys.prefix, str(Path.home()))), file


def test_a_notebook_opened_by_hand_knows_its_paths_from_the_start(tmp_path, monkeypatch):
    pictures(tmp_path / "mine", seed=0)
    monkeypatch.chdir(tmp_path)
    for name in ("LTH_CONTROL", "LTH_DATASET", "LTH_DATA"):
        monkeypatch.delenv(name, raising=False)
    for name, place in {"LTH_STORE": "store", "LTH_OUT": "out", "XDG_CACHE_HOME": "cache"}.items():
        monkeypatch.setenv(name, place)
    chapter = Chapter("lt_basin", parameters("lt_basin", "smoke", {"dataset": "./mine"}).model_dump())
    assert (chapter.store.root, chapter.out) == (tmp_path / "store", tmp_path / "out")
    assert chapter.parameters.dataset == str(tmp_path / "mine")
    chapter.runs = {"key": {"device": "CPU", "seconds": 1.0}}
    shown = chapter.provenance()
    assert str(tmp_path) not in shown.to_csv() + (tmp_path / "out" / "provenance.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "out" / "provenance.json").read_text(encoding="utf-8"))["data"] == "mine"


def test_an_own_data_set_called_mnist_decides_nothing(tmp_path, monkeypatch):
    """The page calls it by its name, but it is not the one that the claims are about."""
    values = parameters("lt_basin", "paper", {"dataset": str(tmp_path / "mnist")}).model_dump()
    assert not any(claim.setting(values) == "paper" for claim in ledger().values() if claim.chapter == "lt_basin")


@pytest.mark.thorough
def test_a_damaged_run_is_named_and_mended(tmp_path):
    store, out = tmp_path / "store", tmp_path / "out"
    assert cli("-p", "steps=40", "-p", "prune_start=5", "-p", "prune_end=20", store=store, out=out).wait() == 0
    before = (out / "lt_basin" / "claims.json").read_bytes()
    victim = sorted((store / "runs").iterdir())[0]
    (victim / "final.safetensors").write_bytes(b"rubbish")
    again = cli("-p", "steps=40", "-p", "prune_start=5", "-p", "prune_end=20", store=store, out=out)
    assert again.wait() == 1
    assert f"lth store rm {victim.name}" in again.stderr.read()
    assert (out / "lt_basin" / "claims.json").read_bytes() == before
    environment = {**os.environ, "LTH_STORE": str(store)}
    subprocess.run([LTH, "store", "rm", victim.name], env=environment, check=True)
    mended = cli("-p", "steps=40", "-p", "prune_start=5", "-p", "prune_end=20", store=store, out=out)
    assert mended.wait() == 0
    assert (out / "lt_basin" / "claims.json").read_bytes() == before


def test_what_the_kernel_is_told_stays_with_it(run):
    before = dict(os.environ)
    cell = "import os, pathlib; pathlib.Path(os.environ['LTH_OUT'], 'preset.txt').write_text(os.environ['LTH_PRESET'])"
    folder = run(cell)
    assert (folder / "preset.txt").read_text(encoding="utf-8") == "smoke"
    assert dict(os.environ) == before


def test_a_papermill_that_cannot_be_imported_is_the_failure_that_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "papermill", None)
    failure: list[BaseException] = []
    runner._papermill(tmp_path / "in.ipynb", tmp_path / "out.ipynb", {}, object, failure)
    assert isinstance(failure[0], ImportError) and "papermill" in str(failure[0])
