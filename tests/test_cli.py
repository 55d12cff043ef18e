"""The command line: what it says when something is wrong, before any work starts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lth import files
from lth.book import CHAPTERS, cli, runner, site
from lth.book.claims import ledger
from lth.book.presets import PRESETS, parameters
from lth.book.settings import CHAPTER_PARAMETERS
from lth.data import official
from lth.errors import UsageError


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
    "unknown number": (["run", "7"], "unknown chapter 7: Known: gradient_flow"),
    "unknown chapter to list": (["list", "lt_basen"], "unknown chapter lt_basen: did you mean lt_basin?"),
    "parameter without -p": (["run", "lt_basin", "sparsity=0.9"], "looks like a parameter: write -p sparsity=0.9"),
    "parameter to list": (["list", "sparsity=0.9"], "looks like a parameter: write -p sparsity=0.9"),
    "no path": (["run", "--out="], "a path is empty: name a folder"),
    "no path of an edition": (["book", "--edition="], "a path is empty: name a folder"),
    "nobody's home": (["run", "-p", "dataset=~nobody-of-this-name/mine"], "~nobody-of-this-name/mine: "),
    "unknown preset": (["run", "--preset", "quik"], "unknown preset quik: did you mean quick?"),
    "unknown parameter": (["run", "-p", "sparsty=0.9"], "unknown parameter sparsty: did you mean sparsity?"),
    "not a number": (["run", "-p", "sparsity=high"], "sparsity=high: should be a valid number"),
    "not a whole number": (["run", "-p", "seeds=2.5"], "seeds=2.5: should be a valid integer"),
    "out of range above": (["run", "-p", "sparsity=1.5"], "sparsity=1.5: should be less than 1"),
    "out of range below": (["run", "-p", "seeds=0"], "seeds=0: should be greater than or equal to 3"),
    "no steps": (["run", "-p", "steps=0"], "steps=0: should be greater than 0"),
    "infinite": (["run", "-p", "lr=inf"], "lr=inf: should be a finite number"),
    "not a choice": (["run", "lt_basin", "-p", "model=lenet6"], "model=lenet6: should be 'lenet5' or 'lenet_300_100'"),
    "not a choice of numbers": (["run", "lt_basin", "-p", "points=8.5"], "points=8.5: should be 8, 15 or 29"),
    "not a number of choices": (["run", "lt_basin", "-p", "points=few"], "points=few: should be 8, 15 or 29"),
    "of another chapter": (["run", "-p", "model=lenet5"], "gradient_flow has no parameter model, only lt_basin"),
    "pruning beyond the run": (["run", "lt_basin", "-p", "prune_end=9999"], "prune_end (9999) ≤ steps (600)"),
    "pruning too late": (["run", "gradient_flow", "-p", "prune_end=301"], "prune_end (301) ≤ steps (300)"),
    "updates too rare": (["run", "dst_updates", "-p", "dst_every=300"], "dst_every (300) must be shorter than the run"),
    "no second set": (["run", "dst_updates", "-p", "dst_often=20"], "dst_often (20) must be shorter"),
    "an update not kept": (["run", "dst_updates", "-p", "hessian_updates=1,5"], "hessian_updates must increase"),
    "an update too late": (["run", "dst_updates", "-p", "dst_every=200"], "the second must come before the end"),
    "an empty layer": (["run", "dst_updates", "-p", "sparsity=0.999"], "sparsity (0.999) empties the first layer"),
    "an empty layer, sparser": (["run", "gradient_flow", "-p", "high_sparsity=0.999"], "high_sparsity (0.999) empties"),
    "drops everything": (["run", "-p", "dst_drop_fraction=1"], "dst_drop_fraction=1: should be less than 1"),
    "rewinding too late": (["run", "lt_basin", "-p", "rewind_step=200"], "rewind_step (200) must not lie after"),
    "tickets without solutions": (["run", "lt_basin", "-p", "tickets=5"], "tickets (5) must not exceed seeds (4)"),
    "few rounds": (["run", "rti_repulsion", "-p", "ratio=0.05"], "7 rounds at ratio 0.05 never leave 2 to 30 %"),
    "one arm": (["run", "rti_repulsion", "-p", "arms=sgd:0.1:60"], "arms"),
    "an arm twice": (["run", "rti_repulsion", "-p", "arms=sgd:0.1:60,sgd:0.1:60"], "arms must differ"),
    "an arm without batches": (["run", "rti_repulsion", "-p", "arms=sgd:0.1,adam:0.001:60"], "arms"),
    "drops without a step schedule": (["run", "rti_repulsion", "-p", "drops=2"], "drops belong to schedule=step"),
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
    "no such page": (["show", "lt_basen"], "unknown chapter lt_basen: did you mean lt_basin?"),
    "no such folder": (["show", "nowhere/lt_basin"], "there is no folder"),
    "beside itself": (["compare", "3", "lt_basin"], "name two executions"),
    "another chapter": (["compare", "3", "tweaks"], "name two of the same chapter"),
    "no such ticket": (["ticket", "export", "abc", "t.safetensors"], "no run abc"),
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
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    code, _, err = lth("run", "--out", "file/below")
    assert code == 2 and "cannot write to --out" in err and len(err.splitlines()) == 1
    assert (tmp_path / "file").read_text(encoding="utf-8") == "in the way"


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


@pytest.mark.parametrize("words", [["lt_basin"], ["3"], ["3", "lt_basin"]])
def test_list_of_one_chapter(lth, words):
    code, out, _ = lth("list", "--json", *words)
    assert code == 0 and list(json.loads(out)) == ["lt_basin"]
    code, out, _ = lth("list", *words)
    assert code == 0 and out.startswith("lt_basin: Chapter 3: ") and "Chapter 1" not in out


def test_chapters_have_the_numbers_of_the_book():
    for number, (chapter, notebook) in enumerate(CHAPTERS.items(), 1):
        assert runner.named(str(number)) == runner.named(chapter) == chapter
        assert Path(notebook).name.startswith(f"0{number}_")
        assert CHAPTER_PARAMETERS[chapter].__doc__.startswith(f"Chapter {number}: ")


@pytest.mark.parametrize("chapter", CHAPTERS)
@pytest.mark.parametrize("value", ["", "few", "8.0.0", "nan", "1e999", "[]", "None"])
def test_a_wrong_value_is_answered_in_plain_words(chapter, value):
    for name in CHAPTER_PARAMETERS[chapter].model_fields:
        try:
            parameters(chapter, "quick", {name: value})
        except UsageError as error:
            said = str(error)
            assert name in said and "\n" not in said
            assert not re.search("literal|base 10|alue error|alidation error|pydantic|NoneType|convert", said), said


def test_a_whole_number_may_be_written_with_a_point():
    assert parameters("lt_basin", "quick", {"points": "8.0"}).points == 8


def test_paths_are_those_of_the_users_folder(lth, monkeypatch, tmp_path):
    told = {}
    monkeypatch.setattr(runner, "prepare", lambda *words: told.update(run=words[2:]) or {})
    monkeypatch.setattr(site, "build", lambda *words: told.update(book=words))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LTH_DATA", "data")
    monkeypatch.setenv("LTH_STORE", "~/store")
    lth("run", "-p", "dataset=./mine", "--out", "~/out")
    assert told["run"] == ({"dataset": str(tmp_path / "mine")}, "auto", tmp_path / "home" / "out", "")
    lth("run")
    assert told["run"] == ({}, "auto", tmp_path / "build" / "edition", "")
    lth("run", "-p", "steps=9", "-p", "seeds=3")  # changed: what is in build/edition stays
    assert told["run"][2] == tmp_path / "build" / "changed" / "quick,seeds=3,steps=9"
    lth("book", "--edition", "~/out", "--out", "site")
    assert told["book"] == (tmp_path / "home" / "out", tmp_path / "site")
    assert lth("store", "ls")[1].startswith(f"{tmp_path}/home/store: ")
    assert os.environ["LTH_DATA"] == str(tmp_path / "data")


def test_the_verdicts_are_counted_at_the_end(lth, monkeypatch, tmp_path):
    shape = {"n": 3, "value": 1, "low": 0, "high": 2}
    found = [
        {"outcome": "confirmed", "setting": "paper"},
        {"outcome": "confirmed", "setting": "below"},
        {"outcome": "contradicted", "setting": "below"},
        {"outcome": "open", "setting": "below", "n": 0},
    ]
    chapter = [claim for claim in ledger().values() if claim.chapter == "lt_basin" and not claim.check]
    entries = [
        {"id": claim.id, "test": claim.version, **shape, **told} for claim, told in zip(chapter, found, strict=False)
    ]
    folder = tmp_path / "out" / "lt_basin"
    folder.mkdir(parents=True)
    (folder / "claims.json").write_text(json.dumps(entries), encoding="utf-8")
    monkeypatch.setattr(runner, "execute", lambda *words, **how: folder)
    code, out, _ = lth("run", "3", "--preset", "smoke", "--out", "out")
    assert code == 0
    assert out.splitlines() == [
        "lt_basin: done in 0 s: out/lt_basin",
        "  4 claims: 1 reproduced, 3 not run; seen in this smaller run: 1 confirmed, 1 contradicted",
    ]
    code, out, _ = lth("run", "3", "-p", "lr=0.1", "--out", "out")
    assert code == 0
    line, seen = out.splitlines()[2:4]
    assert line.startswith(f"    {chapter[0].id}: reproduced: 1 [0, 2], n = 3")
    assert seen.startswith(f"    {chapter[1].id}: not run at this scale (seen in that run: confirmed): 1 [0, 2], n = 3")
    assert out.splitlines()[-2:] == [
        "  its page: lth show out/lt_basin",
        "  beside another: lth compare lt_basin out/lt_basin",
    ]


def test_changed_parameters_have_a_folder_that_says_which():
    assert runner.usual_out("night", {}) == "build/edition"
    assert runner.usual_out("quick", {"lr": "1", "arms": "sgd:0.1:60"}) == "build/changed/quick,arms=sgd:0.1:60,lr=1"
    odd = [runner.usual_out("quick", {"dataset": name}) for name in ("/a b/c", "/a-b/c", "/a/b/c", "x" * 300, "../..")]
    assert len(set(odd)) == 5 and odd[0].startswith("build/changed/quick,dataset=c-")  # where it lies is not told
    assert all(re.fullmatch(r"build/changed/quick,dataset=[\w.-]{1,110}", folder) for folder in odd)


PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


TERMINALS, WORDS = ("ascii", "latin-1", "C"), ("list", "run --help", "run 3 -p points=9", "claims")


@pytest.mark.parametrize(
    ("terminal", "words"),
    [
        pytest.param(terminal, words, marks=[pytest.mark.thorough] * (words == "claims" and terminal != "ascii"))
        for terminal in TERMINALS
        for words in WORDS
    ],
)
def test_any_terminal_is_told_what_it_can_show(words, terminal):
    lth = Path(sys.executable).with_name("lth")
    surroundings = os.environ | (PLAIN if terminal == "C" else {"PYTHONIOENCODING": terminal})
    said = subprocess.run([lth, *words.split()], env=surroundings, capture_output=True, check=False)
    assert said.returncode == (2 if "points=9" in words else 0)
    assert len(said.stderr.splitlines()) == (1 if "points=9" in words else 0)
    assert b"?" in said.stdout + said.stderr or "--help" in words


def test_the_basin_of_the_mlp_has_the_mlps_settings_unless_told_otherwise():
    """Those of the paper's Appendix D; everything else is LeNet5's."""
    lenet, mlp = (parameters("lt_basin", "paper", {"model": m}).model_dump() for m in ("lenet5", "lenet_300_100"))
    own = {"model": "lenet_300_100", "sparsity": 0.98, "lr": 0.2, "weight_decay": 1e-4}
    assert mlp == lenet | own
    told = parameters("lt_basin", "paper", {"model": "lenet_300_100", "lr": "0.05", "weight_decay": "5e-4"})
    assert (told.lr, told.weight_decay, told.sparsity) == (0.05, 5e-4, 0.98)


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
    assert [files.seconds(text) for text in ("90s", "9m", "2h", "1h30m", "45")] == [90, 540, 7200, 5400, 45]


def test_help_needs_no_torch():
    """`lth --help` must answer at once: the import of torch alone takes seconds."""
    code = "import sys; from lth.book import cli; sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    fastest = min(_time_of_help() for _ in range(3))
    assert fastest < 2.0  # seconds of the processor, whatever else it does; half a second on an idle machine


def _time_of_help() -> float:
    before = os.times()
    subprocess.run([Path(sys.executable).with_name("lth"), "--help"], check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system
