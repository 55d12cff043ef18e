"""The edition's parts: valid settings, most claims per hour first, on where it was; at a low priority."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lth.book import CHAPTERS, control, edition
from lth.book.claims import ledger
from lth.book.edition import EDITION, Reached, Row
from lth.book.presets import parameters
from lth.errors import Stopped
from lth.files import default_root, shown

KIND = "lenet5 1x28x28 128"


@pytest.mark.parametrize("row", EDITION, ids=lambda row: row.name)
def test_every_row_can_be_run(row):
    seeds = [row.values(part)["seeds"] for part in row.parts]
    assert seeds == sorted(set(seeds)) and row.values() == row.values(row.parts[-1])
    first = row.values()["first_seed"]
    assert first == (2000 if row.chapter == "dst_updates" and not row.beside else 1000)
    words = [word.split("=", 1) for word in row.command.split() if "=" in word]
    assert parameters(row.chapter, "night", dict(words)).model_dump() == row.values()
    if not row.beside:  # the chapter's own execution is the preset, whatever its parts
        assert parameters(row.chapter, "night", {"first_seed": first}).model_dump() == row.values()


def test_rows_are_told_apart_and_all_chapters_are_there():
    assert len({row.name for row in EDITION}) == len(EDITION)
    assert {row.chapter for row in EDITION if not row.beside} == set(CHAPTERS)


def test_each_claim_is_counted_where_it_is_first_decided():
    found = edition.decides()
    ids = [claim.id for claims in found.values() for claim in claims]
    assert len(ids) > 100 and all(not ledger()[claim_id].check for claim_id in ids)
    for row, claims in found.items():
        assert all(claim.chapter == row.chapter and claim.setting(row.values()) != "below" for claim in claims)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """An edition of two rows; a list of what was executed; and networks that come with it."""
    rows = (
        Row("lt_basin", ("seeds=10", "seeds=20")),
        Row("gradient_flow", ("seeds=5",), "mlp_seeds=3"),
    )
    done: list[tuple[str, int, bool]] = []
    monkeypatch.setattr(edition, "EDITION", rows)

    def execute(chapter, values, *, out, training=False, **how):
        assert how["nice"] == edition.NICE > 0
        folder = out / chapter
        folder.mkdir(parents=True, exist_ok=True)
        if len(done) == how["deadline"]:
            raise Stopped("stopped")
        for seed in range(values["seeds"]):
            (default_root() / "runs" / f"{chapter}-{seed}").mkdir(parents=True, exist_ok=True)
        used = {f"runs/{chapter}-{seed}": [] for seed in range(values["seeds"])}
        (folder / "networks.json").write_text(json.dumps(used), encoding="utf-8")
        done.append((chapter, values["seeds"], training))
        told = values | {"dataset": shown(values["dataset"])}
        if not training:
            (folder / "provenance.json").write_text(json.dumps({"parameters": told}), encoding="utf-8")

    def count(standing):
        standing.folder.mkdir(parents=True, exist_ok=True)
        needed = standing.row.values()["seeds"]
        steps = {KIND: needed * 3_600 if standing.row.chapter == "lt_basin" else 1_000 * 3_600}
        told = {"code": standing.code, "needed": needed, "steps": steps, "there": []}
        (standing.folder / "counted.json").write_text(json.dumps(told), encoding="utf-8")

    monkeypatch.setattr(edition, "execute", execute)
    monkeypatch.setattr(Reached, "count", count)
    monkeypatch.setattr(edition, "_speed", lambda kind: 1.0)
    return done


def states(out: Path) -> list[tuple[str, str, str]]:
    return [(line["networks"], line["hours left"], line["state"]) for line in edition.status(out)]


def test_it_goes_on_where_it_was(small, tmp_path):
    out = tmp_path / "edition"
    assert states(out) == [("0 of ?", "?", "")] * 3
    with pytest.raises(Stopped):
        list(edition.run(out, 1, lambda *told: None))
    assert small == [("lt_basin", 10, True)]  # the row with more claims per hour, its first part
    assert states(out) == [("10 of 10", "0.0", "trained"), ("10 of 20", "10.0", ""), ("0 of 5", "1000.0", "")]
    list(edition.run(out, None, lambda *told: None))
    assert small[1:] == [("lt_basin", 20, True), ("lt_basin", 20, False), ("gradient_flow", 5, True),
                         ("gradient_flow", 5, False)]  # fmt: skip
    assert [state for *_, state in states(out)] == ["executed"] * 3
    assert edition.trained("lt_basin", out) == {f"runs/lt_basin-{seed}": set() for seed in range(20)}
    assert list(edition.run(out, None, lambda *told: None)) == [] and len(small) == 5


def test_a_changed_chapter_is_counted_and_trained_again(small, tmp_path, monkeypatch):
    list(edition.run(tmp_path / "edition", None, lambda *told: None))
    row = edition.EDITION[0]
    assert Reached(row, tmp_path / "edition").counted and Reached(row, tmp_path / "edition").trained(1)
    monkeypatch.setattr(edition, "training_cells", lambda chapter: ["chapter.train(2)"])
    assert not Reached(row, tmp_path / "edition").counted and not Reached(row, tmp_path / "edition").trained(1)


def test_variants_lie_beside_the_edition(tmp_path):
    variants = [row for row in EDITION if row.beside]
    folders = {Reached(row, tmp_path / "edition").result for row in variants}
    assert len(folders) == len(variants) and all(folder.parents[1] == tmp_path for folder in folders)


def test_a_speed_is_measured_once(monkeypatch):
    monkeypatch.setattr(edition, "TIMING", 0.1)
    first = edition.speeds({"lenet5 1x28x28 8"})
    assert first["lenet5 1x28x28 8"] > 0
    monkeypatch.setattr(edition, "_speed", None)
    assert edition.speeds({"lenet5 1x28x28 8"}) == first == edition.speeds()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_kernel_lets_others_go_first(monkeypatch):
    """Its process, and on Linux its session."""
    monkeypatch.setenv("LTH_NICE", "7")
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.setsid()
        control.step_back()
        group = Path("/proc/self/autogroup")
        autogroup = group.read_text(encoding="utf-8").split()[-1] if group.exists() else "7"
        told = [os.getpriority(os.PRIO_PROCESS, 0), autogroup]
        os.write(writer, json.dumps(told).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert json.loads(os.read(reader, 100)) == [max(7, os.getpriority(os.PRIO_PROCESS, 0)), "7"]
