"""`lth gpu`: the time that a GPU is at hand, spent on what decides most claims per minute.

Which chapter comes first is typed in nowhere: it follows from the ledger (how many claims the preset `gpu` reaches),
from what the chapter trains (`lth.book.cost`), and from this machine's own speed, which is measured first.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lth import data
from lth.book import CHAPTERS, cost, doctor, runner
from lth.book.claims import ledger
from lth.book.machine import machine
from lth.book.presets import parameters
from lth.book.progress import Bar, duration
from lth.book.scorecard import came_out
from lth.book.settings.base import Settings
from lth.book.verdicts import stamp
from lth.errors import LthError, Stopped, UsageError
from lth.files import ROOT, shown, write_text

PRESET, DEVICE = "gpu", "cuda"
CHECK = 2  # minutes for `lth doctor`
REPLICAS = 16  # in the measurement of a network's speed
LEAST = 180.0  # seconds that a chapter gets in any case: starting and measuring take some, too
Speeds = Mapping[tuple[str, str], float]  # (architecture, precision) → training images a second


@dataclass(frozen=True)
class Part:
    """A chapter to be run: its parameters, how many claims they reach, and how many minutes its training takes."""

    chapter: str
    values: Mapping[str, Any]
    claims: int
    minutes: float

    @property
    def rate(self) -> float:
        """Claims per minute."""
        return self.claims / self.minutes if self.minutes else math.inf


def spend_well(minutes: float, out: Path) -> None:
    """Everything that `lth gpu` does. Raises UsageError where there is no GPU; Stopped where something is left."""
    if not torch.cuda.is_available():
        raise UsageError("no GPU here that torch can use (`lth doctor` says more): `make book` runs on the processor")
    until, again = time.monotonic() + 60 * minutes, f"lth gpu --minutes {minutes:g} --out {out}"
    print(f"{minutes:g} minutes: a check of this machine ({CHECK}), its speed (about 5), then chapters, best first.")
    try:
        left, failed = _prepared_and_spent(until, out)
    except KeyboardInterrupt:
        raise Stopped(f"stopped; nothing is lost. Go on with: {again}") from None
    print("\nWhat was decided:")
    for chapter, values in everything().items():
        print(f"  {chapter}: {came_out(out / chapter) if is_done(out / chapter, values) else 'not done'}")
    for words in failed.values():
        print(f"  {words}")
    if left:
        told = f"left: {', '.join(part.chapter for part in left)}"
        raise Stopped(f"{told}, {duration(60 * sum(part.minutes for part in left))} of training. Go on with: {again}")
    if failed:
        raise LthError(f"not all chapters could be run: {', '.join(failed)}; see above")
    print(f"All chapters are done. The book of it: lth book --edition {out}")


def _prepared_and_spent(until: float, out: Path) -> tuple[list[Part], dict[str, str]]:
    """Checks, measures, says what it will do, and does it: the parts that are left, and how others failed."""
    plan = runner.prepare(list(everything()), PRESET, {}, DEVICE, out)
    plan = {chapter: values for chapter, values in plan.items() if not is_done(out / chapter, values)}
    broken = examined(out / "doctor.json")
    ill = {chapter: broken & set(cost.images(settings(chapter, values), 1)) for chapter, values in plan.items()}
    failed = {
        chapter: f"{chapter}: left out, as this machine trains {', '.join(sorted(names))} wrongly"
        for chapter, names in ill.items()
        if names
    }
    plan = {chapter: values for chapter, values in plan.items() if chapter not in failed}
    parts = in_order(plan, measured(wanted(plan), out / "bench.json"), lambda name: len(data.load(name).train))
    print("\n".join(["", *table(parts, (until - time.monotonic()) / 60), ""]), flush=True)
    left, others = spend(parts, until, lambda part, deadline: execute(part, deadline, out))
    return left, failed | others


def everything() -> dict[str, dict[str, Any]]:
    """All chapters with their parameters."""
    return {chapter: parameters(chapter, PRESET).model_dump() for chapter in CHAPTERS}


def settings(chapter: str, values: Mapping[str, Any]) -> Settings:
    """The settings that these values are."""
    return parameters(chapter, PRESET, values)


def is_done(folder: Path, values: Mapping[str, Any]) -> bool:
    """Whether a chapter's result with these very parameters is there."""
    told = stamp(folder)
    return told.get("parameters") == dict(values) | {"dataset": shown(values["dataset"])}


# --- what is measured first -------------------------------------------------------------------------------------


def examined(file: Path) -> set[str]:
    """The networks that this machine trains wrongly, by `lth doctor`, whose words are printed and kept in the file."""
    told = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    here = machine(DEVICE)
    if {name: told.get(name) for name in here} != here:
        told = doctor.examine(DEVICE, CHECK, lambda text: print(text, flush=True))
        write_text(file, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    print(f"\n{told['report']}\n", flush=True)
    return {row["what"] for row in told["rows"] if row["result"] == "wrong"}


def wanted(plan: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The networks whose speed decides the order, each in the precision in which its chapter trains it."""
    pairs = []
    for chapter, values in plan.items():
        precision = values.get("precision", "fp32")
        pairs += [(model, precision) for model in cost.images(settings(chapter, values), 1)]
    return list(dict.fromkeys(pairs))


def measured(pairs: Sequence[tuple[str, str]], file: Path) -> Speeds:
    """Their speeds by `benchmarks/train.py`, briefly; what the file has of this machine is not measured again."""
    for precision in dict.fromkeys(precision for _, precision in pairs):
        known = speeds_in(file)
        models = [model for model, other in pairs if other == precision and (model, precision) not in known]
        if models:
            script = [sys.executable, str(ROOT / "benchmarks" / "train.py"), "--device", DEVICE, "--seconds", "2"]
            how = ["--replicas", str(REPLICAS), "--precision", precision, "--json", str(file)]
            if subprocess.run([*script, "--models", ",".join(models), *how], check=False).returncode:
                print("That failed: the chapters of these networks come last.", flush=True)
    return speeds_in(file)


def speeds_in(file: Path) -> Speeds:
    """What a file of `benchmarks/train.py` says of this machine; rows that were left out say nothing."""
    told = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"rows": []}
    here = {name: number for name, number in machine(DEVICE).items() if name in told}
    if {name: told[name] for name in here} != here:
        return {}
    rows = [row for row in told["rows"] if "images_per_second" in row]
    return {(row["model"], row["precision"]): row["images_per_second"] for row in rows}


# --- in which order, and for how long ---------------------------------------------------------------------------


def in_order(plan: Mapping[str, Mapping[str, Any]], speeds: Speeds, examples: Callable[[str], int]) -> list[Part]:
    """The chapters, those first that decide most claims per minute; last, those whose speed is not known.

    examples: data set → how many training images it has.
    """
    parts = []
    for chapter, values in plan.items():
        mine = [claim for claim in ledger().values() if claim.chapter == chapter and not claim.needs]
        reached = sum(claim.setting(values) != "below" for claim in mine)
        precision = values.get("precision", "fp32")
        work = cost.images(settings(chapter, values), examples(values["dataset"]))
        known = all((model, precision) in speeds for model in work)
        seconds = sum(n / speeds[model, precision] for model, n in work.items()) if known else math.inf
        parts.append(Part(chapter, values, reached, seconds / 60))
    return sorted(parts, key=lambda part: part.rate, reverse=True)


def spend(
    parts: Sequence[Part],
    until: float,
    run: Callable[[Part, float], None],
    clock: Callable[[], float] = time.monotonic,
) -> tuple[list[Part], dict[str, str]]:
    """Runs the parts in their order until that time: those that are left, and chapter → how it failed.

    Each has twice the time that its training should take, so that one bad estimate does not take all; those that were
    not done by then go on while there is time. run: part, deadline → raises Stopped where it was stopped.
    """
    left, failed = list(parts), {}
    for again in (False, True):
        for part in list(left):
            now = clock()
            if now >= until:
                return left, failed
            deadline = until if again else min(until, now + max(LEAST, 120 * part.minutes))
            try:
                run(part, deadline)
            except Stopped:
                if clock() < deadline:  # by Ctrl-C
                    return left, failed
                continue
            except LthError as error:
                failed[part.chapter] = str(error)
            left.remove(part)
    return left, failed


def execute(part: Part, deadline: float, out: Path) -> None:
    """One chapter, as by `lth run`."""
    with Bar() as bar:
        how = {"preset": PRESET, "device": DEVICE, "out": out, "deadline": deadline, "display": bar}
        print(f"{part.chapter}: done: {came_out(runner.execute(part.chapter, part.values, **how))}", flush=True)


# --- in words ---------------------------------------------------------------------------------------------------


def table(parts: Sequence[Part], minutes: float) -> list[str]:
    """What will be done and how long it takes, in lines; `minutes`: that are left for it."""
    lines, after = [f"{'chapter':15} {'claims':>6} {'training':>9} {'claims/min':>10}  done after"], 0.0
    for part in parts:
        after += part.minutes
        rate = f"{part.rate:.2f}" if math.isfinite(part.minutes) else "?"
        times = duration(60 * part.minutes), duration(60 * after)
        lines.append(f"{part.chapter:15} {part.claims:6} {times[0]:>9} {rate:>10}  {times[1]}")
    return [*lines, f"Measuring comes on top of training. {duration(60 * minutes)} are left for it."]
