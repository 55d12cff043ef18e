"""The published edition: what has to be run, in which order, and how far it is.

    store/edition/<row>/counted.json      how many networks the row needs, from a rehearsal
    store/edition/<row>/<part>/…          what the training of a part has used so far
    store/edition/speeds.json             replica-steps per second of this machine

It takes nights and goes in parts: whatever is trained is in the store, and the same command goes on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lth.book.claims import Claim, ledger
from lth.book.presets import parameters
from lth.book.runner import Display, execute
from lth.book.training import training_cells
from lth.book.verdicts import stamp
from lth.files import default_root, shown, write_text
from lth.store.archives import Archives

PRESET = "night"
FRESH = "first_seed=1000"  # seeds that nobody had seen when the claims were made
NICE = 10  # beside busy sessions a tenth of a core, all of an idle one
TIMING = 10.0  # seconds in which a speed is measured


@dataclass(frozen=True)
class Row:
    """One execution of a chapter: `settings` over the preset, trained in `parts`, each with all that came before.

    beside: names an execution in other settings than the chapter's own, which is a folder of its own.
    """

    chapter: str
    parts: tuple[str, ...]
    settings: str = ""
    beside: str = ""

    @property
    def name(self) -> str:
        return f"{self.chapter}-{self.beside}" if self.beside else self.chapter

    def values(self, part: str | None = None) -> dict[str, Any]:
        """The parameters of the row, or of a part of it."""
        words = f"{FRESH} {self.settings} {self.parts[-1] if part is None else part}".split()
        return parameters(self.chapter, PRESET, dict(word.split("=", 1) for word in words)).model_dump()

    @property
    def command(self) -> str:
        """What executes it by hand."""
        words = f"{FRESH} {self.settings} {self.parts[-1]}".split()
        words = [f"{name}={value}" for name, value in dict(word.split("=", 1) for word in words).items()]
        return f"lth run {self.chapter} --preset {PRESET} " + " ".join(f"-p {word}" for word in words)


# [E]'s own settings, of which the preset `night` takes an eighth
WHOLE = "steps=11719 batch_size=128 prune_start=3000 prune_end=7000 prune_every=100"
UPDATES = f"{WHOLE} dst_every=500 probe_every=200"
HESSIANS = f"{UPDATES} dst_often=100 hessian_seeds=10 many_images=60000"
BASIN = f"{WHOLE} points=29 images=60000"

# chapter, parts, settings beside those of the preset
EDITION = (
    Row("lt_basin", ("seeds=8", "seeds=20")),
    Row("rti_repulsion", ("seeds=3", "seeds=5")),
    Row("lcs_geometry", ("seeds=4", "seeds=6")),
    Row("gradient_flow", ("seeds=5 mlp_seeds=3", "seeds=10", "seeds=16")),
    Row("dst_updates", ("seeds=6", "seeds=10", "seeds=16"), "first_seed=2000"),  # tests changed after masks were seen
    Row("tweaks", ("seeds=4", "seeds=8")),
    Row(
        "lcs_geometry",
        ("seeds=3", "seeds=5"),
        "dataset=cifar10-jpeg rewind_steps=0,200 stability_steps=0,20,60,200,600 steps=2000 lr=0.2 "
        "milestones=1000,1500 tune_lr=0.002 probed=4,10",
        "cifar10",
    ),
    Row("lt_basin", ("seeds=5", "seeds=10"), f"model=lenet_300_100 {BASIN}", "mlp"),
    Row("lt_basin", ("seeds=5", "seeds=10"), f"model=lenet_300_100 lr=0.05 weight_decay=5e-4 {BASIN}", "mlp-as-lenet5"),
    Row("lt_basin", ("seeds=4", "seeds=8", "seeds=12", "seeds=16", "seeds=20"), BASIN, "whole"),
    Row("gradient_flow", ("seeds=5 mlp_seeds=3", "seeds=10", "seeds=16"), UPDATES, "whole"),
    Row("dst_updates", ("seeds=5", "seeds=10", "seeds=16"), HESSIANS, "whole"),
)


@dataclass(frozen=True)
class Reached:
    """How far a row is, with the store and the archives as they are now."""

    row: Row
    out: Path

    @cached_property
    def folder(self) -> Path:
        return default_root() / "edition" / self.row.name

    @cached_property
    def code(self) -> str:
        """A name for what the row trains: the notebook's training, and the parameters."""
        told = json.dumps([training_cells(self.row.chapter), self.row.values()], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    @property
    def counted(self) -> dict[str, Any] | None:
        """The rehearsal's counts; None where there was none, or the chapter has changed since."""
        told = _read(self.folder / "counted.json")
        return told if told and told["code"] == self.code else None

    def count(self) -> None:
        """Rehearses the first part, which takes a minute or more: the others need as much for each of their seeds."""
        from lth.book.rehearsal import rehearse

        part = self.row.values(self.row.parts[0])
        found, more = rehearse(self.row.chapter, part), self.row.values()["seeds"] / part["seeds"]
        told = {
            "code": self.code,
            "needed": round(more * found.needed),
            "steps": {kind: round(more * steps) for kind, steps in found.steps.items()},
            "there": sorted(found.there | found.measures),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / "counted.json", json.dumps(told, indent=0))

    @cached_property
    def used(self) -> dict[str, set[int]]:
        """Runs, with the kept steps that are looked at, and measures that the row needs and that are there."""
        names: dict[str, set[int]] = {name: set() for name in (self.counted or {}).get("there", [])}
        records = [self._record(number) for number in range(len(self.row.parts))]
        for file in [*records, self.result / "networks.json"]:
            for name, steps in (_read(file) or {}).items():
                names.setdefault(name, set()).update(steps)
        packed = Archives().files
        return {name: steps for name, steps in names.items() if (default_root() / name).exists() or name in packed}

    @property
    def networks(self) -> int:
        return sum(name.startswith("runs/") for name in self.used)

    def trained(self, number: int) -> bool:
        """Whether a part is trained to its end."""
        done = _read(self._record(number).with_name("trained.json"))
        return bool(done) and done["code"] == self.code

    @property
    def result(self) -> Path:
        """The folder of its execution."""
        return self.out.with_name(f"{self.out.name}-{self.row.beside}" if self.row.beside else self.out.name) / (
            self.row.chapter
        )

    @property
    def executed(self) -> bool:
        """Whether it was executed with these parameters."""
        values = self.row.values()
        told = values | {"dataset": shown(values["dataset"])}
        return stamp(self.result).get("parameters") == json.loads(json.dumps(told))

    def needed(self, number: int = -1) -> int | None:
        """How many networks a part or the whole row needs, about as many for each seed; None if not counted."""
        share = self.row.values(self.row.parts[number])["seeds"] / self.row.values()["seeds"]
        return round(self.counted["needed"] * share) if self.counted else None

    def hours(self, speeds: dict[str, float], number: int = -1) -> float | None:
        """Hours of training that are missing to a part, or to the whole row; None where they cannot be told yet."""
        if self.trained(number):
            return 0.0
        if not self.counted or not set(self.counted["steps"]) <= set(speeds):
            return None
        whole = sum(steps / speeds[kind] for kind, steps in self.counted["steps"].items()) / 3600
        return whole * max(0, self.needed(number) - self.networks) / max(1, self.counted["needed"])

    def advance(self, deadline: float | None, display: Display) -> None:
        """Trains the parts that are missing, then executes the chapter; `execute` tells what it raises."""
        how = {"preset": PRESET, "device": "auto", "deadline": deadline, "display": display, "nice": NICE}
        for number, part in enumerate(self.row.parts):
            if not self.trained(number) and not self.executed:
                record = self._record(number)
                record.parent.mkdir(parents=True, exist_ok=True)
                execute(self.row.chapter, self.row.values(part), out=record.parents[1], training=True, **how)
                write_text(record.with_name("trained.json"), json.dumps({"code": self.code}))
        self.result.parent.mkdir(parents=True, exist_ok=True)
        execute(self.row.chapter, self.row.values(), out=self.result.parent, **how)

    def _record(self, number: int) -> Path:
        return self.folder / str(number % len(self.row.parts) + 1) / self.row.chapter / "networks.json"


def decides() -> dict[Row, list[Claim]]:
    """The claims that each row decides, so far as its setting reaches, and no earlier row does as well or better."""
    best: dict[str, int] = {}
    found: dict[Row, list[Claim]] = {row: [] for row in EDITION}
    for row in EDITION:
        values = row.values()
        for claim in ledger().values():
            rank = 0
            if claim.chapter == row.chapter and not claim.needs and not claim.check:
                rank = ["below", "smaller", "paper"].index(claim.setting(values))
            if rank > best.get(claim.id, 0):
                best[claim.id] = rank
                found[row].append(claim)
    return found


def ordered(out: Path, speeds: dict[str, float]) -> list[Reached]:
    """What is not executed, most claims per hour first; what cannot be told yet last."""
    claims, open_ = decides(), [s for row in EDITION if not (s := Reached(row, out)).executed]
    gain = {s.row: len(claims[s.row]) / (hours + 0.1) if (hours := s.hours(speeds)) is not None else -1 for s in open_}
    return sorted(open_, key=lambda standing: -gain[standing.row])


def speeds(measure: set[str] = frozenset()) -> dict[str, float]:
    """Replica-steps per second by kind, those kept and those to be measured now, in `TIMING` seconds each."""
    file = default_root() / "edition" / "speeds.json"
    known = _read(file) or {}
    for kind in sorted(measure - set(known)):
        known[kind] = _speed(kind)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(known, indent=0))
    return known


def _speed(kind: str) -> float:
    import torch

    from lth.data import Data, Split
    from lth.methods.init import kaiming_normal
    from lth.models import Model
    from lth.parallel import cores
    from lth.training.recipe import Recipe
    from lth.training.train import train

    name, shape, batch = kind.split()
    channels, height, width = map(int, shape.split("x"))
    images = torch.zeros(4 * int(batch), channels, height, width, dtype=torch.uint8)
    split = Split(images, torch.zeros(len(images), dtype=torch.int64))
    data = Data("nothing", split, split, 10, fingerprint="nothing")
    networks = kaiming_normal(Model(name, data.shape, 10), range(cores()))
    steps, seconds = 5, 0.0  # the first five are a warm-up
    for longer in (False, True, True):
        steps = max(2 * steps, int(steps * TIMING / 2 / seconds)) if longer else steps
        begun = time.monotonic()
        train(networks, data, Recipe(steps=steps, batch_size=int(batch)))
        seconds = time.monotonic() - begun
    return round(steps * len(networks) / seconds, 1)


def run(out: Path, deadline: float | None, display: Display) -> Iterator[tuple[Reached, int]]:
    """Counts what was not counted, measures speeds, then computes row after row, and tells each before it begins.

    Raises Stopped at the deadline, on Ctrl-C and on SIGTERM: at most half a minute of training is lost.
    """
    rows = [Reached(row, out) for row in EDITION]
    for standing in rows:
        if not standing.executed and not standing.counted:
            standing.count()
    kinds = {kind for standing in rows if not standing.executed for kind in standing.counted["steps"]}
    known, claims = speeds(kinds), decides()
    for standing in ordered(out, known):
        yield standing, len(claims[standing.row])
        standing.advance(deadline, display)


def trained(chapter: str, out: Path) -> dict[str, set[int]]:
    """All that the store holds of the edition's training of a chapter, finished or not, as `Reached.used` names it.

    Of networks in the middle of their training only those that further training starts from: which others the chapter
    looks at is known once it was executed.
    """
    from lth.book.rehearsal import rehearse

    names: dict[str, set[int]] = {}
    for row in EDITION:
        if row.chapter == chapter:
            standing = Reached(row, out)
            if not standing.trained(-1):  # by other commands, perhaps
                found = rehearse(chapter, row.values())
                names |= found.looked_at | {name: set() for name in found.measures}
            for name, steps in standing.used.items():
                names.setdefault(name, set()).update(steps)
    return names


def status(out: Path) -> list[dict[str, Any]]:
    """One line for each part of each row, in the order of the table."""
    known, claims, lines = speeds(), decides(), []
    for row in EDITION:
        standing = Reached(row, out)
        for number, part in enumerate(row.parts):
            last, needed = number == len(row.parts) - 1, standing.needed(number)
            hours = standing.hours(known, number)
            there = standing.networks if needed is None else min(standing.networks, needed)
            lines.append(
                {
                    "row": row.name,
                    "part": part,
                    "networks": f"{there} of {'?' if needed is None else needed}",
                    "measures": len(standing.used) - standing.networks if last else "",
                    "hours left": "?" if hours is None else f"{hours:.1f}",
                    "claims": len(claims[row]) if last else "",
                    "state": "executed" if standing.executed else "trained" if standing.trained(number) else "",
                }
            )
    return lines


def _read(file: Path) -> Any:
    """JSON; None where there is none."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
