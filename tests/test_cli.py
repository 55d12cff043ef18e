"""The command line: what it says when something is wrong, before any work starts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lth import official
from lth.book import CHAPTERS, cli
from lth.book.presets import PRESETS, parameters
from lth.book.settings import CHAPTER_PARAMETERS


@pytest.fixture
def lth(monkeypatch, capsys, tmp_path):
    """lth(*words) → exit code, stdout, stderr."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lth", *words])
        monkeypatch.chdir(tmp_path)
        code = 0
        try:
            cli.app()
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return call


BAD = {
    "unknown chapter": (["run", "lt_basen"], "unknown chapter lt_basen: did you mean lt_basin?"),
    "unknown preset": (["run", "--preset", "quik"], "unknown preset quik: did you mean quick?"),
    "unknown parameter": (["run", "-p", "sparsty=0.9"], "unknown parameter sparsty: did you mean sparsity?"),
    "not a number": (["run", "-p", "sparsity=high"], "sparsity=high: should be a valid number"),
    "not a whole number": (["run", "-p", "seeds=2.5"], "seeds=2.5: should be a valid integer"),
    "out of range above": (["run", "-p", "sparsity=1.5"], "sparsity=1.5: should be less than 1"),
    "out of range below": (["run", "-p", "seeds=0"], "seeds=0: should be greater than or equal to 3"),
    "no steps": (["run", "-p", "steps=0"], "steps=0: should be greater than 0"),
    "infinite": (["run", "-p", "lr=inf"], "lr=inf: should be a finite number"),
    "not a choice": (["run", "lt_basin", "-p", "model=lenet6"], "model=lenet6: should be 'lenet5' or 'lenet_300_100'"),
    "of another chapter": (["run", "-p", "model=lenet5"], "gradient_flow has no parameter model, only lt_basin"),
    "pruning beyond the run": (["run", "lt_basin", "-p", "prune_end=9999"], "prune_end (9999) ≤ steps (600)"),
    "pruning too late": (["run", "gradient_flow", "-p", "prune_end=301"], "prune_end (301) ≤ steps (300)"),
    "updates too rare": (["run", "dst_updates", "-p", "dst_every=300"], "dst_every (300) must be shorter than the run"),
    "an empty layer": (["run", "dst_updates", "-p", "sparsity=0.999"], "sparsity (0.999) empties the first layer"),
    "an empty layer, sparser": (["run", "gradient_flow", "-p", "high_sparsity=0.999"], "high_sparsity (0.999) empties"),
    "drops everything": (["run", "-p", "dst_drop_fraction=1"], "dst_drop_fraction=1: should be less than 1"),
    "rewinding too late": (["run", "lt_basin", "-p", "rewind_step=200"], "rewind_step (200) must not lie after"),
    "few rounds": (["run", "rti_repulsion", "-p", "ratio=0.05"], "7 rounds at ratio 0.05 never leave 2 to 30 %"),
    "batches of one size": (["run", "rti_repulsion", "-p", "batch_sizes=60"], "batch_sizes"),
    "batches that shrink": (["run", "rti_repulsion", "-p", "batch_sizes=60,15"], "batch_sizes must increase"),
    "warm-up beyond the round": (["run", "rti_repulsion", "-p", "warmup=9"], "warmup (9 epochs) is longer"),
    "a rewind beyond the run": (["run", "lcs_geometry", "-p", "rewind_steps=0,200"], "rewind_steps must increase"),
    "no rewinding to the start": (["run", "lcs_geometry", "-p", "rewind_steps=5,9"], "rewind_steps begin with 0"),
    "a level beyond the ladder": (["run", "lcs_geometry", "-p", "probed=1,9"], "lie from 0 to 8, not [1, 9]"),
    "a dense level looked at closely": (["run", "lcs_geometry", "-p", "probed=0,1"], "probed levels are sparse ones"),
    "no push of length zero": (["run", "lcs_geometry", "-p", "pushes=1,3"], "pushes begin with 0 and 1"),
    "fewer dense networks": (["run", "lcs_geometry", "-p", "dense_seeds=3", "-p", "seeds=4"], "dense_seeds (3) are at"),
    "shares of more than all": (["run", "lcs_geometry", "-p", "shares=0.5,1.5"], "shares must lie between 0 and 1"),
    "no value": (["run", "-p", "seeds"], "write name=value"),
    "unknown data": (["run", "-p", "dataset=mnits"], "did you mean mnist?"),
    "unknown device": (["run", "--device", "tpu"], "--device tpu: one of auto, cpu, cuda"),
    "time limit": (["run", "--time-limit", "soon"], "--time-limit soon: write for example 90s, 9m"),
    "no such edition": (["book", "--edition", "nowhere"], "lth run gradient_flow"),
    "no findings": (["claims", "--edition", "nowhere"], "no edition at"),
    "unknown data set": (["data", "mnits"], "did you mean mnist?"),
    "no such run": (["store", "rm", "abc"], "no run abc"),
    "remove what": (["store", "rm"], "or --all"),
    "unknown command": (["runn"], "No such command"),
    "unknown option": (["run", "--sparsity", "0.5"], "No such option"),
}


@pytest.mark.parametrize("words, message", BAD.values(), ids=BAD.keys())
def test_what_is_typed_wrong_is_said_in_one_line_and_leaves_nothing(lth, tmp_path, words, message):
    code, out, err = lth(*words)
    assert code == 2
    assert message in err
    if err.startswith("lth: "):
        assert len(err.strip().splitlines()) == 1
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_cuda_without_a_gpu(lth, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, _, err = lth("run", "--device", "cuda")
    assert code == 2 and "--device cpu" in err and len(err.splitlines()) == 1


def test_missing_data_and_no_network(lth, tmp_path, monkeypatch):
    def unreachable(urls: list[str]) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr(official, "_knock", unreachable)
    monkeypatch.setenv("LTH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for words in (["run", "-p", "dataset=mnist"], ["data", "mnist"]):
        code, _, err = lth(*words)
        assert code == 1 and len(err.splitlines()) == 1
        assert "LTH_DATA" in err and "digits" in err and "lth data mnist" in err


def test_an_unwritable_out(lth, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, _, err = lth("run", "--out", "file/below")
    assert code == 2 and "cannot write to --out" in err and len(err.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "in the way"


def test_list_tells_every_parameter(lth):
    code, out, _ = lth("list", "--json")
    told = json.loads(out)
    assert code == 0 and told.keys() == CHAPTERS.keys()
    for chapter, about in told.items():
        assert about["parameters"].keys() == CHAPTER_PARAMETERS[chapter].model_fields.keys()
        for name, parameter in about["parameters"].items():
            assert parameter["type"] and parameter["meaning"]
            assert parameter["presets"]["smoke"] == getattr(parameters(chapter, "smoke"), name)
    code, text, _ = lth("list")
    assert code == 0 and "fraction of each layer" in text and all(preset in text for preset in PRESETS)


def test_claims_and_store(lth):
    code, out, _ = lth("claims", "--json")
    assert code == 0
    entry = {claim["id"]: claim for claim in json.loads(out)}["E8.d_final"]
    assert entry["accept"] == [3, None] and entry["test"] == "mean > 3"
    code, out, _ = lth("claims")
    assert code == 0 and "E9.pairwise" in out
    code, out, _ = lth("store", "ls")
    assert code == 0 and "0.0 MB" in out
    assert lth("store", "rm", "--all")[0] == 0


def test_data_says_what_it_found(lth):
    code, out, _ = lth("data", "digits")
    assert code == 0
    assert out.startswith("digits: 1437 training and 360 test images, (1, 28, 28), 10 classes, fingerprint ")


def test_seconds():
    assert [cli._seconds(text) for text in ("90s", "9m", "2h", "1h30m", "45")] == [90, 540, 7200, 5400, 45]


def test_help_needs_no_torch():
    """`lth --help` must answer at once: the import of torch alone takes seconds."""
    code = "import sys; from lth.book import cli; sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    fastest = min(_time_of_help() for _ in range(3))
    assert fastest < 2.0  # half a second on an idle machine; tests share theirs


def _time_of_help() -> float:
    started = time.perf_counter()
    subprocess.run([Path(sys.executable).with_name("lth"), "--help"], check=True, capture_output=True)
    return time.perf_counter() - started


def test_time_left_is_counted_anew_for_each_round_of_a_ladder(monkeypatch, capsys):
    clock = [0.0, 50.0, 100.0, 150.0, 200.0, 250.0]
    with cli._Bar() as bar:
        for step, now in zip([10, 60, 100, 20, 60, 100], clock, strict=True):
            monkeypatch.setattr(time, "monotonic", lambda now=now: now)
            bar("a", {"replicas": 3, "step": step, "steps": 100, "accuracy": 0.5})
    told = capsys.readouterr().err.splitlines()
    left = [line.partition("accuracy 0.500")[2] for line in told]
    assert left == ["", ", 40 s left", ", 0 s left", "", ", 50 s left", ", 0 s left"]
