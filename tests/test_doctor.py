"""The check of a machine: that it finds what is planted, and says it in words that can be pasted."""

from __future__ import annotations

import itertools
import json
import sys
import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from pretend_gpu import pretend_gpu

from lth.book import cli, doctor, machine
from lth.files import ROOT
from lth.models import OWN, Model
from lth.training.group import Group
from lth.training.step import Step


def of(name: str, way: str) -> dict:
    return doctor.tried(lambda: doctor.one_step(name, "cpu", way, {}))


def test_a_step_is_that_of_the_judge_in_double_precision():
    row = of("lenet5", "eager")
    assert row["result"] == "well" and not row["note"]
    assert 0 < row["loss_off"] < doctor.LOSS / 100 and 0 < row["weights_off"] < doctor.WEIGHTS / 100
    assert row["milliseconds"] > 0 and row["first_step_seconds"] > 0


@pytest.mark.parametrize("way", doctor.WAYS)
def test_a_gpu_takes_the_step_in_each_way(way):
    with pretend_gpu() as gpu:
        row = doctor.tried(lambda: doctor.one_step("lenet_300_100", "cuda", way, {}))
    assert row["result"] == "well" and not row["note"], row
    assert gpu.graphs == (way == "recorded")


def test_a_gpu_is_asked_for_both_layouts_and_halves():
    with pretend_gpu():
        for check in (lambda: doctor.in_layout("channels-last", "cuda", 2, 1), lambda: doctor.halved("cuda")):
            assert doctor.tried(check)["result"] == "well"


@pytest.mark.parametrize("factor", [1.01, float("nan")])
def test_wrong_gradients_are_found(monkeypatch, factor):
    update = Step._update

    def wrong(taking, grads, *others):
        update(taking, [g * (factor if g.dtype == torch.float32 else 1) for g in grads], *others)

    monkeypatch.setattr(Step, "_update", wrong)
    row = of("lenet_300_100", "eager")
    assert row["result"] == "wrong" and "not what the processor finds" in row["note"]


def test_what_is_raised_or_warned_of_is_told():
    def fails():
        raise ValueError("no such kernel\nsecond line")

    row = doctor.tried(fails)
    assert (row["result"], row["note"]) == ("wrong", "ValueError: no such kernel") and "fails" in row["traceback"]
    lth = doctor.training.__file__
    words = {str(ROOT / "lth" / "analysis" / "plane.py"): "slower", "torch/x.py": "of others"}
    words[lth] = "7 replicas do not fit into cuda:0 together"

    def warns():
        for file, told in words.items():
            warnings.warn_explicit(told, UserWarning, file, 1)
        return {}

    assert doctor.tried(warns) == {"result": "well", "warned": ["slower"], "note": "slower"}


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("layout", doctor.FORMATS)
def test_both_layouts_are_what_they_say_and_are_timed(layout, replicas):
    population, _ = doctor.small(Model("lenet5"), replicas)
    laid = doctor.laid_out(population, layout)
    assert torch.equal(laid.theta(), population.theta())
    kernels = [stack[0] for stack in laid.params.values() if stack.ndim == 5]
    assert len(kernels) == 2 and all(k.is_contiguous(memory_format=doctor.FORMATS[layout]) for k in kernels)
    assert doctor.in_layout(layout, "cpu", replicas, times=1)["milliseconds"] > 0


def test_a_group_is_halved_and_ends_the_same():
    row = doctor.tried(lambda: doctor.halved("cpu"))
    assert row["result"] == "well" and row["weights_off"] <= 1e-3, row


def test_a_half_that_goes_on_elsewhere_is_found(monkeypatch):
    advance = Group.advance

    def wrong(group):
        if group.rows == slice(2, 4) and group.step == 1:
            group.work.params["fc1.weight"].mul_(1.1)
        advance(group)

    monkeypatch.setattr(Group, "advance", wrong)
    assert "do not end where the whole does" in doctor.tried(lambda: doctor.halved("cpu"))["note"]


def test_a_group_that_stays_whole_is_found(monkeypatch):
    monkeypatch.setattr(doctor, "little_memory", lambda *_: nullcontext())
    assert "not of 4, 2 and 2" in doctor.tried(lambda: doctor.halved("cpu"))["note"]


def test_every_architecture_is_looked_at_those_that_chapters_train_first():
    names = doctor.architectures()
    assert sorted(names) == sorted(OWN) and names[0] == "lenet5"
    assert names.index("resnet20") < names.index("resnet50") and names[-1] == "resnet50_imagenet"
    on_a_gpu = [(what, way) for what, way, _ in doctor.checks("cuda")]
    assert set(on_a_gpu) >= {(name, way) for name in OWN for way in ("eager", "compiled", "recorded")}
    assert ("convolution", "fused") in on_a_gpu
    on_a_cpu = {(what, way): check for what, way, check in doctor.checks("cpu")}
    assert on_a_cpu["any", "recorded"] == "no GPU: not tried" and "left out on a CPU" in on_a_cpu["resnet50", "eager"]


@pytest.fixture
def examined(monkeypatch):
    """examined(checks, minutes): what is found, and the lines that are said; each check takes a second."""

    def examine(checks: dict, minutes: float = 1.0) -> tuple[dict, list[str]]:
        said, ticks = [], itertools.count()
        monkeypatch.setattr(doctor.time, "monotonic", lambda: float(next(ticks)))
        monkeypatch.setattr(doctor, "checks", lambda device: [(what, "eager", check) for what, check in checks.items()])
        told = doctor.examine("cpu", minutes, said.append)
        return told, said

    return examine


def test_it_ends_in_time_and_says_what_was_not_tried(examined):
    told, said = examined({"a": dict, "b": dict, "c": dict}, minutes=0.07)
    assert [row["result"] for row in told["rows"]] == ["well", "well", "not tried"]
    assert "`lth doctor --minutes 0.35`" in said[-1] and told["well"]
    assert "1 checks were not tried" in told["report"] and "2 checks, nothing wrong" in told["report"]


def test_the_report_can_be_pasted(examined):
    off = {"weights_off": 0.5, "result": "wrong", "note": "off"}
    told, _ = examined({"a": lambda: off, "b": dict, "c": "not here"})
    assert not told["well"]
    lines = told["report"].splitlines()
    assert lines[0].startswith("lth doctor, ") and f"torch {torch.__version__}" in lines[2]
    assert "wrong: a eager wrong 5.0e-01 off" in lines and any("1 of 2 checks came out wrong" in x for x in lines)
    assert "" not in lines
    json.dumps(told, allow_nan=False)


@pytest.mark.parametrize(
    ("capability", "compiler", "trouble"),
    [((9, 0), "/usr/bin/cc", ""), ((7, 5), "/usr/bin/cc", "7.5 has no bf16"), ((9, 0), "", "no C compiler")],
)
def test_what_a_gpu_lacks_is_told(monkeypatch, capability, compiler, trouble):
    about = SimpleNamespace(total_memory=80 * 2**30, major=capability[0], minor=capability[1])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: about)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A100")
    monkeypatch.setattr(machine, "compiler", lambda: compiler)
    told = machine.machine("cuda")
    assert trouble in " ".join(told["trouble"]) and bool(trouble) == bool(told["trouble"])
    assert f"A100, 80.0 GiB, compute capability {capability[0]}.{capability[1]}" in doctor.facts(told)


def test_a_driver_without_a_gpu_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for driver in ("", "570.1"):
        monkeypatch.setattr(machine, "driver_version", lambda driver=driver: driver)
        assert bool(machine.machine("cpu")["trouble"]) == bool(driver)


@pytest.mark.parametrize("well", [True, False])
def test_the_command(monkeypatch, tmp_path, capsys, well):
    told = {"device": "a CPU", "report": "all of it", "well": well}
    monkeypatch.setattr(doctor, "examine", lambda device, minutes, say: say(f"{device} {minutes:g}") or told)
    monkeypatch.setattr(sys, "argv", ["lth", "doctor", "--device", "cpu", "--json", str(tmp_path / "new" / "it.json")])
    with pytest.raises(SystemExit) as end:
        cli.app()
    assert end.value.code == (0 if well else 1)
    assert capsys.readouterr().out.startswith("cpu 2\n\nall of it\n")
    assert json.loads((tmp_path / "new" / "it.json").read_text(encoding="utf-8")) == told


@pytest.mark.thorough
def test_this_machine_is_well():
    told = doctor.examine("cpu", 2)
    assert told["well"], told["report"]
    assert {row["what"] for row in told["rows"] if row["result"] == "well"} >= {"lenet5", "resnet20", "resnet8"}
