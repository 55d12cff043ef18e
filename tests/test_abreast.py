"""Chapters at a time: as many as cores, in an order that keeps them busy, and nothing lost where one fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import nbformat
import pytest
import torch

from lth import distributed
from lth.book import CHAPTERS, runner
from lth.book.abreast import ORDER, SHARES, at_a_time, execute_all
from lth.errors import LthError, Stopped
from lth.files import ROOT

LTH = Path(sys.executable).with_name("lth")
PATIENCE = 60.0  # seconds after which a test fails rather than hangs


class Chapters:
    """Executes chapters that last until they are let go, and notes what happens."""

    def __init__(self, *held: str, **failing: LthError) -> None:
        self.failing, self.begun, self.running, self.most, self.lock = failing, [], 0, 0, threading.Lock()
        self.gates = {chapter: threading.Event() for chapter in held}
        self.threads: set[int | None] = set()

    def __call__(self, chapter: str, threads: int | None, stop: threading.Event) -> Path:
        with self.lock:
            self.begun.append(chapter)
            self.running += 1
            self.most = max(self.most, self.running)
            self.threads.add(threads)
        try:
            if chapter in self.gates:
                assert self.gates[chapter].wait(PATIENCE)
            if stop.is_set():
                raise Stopped(f"{chapter}: stopped")
            if chapter in self.failing:
                raise self.failing[chapter]
            return Path(chapter)
        finally:
            with self.lock:
                self.running -= 1


def test_every_chapter_has_its_place_in_the_order():
    assert sorted(ORDER) == sorted(CHAPTERS)
    assert all(ORDER.index(first) < ORDER.index(then) for then, first in SHARES.items())


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_all_are_executed_once_and_no_more_than_that_at_a_time(count):
    chapters = Chapters()
    done = [chapter for chapter, folder, seconds in execute_all(list(CHAPTERS), count, chapters) if seconds >= 0]
    assert sorted(done) == sorted(CHAPTERS) and chapters.most <= count
    assert count > 1 or chapters.begun == list(CHAPTERS)


def test_two_are_on_their_way_together():
    """The first is let go by the second: one after the other they would never end."""
    chapters = Chapters("tweaks")
    inner = chapters.__call__

    def execute(chapter: str, **how: object) -> Path:
        if chapter == "lt_basin":
            chapters.gates["tweaks"].set()
        return inner(chapter, **how)

    assert [chapter for chapter, *_ in execute_all(["lt_basin", "tweaks"], 2, execute)]
    assert sorted(chapters.begun) == ["lt_basin", "tweaks"]


def test_a_chapter_waits_for_the_one_whose_networks_it_has():
    chapters, told = Chapters("gradient_flow"), []
    for chapter, *_ in execute_all(["dst_updates", "gradient_flow", "lt_basin"], 3, chapters):
        if chapter == "lt_basin":
            assert sorted(chapters.begun) == ["gradient_flow", "lt_basin"]
            chapters.gates["gradient_flow"].set()
        told.append(chapter)
    assert told == ["lt_basin", "gradient_flow", "dst_updates"]
    assert len(list(execute_all(["dst_updates"], 2, Chapters()))) == 1  # alone it waits for nobody


@pytest.mark.parametrize(("cores", "count", "threads"), [(2, 1, None), (2, 2, 1), (8, 2, 4), (8, 3, 4), (1, 2, 1)])
def test_the_cores_are_shared(monkeypatch, cores, count, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    chapters = Chapters()
    list(execute_all(["tweaks", "lt_basin"], count, chapters))
    assert chapters.threads == {threads}


@pytest.mark.parametrize(
    ("cores", "at_once"), [(1, [1, 1, 1]), (2, [1, 2, 2]), (3, [1, 2, 3]), (4, [1, 2, 2]), (16, [1, 2, 6])]
)
def test_how_many_at_a_time(monkeypatch, cores, at_once):
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [at_a_time(chapters, "auto", "") for chapters in (1, 2, 6)] == at_once
    assert at_a_time(6, "cuda", "") == at_a_time(6, "auto", "ray") == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert at_a_time(6, "auto", "") == 1 and at_a_time(6, "cpu", "") == at_once[2]
    monkeypatch.setattr(distributed, "size", lambda: 2)
    assert at_a_time(6, "cpu", "") == 1


def test_where_one_fails_those_that_run_end_and_no_other_begins():
    chapters = Chapters("rti_repulsion", tweaks=LthError("tweaks: no memory"))
    told = []
    with pytest.raises(LthError, match="^tweaks: no memory\nlt_basin: not begun$"):
        for chapter, *_ in execute_all(["tweaks", "lt_basin"], 1, chapters):
            told.append(chapter)
    assert chapters.begun == ["tweaks"] and not told
    chapters.begun.clear()

    def execute(chapter: str, **how: object) -> Path:
        try:
            return chapters(chapter, **how)
        finally:
            if chapter == "tweaks":
                chapters.gates["rti_repulsion"].set()

    with pytest.raises(LthError, match="^tweaks: no memory\nlt_basin: not begun$"):
        for chapter, *_ in execute_all(["tweaks", "rti_repulsion", "lt_basin"], 2, execute):
            told.append(chapter)
    assert sorted(chapters.begun) == ["rti_repulsion", "tweaks"] and told == ["rti_repulsion"]


def test_what_failed_is_told_of_all():
    chapters = Chapters("tweaks", tweaks=LthError("tweaks: a"), rti_repulsion=LthError("rti_repulsion: b"))

    def execute(chapter: str, **how: object) -> Path:
        if chapter == "rti_repulsion":
            chapters.gates["tweaks"].set()
        return chapters(chapter, **how)

    with pytest.raises(LthError) as failure:
        list(execute_all(["tweaks", "rti_repulsion"], 2, execute))
    assert sorted(str(failure.value).splitlines()) == ["rti_repulsion: b", "tweaks: a"]
    assert not isinstance(failure.value, Stopped)


def test_ctrl_c_reaches_all_of_them_and_says_what_is_left():
    chapters, there = Chapters(), threading.Event()

    def execute(chapter: str, stop: threading.Event, **how: object) -> Path:
        if chapter == "tweaks":
            assert there.wait(PATIENCE)
            os.kill(os.getpid(), signal.SIGINT)
        there.set()
        assert stop.wait(PATIENCE)
        return chapters(chapter, stop=stop, **how)

    with pytest.raises(Stopped) as stopped:
        list(execute_all(["tweaks", "rti_repulsion", "lt_basin"], 2, execute))
    told = ["lt_basin: not begun", "rti_repulsion: stopped", "tweaks: stopped"]
    assert sorted(str(stopped.value).splitlines()) == told
    assert "lt_basin" not in chapters.begun


def test_what_did_not_begin_is_told(monkeypatch):
    def execute(chapter: str, stop: threading.Event, **how: object) -> Path:
        stop.set()  # just when it is done
        return Path(chapter)

    with pytest.raises(Stopped, match="^lt_basin, tweaks: not begun. The same command goes on from there$"):
        list(execute_all(["gradient_flow", "lt_basin", "tweaks"], 1, execute))


def test_who_no_longer_listens_stops_them():
    chapters = Chapters("tweaks")
    seen = []

    def execute(chapter: str, stop: threading.Event, **how: object) -> Path:
        if chapter == "tweaks":
            seen.append(stop.wait(PATIENCE))
        return Path(chapter)

    for _ in execute_all(["tweaks", "lt_basin"], 2, execute):
        break
    assert seen == [True] and not chapters.begun


def test_kernels_side_by_side_know_their_own_settings_only(tmp_path, monkeypatch):
    """Each waits for the other's file; the environment and the folder of this process stay as they are."""
    out = tmp_path / "edition"
    out.mkdir()
    for name, other in (("tweaks", "lt_basin"), ("lt_basin", "tweaks")):
        cell = f"""
import json, os, pathlib, time
(pathlib.Path({str(tmp_path)!r}) / "{name}").touch()
until = time.monotonic() + {PATIENCE}
while not (pathlib.Path({str(tmp_path)!r}) / "{other}").exists():
    assert time.monotonic() < until
    time.sleep(0.05)
told = [os.environ[name] for name in ("LTH_DATASET", "OMP_NUM_THREADS")] + [os.getcwd()]
(pathlib.Path(os.environ["LTH_OUT"]) / "told.json").write_text(json.dumps(told))
"""
        notebook = nbformat.v4.new_notebook(
            metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": ""}},
            cells=[
                nbformat.v4.new_code_cell("x = 1", metadata={"tags": ["parameters"]}),
                nbformat.v4.new_code_cell(cell),
            ],
        )
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
        monkeypatch.setitem(CHAPTERS, name, str(tmp_path / f"{name}.ipynb"))
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)

    def execute(chapter: str, **how: object) -> Path:
        usual = {"preset": "smoke", "device": "cpu", "deadline": None, "display": lambda *told: None, "out": out}
        return runner.execute(chapter, {"dataset": f"$HOME {chapter}"}, **usual, **how)

    for chapter, folder, _ in execute_all(["tweaks", "lt_basin"], 2, execute):
        assert json.loads((folder / "told.json").read_text(encoding="utf-8")) == [f"$HOME {chapter}", "1", str(ROOT)]
    assert dict(os.environ) == before and Path.cwd() == tmp_path


@pytest.mark.thorough
def test_two_chapters_that_are_stopped_go_on(tmp_path):
    """Ctrl-C while both train: exit code 75, a line for each, and the same command finishes both."""
    environment = {**os.environ, "LTH_STORE": str(tmp_path / "store"), "LTH_DATA": ""}
    words = [LTH, "run", "1", "3", "--preset", "smoke", "--together", "2", "--out", tmp_path / "out"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8", "env": environment}
    with subprocess.Popen(words, **pipes) as first:
        said: set[str] = set()
        for line in first.stderr:
            if "training" in line:
                said.add(line.split(",")[0])
            if len(said) == 2:
                first.send_signal(signal.SIGINT)
                break
        told = first.stderr.read()
    assert first.returncode == 75, told
    assert {line.split(":")[0] for line in told.splitlines() if "goes on from there" in line} <= said and said
    again = subprocess.run(words, check=False, **pipes)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count(": done in") == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["gradient_flow", "lt_basin"]
