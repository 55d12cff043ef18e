"""Where a run stands, as one file that is replaced again and again; groups may be cut otherwise when it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from lth.errors import LthError, UsageError
from lth.population import Population
from lth.tensor_files import Tensors, load_header, load_tensors, save_tensors
from lth.training.group import Group, Standing

KINDS = ("params", "masks", "buffers")  # of a population's tensors


def save(groups: Sequence[Group], path: Path, name: str, seconds: float) -> None:
    """Writes where all replicas stand, after `seconds` of training, to one file, whole or not at all."""
    standings = [group.standing() for group in groups]
    tensors = {n: torch.cat([s.tensors[n].cpu() for s in standings]).contiguous() for n in standings[0].tensors}
    for step in sorted({step for s in standings for step in s.kept}):
        kept = [s.kept[step] for s in standings if step in s.kept]
        for kind in KINDS:
            for n in getattr(kept[0], kind):
                tensors[f"kept.{step}.{kind}.{n}"] = torch.cat([getattr(k, kind)[n] for k in kept]).cpu()
    told = [
        {"replicas": len(group), "step": s.step, "logged": s.logged, "history": s.history}
        for group, s in zip(groups, standings, strict=True)
    ]
    save_tensors(path, tensors, {"name": name, "seconds": seconds, "groups": told})


def restore(path: Path, name: str, population: Population, keep: Sequence[int]) -> tuple[list[Standing], float]:
    """Standings of consecutive replicas of `population` as `save` found them, and the seconds trained until then.

    Raises LthError where the file is damaged, UsageError where it belongs to another run.
    """
    try:
        tensors, header = load_tensors(path)
        if header["name"] != name:
            raise UsageError(f"{path} is the checkpoint of another run: remove it or name another file")
        standings, used = [], dict.fromkeys(sorted(set(keep)), 0)
        changing = {n: t for n, t in tensors.items() if not n.startswith("kept.")}
        start = 0
        for told in header["groups"]:
            rows = slice(start, start + told["replicas"])
            kept = {}
            for step in used:
                if step <= told["step"]:
                    cut = slice(used[step], used[step] + told["replicas"])
                    used[step] = cut.stop
                    parts = {kind: _kept(tensors, f"kept.{step}.{kind}.", cut, population) for kind in KINDS}
                    kept[step] = replace(population[rows], **parts)
            mine = {n: t[rows] for n, t in changing.items()}
            standings.append(Standing(told["step"], told["logged"], told["history"], mine, kept))
            start = rows.stop
    except UsageError:
        raise
    except (LthError, KeyError, TypeError, ValueError) as error:
        raise LthError(f"{path} is no whole checkpoint: remove it, and training begins anew ({error})") from error
    return standings, float(header["seconds"])


def owners(path: Path) -> list[str]:
    """The names of the runs whose checkpoint a file is, in their order; [] where it says nothing."""
    try:
        return load_header(path)["name"].split("-")
    except (LthError, KeyError, AttributeError):
        return []


def _kept(tensors: Tensors, prefix: str, cut: slice, population: Population) -> Tensors:
    """Some replicas of the kept tensors whose names begin with `prefix`."""
    found = {n[len(prefix) :]: t[cut] for n, t in tensors.items() if n.startswith(prefix)}
    return {n: t.to(population.device) for n, t in found.items()}
