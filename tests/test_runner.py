"""Executing chapters: failures, interruptions, and results that are there whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from lth.book import CHAPTERS, ROOT, runner
from lth.errors import LthError, Stopped

LTH = Path(sys.executable).with_name("lth")
SMALL = ["-p", "steps=600", "-p", "prune_start=100", "-p", "prune_end=300", "-p", "batch_size=32", "-p", "points=8"]


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
    assert (folder / "x.txt").read_text() == "2"
    before = (folder / "tiny.ipynb").read_bytes()
    with pytest.raises(LthError, match="tiny: cell .* failed: ZeroDivisionError: division by zero") as failure:
        run(WRITE, "1 / 0")
    assert (folder / "tiny.ipynb").read_bytes() == before
    assert sorted(path.name for path in folder.parent.iterdir()) == ["tiny"]
    kept = Path(os.environ["LTH_STORE"]) / "failed" / "tiny.ipynb"
    assert str(kept) in str(failure.value) and "ZeroDivisionError" in kept.read_text()


def test_a_result_set_aside_by_a_killed_run_comes_back(run, tmp_path):
    """Killed between the two renames that put a new result in the place of the old one."""
    folder = run(WRITE)
    gone = folder.parent / ".tiny-999999-x"
    gone.mkdir()
    folder.rename(gone / "old")
    with pytest.raises(LthError):
        run("1 / 0")
    assert (folder / "x.txt").read_text() == "2" and not gone.exists()


def test_a_newer_result_replaces_the_folder_whole(run):
    run(WRITE, "(pathlib.Path(os.environ['LTH_OUT']) / 'old.txt').write_text('')")
    folder = run(WRITE)
    assert sorted(path.name for path in folder.iterdir()) == ["tiny.ipynb", "x.txt"]
    noted = json.loads((folder / "tiny.ipynb").read_text())["metadata"]["papermill"]
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


def test_the_deadline_reaches_the_notebook_as_an_interrupt(run, tmp_path):
    noted = tmp_path / "noted"
    cell = f"""
import pathlib, time
from lth.book import control
control.obey_stop()
try:
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path({str(noted)!r}).write_text("stopped cleanly")
    raise
"""
    started = time.monotonic()
    with pytest.raises(Stopped, match="The same command goes on from there"):
        run(cell, deadline=time.monotonic() + 8)
    assert time.monotonic() - started < 40
    assert noted.read_text() == "stopped cleanly"


def cli(*words: str, store: Path, out: Path, **how) -> subprocess.Popen:
    environment = {**os.environ, "LTH_STORE": str(store)}
    words = (LTH, "run", "lt_basin", "--preset", "smoke", *SMALL, "--out", out, *words)
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True, cwd=ROOT, **how)


def wait_for(process: subprocess.Popen, words: str) -> None:
    """Until the process says these words on stderr."""
    said = ""
    for line in process.stderr:
        said += line
        if words in line:
            return
    pytest.fail(f"it ended without saying {words!r}: {said}")


def test_interrupted_runs_go_on_and_end_with_the_same_numbers(tmp_path):
    """Time limit, Ctrl-C and kill -9, one after the other, against a run that nobody disturbed."""
    whole, disturbed = tmp_path / "whole", tmp_path / "disturbed"
    calm = cli(store=tmp_path / "store-a", out=whole)
    assert calm.wait() == 0, calm.stderr.read()

    store = tmp_path / "store-b"
    older = disturbed / "lt_basin" / "older.txt"
    older.parent.mkdir(parents=True)
    older.write_text("an older result")
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
    claims = [json.loads((out / "lt_basin" / "claims.json").read_text()) for out in (whole, disturbed)]
    assert claims[0] == claims[1]
    stamp = json.loads((whole / "lt_basin" / "provenance.json").read_text())
    assert stamp["parameters"]["steps"] == 600 and stamp["preset"] == "smoke"
    assert stamp["networks trained"] == 27  # nine for each of three pruning solutions


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
