"""The store: every trained replica once, under a name that says all that decided its result.

    store/runs/<key>/       meta.json, history.csv, final.safetensors, step_<K>.safetensors (in the compact form)
    store/checkpoints/      unfinished training, one file each
    store/partial/          what is being written

A run is written under `partial`, synced, then renamed: it is there whole or not at all. Several processes may
share a store; who comes second finds the work done.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import numpy as np
import pandas as pd
import torch

from lth import distributed
from lth.data import Data, verify
from lth.errors import LthError, UsageError
from lth.files import ABANDONED, write_text
from lth.population import Population, concat
from lth.store.archives import FINAL, Archives, without_weights
from lth.tensor_files import weights_left
from lth.training.identity import run_keys
from lth.training.plan import Plan, Progress, Run
from lth.training.recipe import Recipe
from lth.training.train import check, train


class Machines(Protocol):
    """What trains elsewhere what a store lacks: `lth.cluster.Cluster`."""

    def train(
        self, root: Path, population: Population, plan: Plan, keys: Sequence[str], watch: Callable[[Progress], None]
    ) -> None:
        """Brings the runs of all these replicas, under their keys, into the store at `root`."""


@dataclass(frozen=True)
class Store:
    """The runs under `root`, and those in the archives that come with the book. on: where missing ones are trained."""

    root: Path
    archives: Archives = Archives()
    on: Machines | None = None

    def train(
        self,
        population: Population,
        data: Data,
        recipe: Recipe,
        *,
        watch: Callable[[Progress], None] = lambda progress: None,
        history_only: bool = False,
        **kind: Any,
    ) -> Run:
        """`lth.training.train.train`, but replicas that were trained before are read, and the others are kept.

        kind: its `updates`, `probes`, `keep`, `teacher` and `penalty`. history_only: of runs that came with the book
        without their weights, these are nan; such are trained otherwise. Training that is stopped goes on from its
        checkpoint at the next call. Raises LthError, naming the run, where a stored one is damaged, and where the store
        cannot be written to; UsageError where a rule, probe, penalty or architecture cannot be told from another
        (`lth.training.describe`).
        """
        verify(data)
        plan = Plan(data, recipe, **kind)
        check(population, plan)
        keys = run_keys(population, plan)
        lacking = [not self.holds(key, history_only) for key in keys]
        missing = np.flatnonzero(distributed.flags_of_first(lacking)).tolist()
        if missing:
            part, wanted = population[missing], [keys[r] for r in missing]
            own = plan.of(missing, part.frame)
            try:
                (self.root / "checkpoints").mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise LthError(f"cannot write to the store: {error}. Set LTH_STORE to another folder") from error
            self._sweep()
            if self.on:
                self.on.train(self.root, part, own, wanted, watch)
            else:
                self.fill(wanted, part, own, watch)
            if run_keys(population, plan) != keys:
                warnings.warn(
                    "a rule, probe or penalty changed something that it refers to while it was used: the runs are kept "
                    "under what it was before, and will be trained again. Let it only read, from a frozen dataclass",
                    stacklevel=2,
                )
        if lacking := [key for key in keys if distributed.rank() and not self.holds(key, history_only)]:
            raise LthError(
                f"process {distributed.rank()} does not see run {lacking[0]} of process 0: set LTH_STORE to a folder "
                "that all machines share"
            )
        return self.read(keys, population, plan.keep)

    def fill(
        self, keys: Sequence[str], population: Population, plan: Plan, watch: Callable[[Progress], None]
    ) -> None:
        """Trains replicas, from their checkpoint on if there is one, and keeps them under these keys."""
        checkpoint = self.root / unfinished(keys)
        run = train(population, **vars(plan), checkpoint=checkpoint, name="-".join(keys), watch=watch)
        if distributed.rank() == 0:
            for r, key in enumerate(keys):
                self._write(key, run, r, population, plan.data, plan.recipe)
            checkpoint.unlink(missing_ok=True)
        distributed.wait()

    def holds(self, key: str, history_only: bool = False) -> bool:
        """Whether a run is here, or can be brought, with its weights unless the history is enough."""
        folder = self.root / "runs" / key
        here = folder.exists() or self.archives.bring(f"runs/{key}", self.root)
        return here and (history_only or not without_weights(folder))

    def _sweep(self) -> None:
        """Removes what processes that were killed left half written, once it is a day old."""
        for leftover in [*self.root.glob("partial/*"), *self.root.glob("checkpoints/.*.partial")]:
            with contextlib.suppress(OSError):
                if time.time() - leftover.stat().st_mtime > ABANDONED:
                    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def _write(self, key: str, run: Run, r: int, start: Population, data: Data, recipe: Recipe) -> None:
        partial = self.root / "partial" / uuid4().hex
        try:
            partial.mkdir(parents=True)
            self._fill(partial, run, r, start, data, recipe)
            target = self.root / "runs" / key
            target.parent.mkdir(exist_ok=True)
            if without_weights(target):
                shutil.rmtree(target)
            with contextlib.suppress(OSError):  # another process was first
                partial.rename(target)
            if not target.exists():
                raise LthError(f"cannot write {target}")
        except OSError as error:  # a full disk, say; the checkpoint is still there
            raise LthError(f"cannot write to the store: {error}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _fill(self, partial: Path, run: Run, r: int, start: Population, data: Data, recipe: Recipe) -> None:
        """Writes everything of replica `r` into the folder `partial`; not the start, which whoever asks for the run
        has."""
        run.final[[r]].save(partial / FINAL, compact=True)
        for step, kept in run.snapshots.items():
            if step > recipe.first_step or any((m[r] != start.masks[n][r]).any() for n, m in kept.masks.items()):
                kept[[r]].save(partial / f"step_{step}.safetensors", compact=True)
        owner = (run.history["step"].diff() <= 0).cumsum()  # a replica's steps increase
        history = run.history[owner == r].drop(columns=run.final.frame.columns)
        others = [name for name in history if name.endswith("_before") and history[name].isna().all()]
        history = history.drop(columns=others)  # what only replicas with mask updates have
        write_text(partial / "history.csv", history.to_csv(index=False))
        meta = {
            "model": run.final.model.name,
            **({"options": options} if (options := run.final.model.options) else {}),
            "data": {"name": data.name, "fingerprint": data.fingerprint},
            "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
            "replica": json.loads(run.final.frame.iloc[[r]].to_json(orient="records"))[0],
            "device": device_name(run.final.device),
            "torch": torch.__version__,
            "failed": run.failed.get(r),  # the step at which its loss ceased to be a number
            "seconds": round(run.seconds / len(run.final), 3),  # of wall time, shared evenly by those trained together
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": {file.name: file_hash(file) for file in sorted(partial.iterdir())},
        }
        write_text(partial / "meta.json", json.dumps(meta, indent=1))

    def read(self, keys: Sequence[str], population: Population, keep: Sequence[int]) -> Run:
        """The stored runs of a population under their keys."""
        finals, histories, snapshots = [], [], {step: [] for step in sorted(set(keep))}
        seconds, failed, left_out = 0.0, {}, set()
        for r, key in enumerate(keys):
            meta = self.verify(key)
            seconds += meta["seconds"]
            if meta.get("failed") is not None:
                failed[r] = meta["failed"]
            gone = {step for step in snapshots if f"step_{step}.safetensors" in meta.get("left out", ())}
            left_out |= gone
            folder, row = self.root / "runs" / key, population.frame.iloc[[r]].reset_index(drop=True)
            if FINAL in meta.get("left out", ()):
                finals.append(population[[r]].without(np.array([True])))
            else:
                finals.append(replace(Population.load(folder / FINAL, population.device), frame=row))
            for step, parts in snapshots.items():
                if step in gone:
                    continue
                file = folder / f"step_{step}.safetensors"
                kept = Population.load(file, population.device) if file.exists() else population[[r]].with_plus_zeros()
                parts.append(replace(kept, frame=row))
            history = pd.read_csv(folder / "history.csv")
            histories.append(row.iloc[[0] * len(history)].reset_index(drop=True).assign(**history))
        final = concat(finals)
        history = pd.concat(histories, ignore_index=True)
        kept = {step: concat(parts) for step, parts in snapshots.items() if step not in left_out}
        return Run(final, history, kept, seconds, failed, frozenset(left_out))

    def verify(self, key: str) -> dict:
        """The meta data of a run whose files are whole; LthError, saying how to mend it, otherwise."""
        folder = self.root / "runs" / key
        try:
            meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            wrong = [name for name, told in meta["files"].items() if file_hash(folder / name) != told]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            wrong = [str(error)]
        if wrong:
            raise LthError(
                f"run {key} in {self.root} is damaged ({', '.join(wrong)}): "
                f"`lth store rm {key}` removes it, then the same command trains it again"
            )
        return meta

    def meta(self, population: Population, data: Data, recipe: Recipe, **kind: Any) -> dict[str, dict]:
        """What is known of the stored replicas of such a run (see `train` for `kind`), by key."""
        return {key: self.verify(key) for key in run_keys(population, Plan(data, recipe, **kind))}

    def about(self, key: str) -> tuple[str, str]:
        """When a run was written, and «lenet5 on mnist, method ticket, seed 3, 5 % left, 600 steps, kept: 10»."""
        meta, folder = self.verify(key), self.root / "runs" / key
        try:
            left, total = weights_left(folder / FINAL)
            left = "dense" if left == total else f"{100 * left / total:.3g} % left"
        except UsageError:  # of a network that is not registered in this process
            left = "? % left"
        except FileNotFoundError:
            left = "came without its weights"
        labels = {name: meta["replica"][name] for name in sorted(meta["replica"]) if name != "init_seed"}
        kept = sorted(int(name[5:-12]) for name in meta["files"] if name.startswith("step_"))
        parts = [f"{meta['model']} on {meta['data']['name']}", *(f"{name} {value}" for name, value in labels.items())]
        parts += [left, f"{meta['recipe']['steps']} steps"]
        parts += [f"kept: {', '.join(map(str, kept))}"] if kept else []
        return meta["written"], ", ".join(parts)


def unfinished(keys: Sequence[str]) -> str:
    """The name in a store of the checkpoint of replicas that are trained together."""
    return f"checkpoints/{hashlib.sha256('-'.join(keys).encode()).hexdigest()[:16]}.safetensors"


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def device_name(device: torch.device) -> str:
    """What a reader knows it by: the GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    for line in (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else ()
    ):
        if line.startswith("model name"):
            return f"CPU: {line.partition(':')[2].strip()}, {(n := torch.get_num_threads())} core{'s' * (n > 1)}"
    return "CPU"
