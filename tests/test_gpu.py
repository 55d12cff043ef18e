"""How the time of a GPU is spent: order, limits, what is resumed. No GPU is needed, as none is asked."""

from __future__ import annotations

import json
import math
import sys

import pytest
import torch

from lth.book import CHAPTERS, cli, doctor, gpu, runner
from lth.book import machine as software
from lth.book.claims import ledger
from lth.book.presets import parameters
from lth.errors import LthError, Stopped

PLAN = {chapter: parameters(chapter, "gpu").model_dump() for chapter in CHAPTERS}


def alike(images_a_second: float = 1e6) -> dict[tuple[str, str], float]:
    """All networks as fast as each other."""
    return dict.fromkeys(gpu.wanted(PLAN), images_a_second)


def part(chapter: str, claims: int = 10, minutes: float = 1.0) -> gpu.Part:
    return gpu.Part(chapter, {}, claims, minutes)


# --- the order ------------------------------------------------------------------------------------------------


def test_what_decides_most_claims_per_minute_comes_first():
    parts = gpu.in_order(PLAN, alike(), lambda name: 50_000)
    assert [p.rate for p in parts] == sorted((p.rate for p in parts), reverse=True)
    of = {p.chapter: p for p in parts}
    assert of.keys() == CHAPTERS.keys() and all(p.claims and p.minutes > 0 for p in parts)
    assert of["lt_basin"].claims == sum(claim.chapter == "lt_basin" for claim in ledger().values())
    slower = gpu.in_order(PLAN, alike(1e5), lambda name: 50_000)
    assert [p.minutes for p in slower] == pytest.approx([10 * p.minutes for p in parts])


def test_the_order_follows_the_speed_of_the_machine():
    first = gpu.in_order(PLAN, alike(), lambda name: 50_000)[0].chapter
    trained = {model for chapter, model in ((c, m) for c, v in PLAN.items() for m, _ in gpu.wanted({c: v}))
               if chapter == first}  # fmt: skip
    speeds = {pair: speed / (1e4 if pair[0] in trained else 1) for pair, speed in alike().items()}
    assert gpu.in_order(PLAN, speeds, lambda name: 50_000)[0].chapter != first


def test_a_chapter_below_its_claims_decides_none_and_an_unknown_speed_comes_last():
    plan = {chapter: parameters(chapter, "smoke").model_dump() for chapter in CHAPTERS}
    assert {p.claims for p in gpu.in_order(plan, {}, lambda name: 1437) if p.chapter != "gradient_flow"} == {0}
    speeds = {pair: speed for pair, speed in alike().items() if pair[0] != "lenet5"}
    last = gpu.in_order(PLAN, speeds, lambda name: 50_000)[-3:]
    assert {p.chapter for p in last} == {"gradient_flow", "dst_updates", "lt_basin"}
    assert all(p.minutes == math.inf and p.rate == 0 for p in last)


# --- the limits -----------------------------------------------------------------------------------------------


class Machine:
    """Runs parts against a clock of its own: each needs so many seconds, over as many turns as it takes."""

    def __init__(self, **needs: float) -> None:
        self.now, self.needs, self.turns = 0.0, needs, []

    def __call__(self, part: gpu.Part, deadline: float) -> None:
        before, needed = self.now, self.needs[part.chapter]
        self.now = min(deadline, before + needed)
        self.turns.append((part.chapter, self.now - before))
        self.needs[part.chapter] -= self.now - before
        if self.needs[part.chapter] > 0:
            raise Stopped("stopped")

    def spend(self, *parts: gpu.Part, until: float = 1800.0) -> tuple[list[str], dict[str, str]]:
        left, failed = gpu.spend(parts, until, self, lambda: self.now)
        return [p.chapter for p in left], failed


def test_one_that_takes_far_longer_than_estimated_lets_the_others_before():
    machine = Machine(a=1000, b=100)
    assert machine.spend(part("a", minutes=2), part("b")) == ([], {})
    assert machine.turns == [("a", 240), ("b", 100), ("a", 760)]


def test_it_ends_in_time_and_knows_what_is_left():
    machine = Machine(a=1000, b=1000, c=100)
    assert machine.spend(part("a", minutes=60), part("b", minutes=math.inf), part("c")) == (["b", "c"], {})
    assert machine.now == 1800


def test_ctrl_c_stops_all_of_it_and_a_failure_only_its_chapter():
    def interrupted(part: gpu.Part, deadline: float) -> None:
        raise Stopped("by hand")

    assert [p.chapter for p in gpu.spend([part("a"), part("b")], 9.0, interrupted, lambda: 0.0)[0]] == ["a", "b"]

    def failing(part: gpu.Part, deadline: float) -> None:
        if part.chapter == "a":
            raise LthError("a: a cell failed")

    assert gpu.spend([part("a"), part("b")], 9.0, failing, lambda: 0.0) == ([], {"a": "a: a cell failed"})


# --- what is measured, and what is there already --------------------------------------------------------------

HERE = {"device": "the GPU", "kind": "cuda", "cores": 4, "torch": "9.9"}


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.setattr(gpu, "machine", lambda device: dict(HERE))


def bench(*rows: tuple[str, str, float | None], **other: object) -> str:
    told = [
        {"model": model, "precision": precision, "note": "", **({"images_per_second": speed} if speed else {})}
        for model, precision, speed in rows
    ]
    return json.dumps({**HERE, "memory": "bytes", **other, "rows": told})


def test_speeds_are_measured_once_on_a_machine(machine, monkeypatch, tmp_path):
    file, asked = tmp_path / "bench.json", []

    def run(words: list[str], check: bool) -> object:
        asked.append((words[words.index("--models") + 1], words[words.index("--precision") + 1]))
        file.write_text(bench(("lenet5", "fp32", 5.0), ("resnet20", "bf16", None)), encoding="utf-8")
        return type("Ended", (), {"returncode": 0})

    monkeypatch.setattr(gpu.subprocess, "run", run)
    pairs = [("lenet5", "fp32"), ("resnet20", "bf16")]
    assert gpu.measured(pairs[:1], file) == {("lenet5", "fp32"): 5.0}
    assert gpu.measured(pairs, file) == {("lenet5", "fp32"): 5.0}
    assert asked == [("lenet5", "fp32"), ("resnet20", "bf16")]
    file.write_text(bench(("lenet5", "fp32", 5.0), device="another GPU"), encoding="utf-8")
    assert gpu.speeds_in(file) == {}


def test_the_doctor_comes_once_and_what_it_finds_wrong_is_known(machine, monkeypatch, tmp_path, capsys):
    called = []

    def examine(device: str, minutes: float, say: object) -> dict:
        called.append(device)
        rows = [{"what": "resnet20", "result": "wrong"}, {"what": "lenet5", "result": "well"}]
        return {**HERE, "rows": rows, "report": "one is wrong"}

    monkeypatch.setattr(doctor, "examine", examine)
    for _ in range(2):
        assert gpu.examined(tmp_path / "doctor.json") == {"resnet20"}
    assert called == ["cuda"] and capsys.readouterr().out.count("one is wrong") == 2


def test_the_plan_is_told(capsys):
    lines = gpu.table([part("a", 10, 2.0), part("b", 3, 95.0), part("c", 1, math.inf)], 20.0)
    assert lines[1].split() == ["a", "10", "2", "min", "5.00", "2", "min"]
    assert lines[2].split() == ["b", "3", "1.6", "h", "0.03", "1.6", "h"]
    assert lines[3].split() == ["c", "1", "?", "?", "?"] and "20 min are left" in lines[4]


# --- the command ----------------------------------------------------------------------------------------------


def lth(*words: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lth", *words])
        try:
            cli.app()
        except SystemExit as end:
            return end.code or 0
    return 0


def test_without_a_gpu_one_line_says_what_to_do(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert lth("gpu", "--out", str(tmp_path / "out")) == 2
    said = capsys.readouterr().err
    assert said.startswith("lth: no GPU here") and "make book" in said and len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.fixture
def rehearsal(monkeypatch):
    """The command on this processor, with the chapter lt_basin alone and tiny."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(software, "driver_version", lambda: "")
    for name, value in {"PRESET": "smoke", "DEVICE": "cpu", "REPLICAS": 1, "CHECK": 0.1}.items():
        monkeypatch.setattr(gpu, name, value)
    monkeypatch.setattr(gpu, "CHAPTERS", {"lt_basin": CHAPTERS["lt_basin"]})


def test_what_is_stopped_and_what_is_ill_is_told(rehearsal, monkeypatch, tmp_path, capsys):
    def stopped(*words: object, **how: object) -> None:
        raise Stopped("by hand")

    monkeypatch.setattr(runner, "execute", stopped)
    monkeypatch.setattr(gpu, "examined", lambda file: set())
    monkeypatch.setattr(gpu, "measured", lambda pairs, file: dict.fromkeys(pairs, 1e4))
    out = str(tmp_path / "out")
    assert lth("gpu", "--out", out) == 75
    said = capsys.readouterr()
    assert said.err == f"left: lt_basin, 5 s of training. Go on with: lth gpu --minutes 30 --out {out}\n"
    assert "lt_basin: not done" in said.out

    def interrupt(file: object) -> None:
        raise KeyboardInterrupt

    for broken, code, words in ((lambda file: {"lenet5"}, 1, "not all chapters"), (interrupt, 75, "nothing is lost")):
        monkeypatch.setattr(gpu, "examined", broken)
        assert lth("gpu", "--out", out) == code
        assert words in capsys.readouterr().err


@pytest.mark.thorough
def test_a_rehearsal(rehearsal, tmp_path, capsys):
    """With check and measurement, up to the verdicts; the second time everything is there."""
    out = tmp_path / "out"
    assert lth("gpu", "--minutes", "20", "--out", str(out)) == 0
    said = capsys.readouterr().out
    assert "checks, nothing wrong" in said and "lt_basin: 19 claims" in said
    assert {path.name for path in out.iterdir()} == {"lt_basin", "doctor.json", "bench.json"}
    before = (out / "lt_basin" / "provenance.json").stat().st_mtime_ns
    assert lth("gpu", "--minutes", "20", "--out", str(out)) == 0
    assert (out / "lt_basin" / "provenance.json").stat().st_mtime_ns == before
    assert "All chapters are done" in capsys.readouterr().out
