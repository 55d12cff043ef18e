"""What a notebook needs beside the method itself: parameters, data, stored training, and where results go."""

from __future__ import annotations

import json
import os
import subprocess
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython import get_ipython
from IPython.display import Image, Markdown, display
from matplotlib.figure import Figure

from lth import data as datasets
from lth import distributed
from lth.analysis.learning import learns
from lth.book import CHAPTERS, claims, control, figures, verdicts
from lth.book.came_out import told_of_figure
from lth.book.presets import parameters
from lth.book.settings import CHAPTER_PARAMETERS
from lth.book.settings.base import IMAGES, Facts, Settings
from lth.book.settings.imagenet import ImageNet
from lth.data import Data
from lth.errors import LthError, UsageError
from lth.files import ROOT, absolute, data_set, default_root, settle_environment, shown, write_text
from lth.population import Population
from lth.store.measures import Measures
from lth.store.runs import Store, device_name
from lth.training.plan import Run
from lth.training.recipe import Recipe


def choose_device(wish: str) -> torch.device:
    """`auto`: the GPU where there is one. UsageError where `cuda` is asked for and missing."""
    if wish == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA device here: run with --device cpu (or auto), or on a machine with a GPU")
    if wish != "cpu" and torch.cuda.is_available() and distributed.size() > 1:
        distributed.own_gpu()
    return torch.device("cuda" if wish != "cpu" and torch.cuda.is_available() else "cpu")


class Chapter:
    """One execution of a chapter.

    The runner says through the environment where results go (LTH_OUT), where the data set lies of which the
    notebook knows the name (LTH_DATASET, LTH_IMAGENET), which preset (LTH_PRESET) and device (LTH_DEVICE) are in
    force, and on which cluster (LTH_ON) what is missing is trained and measured; by hand results go to build/by_hand,
    with the parameters of the notebook.
    """

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        """`values`: the notebook's variables, of which the chapter's parameters are checked and kept."""
        control.obey_stop()
        control.step_back()
        settle_environment()
        figures.house_style()
        self.started = time.time()
        self.commit, self.dirty = commit()  # of the code as it is now, when it is loaded
        self.name = name
        self.preset = os.environ.get("LTH_PRESET", "by hand")
        self.out = absolute(os.environ.get("LTH_OUT", ROOT / "build" / "by_hand" / name))
        wish, address = os.environ.get("LTH_DEVICE", "auto"), os.environ.get("LTH_ON")
        self.on = _cluster(address, wish) if address else None
        self.device = choose_device("auto" if self.on and wish == "cuda" else wish)
        chosen = {field: values[field] for field in CHAPTER_PARAMETERS[name].model_fields}
        for field in IMAGES & chosen.keys():
            chosen[field] = data_set(os.environ.get(f"LTH_{field.upper()}") or chosen[field])
        self.parameters: Settings = parameters(name, "paper", chosen)
        self.data = datasets.load(self.parameters.dataset, self.device)
        self.parameters.check(Facts.of(self.data))
        self.imagenet: Data | None = None  # where the section on large networks is not left out
        if isinstance(self.parameters, ImageNet) and self.parameters.imagenet:
            self.imagenet = datasets.load(self.parameters.imagenet, self.device)
            self.parameters.check_imagenet(Facts.of(self.imagenet))
        self.store = Store(default_root(), on=self.on)
        self.measure = Measures(self.store.root, on=self.on)  # keeps what was measured, network by network
        self.runs: dict[str, dict] = {}  # every stored run used here, by key
        self.whole: set[str] = set()  # those of which more than the history was asked for
        self.looked_at: dict[str, set[int]] = {}  # and their kept steps that were
        self.learned = False  # whether any network did more than guess

    def train(
        self, population: Population, recipe: Recipe, data: Data | None = None, history_only: bool = False, **kind: Any
    ) -> Run:
        """`lth.training.train.train` on the chapter's data, or others; replicas that the store holds are read from it.

        history_only: nothing is asked of the trained weights, which then need not travel with the book (`Store.train`).

        Those that failed are told on the page and nan ever after (`Run.without_failed`), so that means and tests leave
        them out. Raises LthError where none is left.
        """
        how = {"watch": control.Reporter(), "history_only": history_only}
        if self.on and self.on.in_branch():  # whose turn to be told of comes later
            return self.store.train(population, self.data, recipe, **how, **kind).without_failed()
        if not population.sound().any():
            raise LthError(
                f"all {len(population)} networks to be trained were made from ones that failed. "
                f"A lower lr than {recipe.lr:g} may help"
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* replicas failed")  # which is told below
            data = data or self.data
            run = self.store.train(population, data, recipe, **how, **kind)
        known = self.store.meta(population, data, recipe, **kind)
        self.runs |= known
        self.whole |= set() if history_only else set(known)
        self.note_networks()
        if told := failures(population, run):
            print(told)
        run = run.without_failed()
        ends = run.history[~run.history.duplicated([*run.final.frame], keep="last")]
        self.learned |= bool(learns(100 * ends["accuracy"], data.classes).any())
        if len(run.failed) == len(population):
            raise LthError(
                f"all {len(population)} networks failed: their loss is no number from step "
                f"{max(run.failed.values())} on. "
                f"A lower lr than {recipe.lr:g} may help"
            )
        return replace(run, snapshots=Watched(run.snapshots, lambda step: self._note_step(known, step)))

    def ahead(self, function: Callable[[list[int]], object], replicas: int) -> None:
        """On a cluster, `function(rows)` for parts of the replicas that need not wait for each other: what it trains is
        then in the store. Elsewhere nothing, as all are best trained together."""
        if self.on:
            self.on.ahead(function, replicas)

    def each(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """`[function(item) for item in items]`; on a cluster none waits for what the one before it trains."""
        items = list(items)
        if self.on:
            self.on.side_by_side(function, items)
        return [function(item) for item in items]

    def save(self, name: str, table: pd.DataFrame, figure: Figure | None = None) -> None:
        """Keeps a table as data/NAME.csv, and the figure drawn from it as figures/NAME.png, which is shown."""
        for folder in ("data", "figures"):
            (self.out / folder).mkdir(parents=True, exist_ok=True)
        write_text(self.out / "data" / f"{name}.csv", table.to_csv(index=False))
        if figure is not None:
            figures.legible(figure)
            file = self.out / "figures" / f"{name}.png"
            figure.savefig(file, bbox_inches="tight")
            plt.close(figure)  # a notebook would draw it once more, which takes a second for a figure
            display(Image(file))
            if control.folder() is None and get_ipython():  # by hand, where no page puts the caption below
                notebook = json.loads((ROOT / CHAPTERS[self.name]).read_text(encoding="utf-8"))
                caption, *_ = told_of_figure(notebook, name)
                display(Markdown(f"{caption} The numbers are in `data/{name}.csv` below `{self.out}`."))

    def judge(self, samples: Mapping[str, Any]) -> pd.DataFrame:
        """Tests every claim of the chapter with its samples: the table of verdicts, kept as claims.json.

        samples: claim → what `lth.book.verdicts.judge` takes, one number per unit of the claim's replication. Where all
        networks only guess, which is told on the page, there is nothing to test but checks and who learns.
        """
        claims.check_ids(self.name, list(samples))
        asked = [claim for claim in claims.ledger().values() if claim.id in samples]
        if told := self.guessing():
            print(told)
            about = {claim.id for claim in asked if claim.check or claim.kind in ("share", "shares")}
            samples = {name: sample if name in about else [] for name, sample in samples.items()}
        found = [verdicts.judge(claim, samples[claim.id], self.parameters.model_dump()) for claim in asked]
        self.out.mkdir(parents=True, exist_ok=True)
        write_text(
            self.out / "claims.json", json.dumps([finding.model_dump() for finding in found], indent=1, allow_nan=False)
        )
        rows = [
            {
                "claim": f"{claim.id}: {claim.statement}",
                "paper": claim.paper,
                "test": f"{claim.test} {claim.unit}",
                "value [95 % interval], n": verdicts.interval(finding) + f" {claim.replication}s" * bool(finding.n),
                "in this run": finding.outcome,
                "verdict": verdicts.verdict_mark(verdicts.verdict_words(finding)),
            }
            for claim, finding in zip(asked, found, strict=True)
        ]
        return pd.DataFrame(rows, dtype=object)  # in which the verdicts stay Markup

    def guessing(self) -> str:
        """One sentence if none of the chapter's networks learned: on the training images that each saw last, none was
        right more than twice as often as a guess; "" otherwise, and where nothing was trained."""
        if self.learned or not self.runs:
            return ""
        return (
            f"All {len(self.runs)} networks of this chapter only guess: in the end none is right on more than "
            f"{200 / self.data.classes:.3g} % of its training images, twice the share of a guess. What is measured of "
            "them says nothing about networks that learn, and claims about those have nothing to test here."
        )

    def provenance(self) -> pd.DataFrame:
        """Where these results come from, as a table; kept as provenance.json. Call it last."""
        trained = pd.DataFrame(self.runs.values())
        failed = sum(run.get("failed") is not None for run in self.runs.values())
        stamp = {
            "chapter": self.name,
            "preset": self.preset,
            "commit": self.commit + (" (with uncommitted changes)" if self.dirty else ""),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": device_name(self.device),
            "trained on": ", ".join(sorted(set(trained["device"]))),
            "torch": torch.__version__,
            "cuda": torch.version.cuda if self.device.type == "cuda" else "not used",
            "data": shown(self.data.name),
            "data fingerprint": self.data.fingerprint,
            "networks trained": len(trained),
            **({"networks failed": failed} if failed else {}),
            "training time": _minutes(trained["seconds"].sum()),
            "time of this execution": _minutes(time.time() - self.started),
            "parameters": {n: shown(v) if n in IMAGES else v for n, v in self.parameters.model_dump().items()},
        }
        self.out.mkdir(parents=True, exist_ok=True)
        write_text(self.out / "provenance.json", json.dumps(stamp, indent=1))
        self.note_networks()
        flat = {**stamp, "parameters": ", ".join(f"{k}={v}" for k, v in stamp["parameters"].items())}
        return pd.DataFrame({"what": flat.keys(), "this execution": [str(value) for value in flat.values()]})

    def note_networks(self) -> None:
        """Keeps the names of all that the chapter used of the store, runs and measures, as networks.json.

        name → the kept steps of a run that were looked at; null where its history was enough.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        steps = {key: sorted(self.looked_at.get(key, ())) if key in self.whole else None for key in self.runs}
        used = {f"runs/{key}": looked_at for key, looked_at in steps.items()}
        used |= {name: [] for name in self.measure.used}
        lines = (f"{json.dumps(name)}: {json.dumps(steps)}" for name, steps in sorted(used.items()))
        write_text(self.out / "networks.json", "{\n" + ",\n".join(lines) + "\n}\n")

    def _note_step(self, keys: Iterable[str], step: int) -> None:
        for key in keys:
            self.looked_at.setdefault(key, set()).add(step)


def _cluster(address: str, device: str) -> Any:
    from lth.cluster.machines import Cluster  # Ray takes seconds to load

    return Cluster(address, device)


class Watched(dict[int, Population]):
    """Kept networks by step, of which it is told which are looked at."""

    def __init__(self, kept: Mapping[int, Population], looked: Callable[[int], None]) -> None:
        super().__init__(kept)
        self.looked = looked

    def __getitem__(self, step: int) -> Population:
        self.looked(step)
        return super().__getitem__(step)


def failures(population: Population, run: Run) -> str:
    """One sentence on the replicas of `population` that failed in `run`, method by method; "" if none did.

    Those that were made from failed ones were told before.
    """
    sound, frame = population.sound(), run.final.frame
    methods = frame["method"] if "method" in frame else pd.Series("", index=frame.index)
    parts = []
    for method in methods.unique():
        rows = np.flatnonzero(methods == method)
        failed = [r for r in rows if r in run.failed and sound[r]]
        if failed:
            steps = sorted({run.failed[r] for r in failed})
            when = f"step {steps[0]}" + (f" to {steps[-1]}" if len(steps) > 1 else "")
            of = f" of method {method}" if method else ""
            parts.append(f"{len(failed)} of {len(rows)} networks{of} (at {when})")
    told = f"Failed in training: {', '.join(parts)}. They, and what is made from them, are left out of means and tests."
    return told if parts else ""


def commit() -> tuple[str, bool]:
    """Short hash of the checkout's commit, and whether files differ from it."""
    git = lambda *words: subprocess.run(  # noqa: E731
        ["git", "-C", str(ROOT), *words], capture_output=True, encoding="utf-8", check=False
    ).stdout.strip()
    try:
        return git("rev-parse", "--short=12", "HEAD") or "unknown", bool(git("status", "--porcelain"))
    except FileNotFoundError:  # no git here
        return "unknown", False


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"
