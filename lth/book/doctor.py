"""What this machine makes of the library: `lth doctor`, for a report that can be pasted.

Every check trains with `lth.training.train.train`, as a chapter does; only switches are set, so that a GPU takes the
same step as it stands ("eager"), compiled, and compiled and recorded. The judge is the processor in double precision:
it takes the same step, and the results are compared in numbers. The networks have Swish in place of ReLU: where a
number is zero but for rounding, a ReLU passes the gradient or stops it, and the step differs by a hundredth.
"""

from __future__ import annotations

import contextlib
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

from lth.book.chapter import commit
from lth.book.machine import machine
from lth.book.presets import parameters
from lth.book.settings import CHAPTER_PARAMETERS
from lth.data import Data, Split
from lth.files import ROOT
from lth.methods.init import kaiming_normal
from lth.models import OWN, Model
from lth.population import Population
from lth.training import train as training
from lth.training.compiling import compilations
from lth.training.group import Group
from lth.training.layout import WIDE
from lth.training.plan import Progress
from lth.training.recipe import Recipe
from lth.training.step import Step
from lth.training.train import train

REPLICAS, BATCH = 2, 4
LOSS, WEIGHTS = 1e-4, 1e-3
TOLERANCE = f"Tolerance: {LOSS:g} of the loss; for the weights {WEIGHTS:g} of how far the step moves them."
WAYS = ("eager", "compiled", "recorded")


def examine(device: str, minutes: float, say: Callable[[str], None] = print) -> dict[str, Any]:
    """All checks on "cpu" or "cuda", in about so many `minutes`: {device, kind, …, versions, rows, well, report}.

    A row: what, way, result (well, wrong or not tried), what of the numbers there is, and a note. say: gets each row
    as a line of a table.
    """
    stop, rows = time.monotonic() + 60 * minutes, []
    told = machine(device)
    say("\n".join([*facts(told), "", HEADER]))
    longest = 0.0
    for what, way, check in checks(device):
        row: dict[str, Any] = {"what": what, "way": way, "result": "not tried", "note": ""}
        started = time.monotonic()
        if isinstance(check, str):
            row["note"] = check
        elif stop - started < longest:  # the next one may take as long
            row["note"] = f"{minutes:g} min are up: `lth doctor --minutes {5 * minutes:g}`"
        else:
            row |= tried(check)
            longest = max(longest, time.monotonic() - started)
        rows.append(row)
        say(line(row))
    wrong = told["trouble"] or any(row["result"] == "wrong" or row.get("warned") for row in rows)
    told |= {"measured": datetime.now(UTC).isoformat(timespec="seconds"), "rows": rows, "well": not wrong}
    return told | {"report": report(told)}


def tried(check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a check found, with what was warned of meanwhile; or how it failed."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            row = {"result": "well"} | check()
        except Exception as error:  # whatever it is, the other checks go on
            first = (str(error).strip().splitlines() or [""])[0]
            row = {"result": "wrong", "note": f"{type(error).__name__}: {first}", "traceback": traceback.format_exc()}
    ours = dict.fromkeys(str(w.message) for w in said if Path(w.filename).is_relative_to(ROOT / "lth"))
    if ours := [words for words in ours if "do not fit" not in words]:
        row |= {"warned": ours, "note": "; ".join([*filter(None, [row.get("note")]), *ours])}
    return row


# --- the checks -------------------------------------------------------------------------------------------------


def checks(device: str) -> Iterator[tuple[str, str, Callable[[], dict[str, Any]] | str]]:
    """What, in which way, and the check, or words that say why there is none. What chapters train comes first."""
    for layout in FORMATS:
        yield "lenet5", layout, partial(in_layout, layout, device, replicas=16 if device == "cuda" else 1)
    yield "lenet5", "halved", partial(halved, device)
    for name in architectures():
        if device == "cpu" and size(name) > WIDE:
            yield name, "eager", "left out on a CPU, for which it is large"
            continue
        judge: dict[str, Any] = {}
        for way in WAYS if device == "cuda" else ["eager"]:
            yield name, way, partial(one_step, name, device, way, judge)
    if device == "cpu":
        for way in ("compiled", "recorded", "fused"):
            yield "any", way, "no GPU: not tried"
    else:
        yield "convolution", "fused", partial(fused_convolution, device)


def architectures() -> list[str]:
    """All of lth's own: those that the preset `gpu` trains, then the others, small ones first."""
    trained = [name for chapter in CHAPTER_PARAMETERS for name in parameters(chapter, "gpu").models]
    return [*dict.fromkeys(trained), *sorted(OWN - set(trained), key=size)]


def size(name: str) -> int:
    """How many parameters an architecture has."""
    return sum(shape.numel() for shape in Model(name, image(name)).shapes.params.values())


def image(name: str) -> tuple[int, int, int]:
    """The shape that an architecture is meant for; ImageNet's made smaller."""
    return (1, 28, 28) if name.startswith("lenet") else (3, 64, 64) if name.endswith("imagenet") else (3, 32, 32)


def small(model: Model, replicas: int = REPLICAS, batch: int = BATCH) -> tuple[Population, Data]:
    """Networks and random images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4 * batch, *model.shape), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.randint(model.classes, (4 * batch,), generator=generator))
    return kaiming_normal(model, range(replicas)), Data("random", split, split, model.classes, "random")


def one_step(name: str, device: str, way: str, judge: dict[str, Any]) -> dict[str, Any]:
    """A step beside the judge's, and the time of some more. judge: where the judge's is kept for the next way."""
    population, data = small(Model(name, image(name), activation="swish"))
    if not judge:
        wide = population.with_theta(population.theta().double())
        wide = replace(wide, buffers={name: buffer.double() for name, buffer in wide.buffers.items()})
        run = train(wide, data, Recipe(steps=1, batch_size=BATCH, schedule="constant"))
        judge |= {"loss": torch.tensor(run.history.loss), "theta": run.final.theta()}
    more, times = (20 if device == "cuda" else 1), []

    def watch(progress: Progress) -> None:
        if progress.step >= 1:
            times.append(clock(device))

    recipe = Recipe(steps=1 + more, batch_size=BATCH, schedule="constant")
    begun = clock(device)
    with switched(way, device):
        run = train(population.to(device), data.to(device), recipe, keep=[1], probes=[FIRST], watch=watch)
    first = run.history[run.history.step == 1]
    moved = (judge["theta"] - population.theta().double()).norm(dim=1)
    off = (run.at(1).theta().cpu().double() - judge["theta"]).norm(dim=1) / moved
    loss = (torch.tensor(first.loss.to_numpy()) / judge["loss"] - 1).abs()
    found = {"loss_off": float(loss.max()), "weights_off": float(off.max())}
    right = found["loss_off"] <= LOSS and found["weights_off"] <= WEIGHTS  # False for nan
    return found | {
        "result": "well" if right else "wrong",
        "note": "" if right else "not what the processor finds",
        "first_step_seconds": times[0] - begun,
        "milliseconds": 1e3 * (times[-1] - times[0]) / more,
    }


@contextlib.contextmanager
def switched(way: str, device: str) -> Iterator[None]:
    """Has a GPU neither compile nor record the step, or not record it, or both as usual."""
    with contextlib.ExitStack() as switches:
        if device == "cuda" and way != "recorded":
            switches.enter_context(patch.object(Step, "recordable", False))
        if device == "cuda" and way == "eager":
            switches.enter_context(torch.compiler.set_stance("force_eager"))
        else:
            switches.enter_context(patch.object(compilations, "at_once", True))
        yield


FIRST = training.Probe(1, lambda population, data: {}, at_start=False)  # so that each step has a row of the history


def in_layout(layout: str, device: str, replicas: int, times: int = 5) -> dict[str, Any]:
    """The time of LeNet5's forward and backward pass with its convolutions in one of the two memory layouts."""
    batch = 128
    population, data = small(Model("lenet5"), replicas, batch)
    network = laid_out(population.to(device), layout).network().train()
    images = data.train.scaled(data.train.images[:batch]).repeat(1, replicas, 1, 1).to(device)
    images = images.contiguous(memory_format=FORMATS[layout])
    labels = data.train.labels[:batch].repeat_interleave(replicas).to(device)

    def both() -> None:
        logits = network(images).reshape(batch * replicas, -1)
        torch.autograd.grad(F.cross_entropy(logits, labels), list(network.parameters()))

    both(), both()
    begun = clock(device)
    for _ in range(times):
        both()
    return {"milliseconds": 1e3 * (clock(device) - begun) / times}


FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


def laid_out(population: Population, layout: str) -> Population:
    """The population with each replica's kernels, (O, C, k, k), in a memory layout."""

    def copy(stack: Tensor) -> Tensor:
        if stack.ndim != 5 or layout == "contiguous":
            return stack.contiguous()
        return stack.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)

    return replace(population, params={name: copy(stack) for name, stack in population.params.items()})


def halved(device: str) -> dict[str, Any]:
    """Four networks on a device that says that it has memory for two; the result is that of those who had enough."""
    population, data = small(Model("lenet5"), 4)
    population, data, recipe = population.to(device), data.to(device), Recipe(steps=6, batch_size=BATCH)
    whole = train(population, data, recipe, keep=[1]).final.theta()
    sizes: list[int] = []
    begun = clock(device)
    with little_memory(2, sizes, device):
        parts = train(population, data, recipe, keep=[1]).final.theta()
    moved = (whole - population.theta()).norm(dim=1)
    off = float(((parts - whole).norm(dim=1) / moved).max())
    wrong = [f"groups of {sizes}, not of 4, 2 and 2"] if sizes != [4, 2, 2] else []
    wrong += ["the halves do not end where the whole does"] if not off <= 1e-3 else []
    result = {"result": "wrong" if wrong else "well", "note": "; ".join(wrong)}
    return result | {"weights_off": off, "first_step_seconds": clock(device) - begun}


def fused_convolution(device: str, replicas: int = 16, batch: int = 128, times: int = 50) -> dict[str, Any]:
    """Batch norm, ReLU, a convolution of ResNet-20 and its moments, by `lth.models.fused` and by PyTorch's layers.

    In half precision with ten bits: Triton's interpreter, which tests this, has no bf16; a GPU is as fast with either.
    """
    from lth.models import fused  # needs Triton, which not every machine has

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, replicas * 16, 32, 32, generator=generator).to(device, torch.float16)
    weight = (0.1 * torch.randn(replicas, 16, 16, 3, 3, generator=generator)).to(device, torch.float16)
    norm = torch.randn(2, replicas, 16, generator=generator).to(device)

    def layers(x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        scale, shift = (part.flatten()[:, None, None].to(x.dtype) for part in norm)
        y = F.conv2d((scale * x + shift).relu(), weight.flatten(0, 1), padding=1, groups=replicas)
        variance, mean = torch.var_mean(y.float(), (0, 2, 3), correction=0)
        return y, mean.view(replicas, -1), variance.view(replicas, -1)

    compiled, milliseconds = torch.compile(layers), {}
    ways = {"fused": lambda: fused.convolution(x, weight, (*norm,), padding=1), "layers": lambda: compiled(x, weight)}
    for name, way in ways.items():
        way(), way()
        begun = clock(device)
        for _ in range(times):
            way()
        milliseconds[name] = 1e3 * (clock(device) - begun) / times
    pairs = zip(ways["fused"](), layers(x.float(), weight.float()), strict=True)
    off = max(float((found.float() - exact).abs().max() / exact.abs().max()) for found, exact in pairs)
    if not off <= 0.01:
        return {"result": "wrong", "note": f"off by {off:.1e} of the largest number"}
    ratio = milliseconds["layers"] / milliseconds["fused"]
    return {"note": f"{ratio:.2g} times as fast as PyTorch's layers", "milliseconds": milliseconds["fused"]}


@contextlib.contextmanager
def little_memory(most: int, sizes: list[int], device: str) -> Iterator[None]:
    """As if the device's memory held `most` replicas at a time; `sizes`: of the groups that were to be recorded."""
    begin, record = Group.__init__, Step.record

    def unprepared(group: Group, *args: Any, **kwargs: Any) -> None:
        begin(group, *args, **kwargs)
        group.recorded = False  # on a CPU, too, where nothing is

    def refuse(taking: Step) -> None:
        sizes.append(len(taking.work))
        if len(taking.work) > most:
            raise torch.OutOfMemoryError("as if the memory were full")
        if device == "cuda":
            record(taking)

    changed = patch.object(Group, "__init__", unprepared), patch.object(Step, "record", refuse)
    with changed[0], changed[1], patch.object(training, "group_size", len):
        yield


def clock(device: str) -> float:
    """Seconds, once the device has done what it was asked for."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


# --- in words ---------------------------------------------------------------------------------------------------

HEADER = f"{'what':18} {'way':13} {'result':9} {'loss off':>9} {'weights off':>11} {'first step':>10} {'a step':>10}"


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    cell = lambda name, form: format(row[name], form) if name in row else ""  # noqa: E731
    first = f"{row['first_step_seconds']:.2f} s" if "first_step_seconds" in row else ""
    step = f"{row['milliseconds']:.2f} ms" if "milliseconds" in row else ""
    numbers = f"{cell('loss_off', '.1e'):>9} {cell('weights_off', '.1e'):>11} {first:>10} {step:>10}"
    return f"{row['what']:18} {row['way']:13} {row['result']:9} {numbers}  {row['note']}".rstrip()


def facts(told: dict[str, Any]) -> list[str]:
    """The machine, in two lines."""
    about = told["device"]
    if "memory_bytes" in told:
        about += f", {told['memory_bytes'] / 2**30:.1f} GiB, compute capability {told['capability']}"
    return [about, ", ".join(f"{name} {number}" for name, number in told["versions"].items())]


def report(told: dict[str, Any]) -> str:
    """The verdict, and what is wrong, in a block of text for a report."""
    done = [row for row in told["rows"] if row["result"] != "not tried"]
    bad = [row for row in done if row["result"] == "wrong" or row.get("warned")]
    code, dirty = commit()
    lines = [f"lth doctor, {told['measured']}, commit {code}{' (changed)' if dirty else ''}", *facts(told)]
    lines += [f"trouble: {words}" for words in told["trouble"]]
    lines += ["wrong: " + " ".join(line(row).split()) for row in bad]
    if told["well"]:
        lines.append(f"{len(done)} checks, nothing wrong. {TOLERANCE}")
    else:
        lines.append(f"{len(bad)} of {len(done)} checks came out wrong. {TOLERANCE}")
    if told["kind"] == "cpu":
        lines.append("No GPU was looked at: nothing here says how one behaves.")
    if skipped := len(told["rows"]) - len(done):
        lines.append(f"{skipped} checks were not tried; the table says why.")
    return "\n".join(lines)
