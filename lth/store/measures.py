"""What was measured of a network, or learned from it, once: kept beside the store of training, under a name that says
all that decided it.

    store/measures/<key>.safetensors     tensors, or a table as CSV in the header; and the hash of both

A file holds what belongs to one network and is there whole or not at all: who is stopped goes on where he was and has
lost the networks in work. Several processes may share a store.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor

from lth.errors import LthError, UsageError
from lth.parallel import map_replicas
from lth.population import Population
from lth.store.archives import Archives
from lth.tensor_files import Tensors, load_tensors, save_tensors
from lth.training.describe import describe, tensors_hash

VERSION = 1  # raised when a change of measuring code changes its numbers: all is then measured again
TOGETHER = 8  # networks at a time on a GPU
PLACE = "place in the measure"  # a column of the frame that a measure is given
OTHER = "another network"  # in the name of a measure, in the place of an argument that is one

Measured = pd.DataFrame | Tensors


class Machines(Protocol):
    """What measures elsewhere: `lth.cluster.Cluster`."""

    def measure(
        self, root: Path, measure: Callable[..., Measured], population: Population, names: Sequence[str], *how: Any
    ) -> None:
        """Brings what is measured of all these replicas, under its names, into the store at `root`. how: the
        measure's arguments and its options."""


@dataclass(frozen=True)
class Measures:
    """The measures under `root`, the folder of a store, and those in the archives that come with the book.

    on:   where what is missing is measured.
    used: names of those that were asked for, "measures/KEY.safetensors".
    """

    root: Path
    archives: Archives = Archives()
    on: Machines | None = field(default=None, compare=False)
    used: set[str] = field(default_factory=set, compare=False)

    def __call__(self, measure: Callable[..., Measured], population: Population, *args: Any, **options: Any) -> Any:
        """`measure(population, *args, **options)`; networks of which that is known are read, the others are kept.

        measure: a function of `lth` or a dataclass that can be called. It gives a table whose rows carry
                 the columns of the frame, or tensors by name, (R, …), and of each network the same whichever others
                 are measured beside it.
        args, options: numbers, text, splits of data, tensors that all networks share, and populations of as many
                 networks, such as the other ends of lines, of which each network has its own. They are part of the
                 name, as are the network's model, weights, masks, buffers and seed; other columns of the frame are not.
                 What needs two networks is measured here, not by `on`.

        Raises UsageError for a measure whose name does not say what it does, LthError where a file is damaged and
        where the store cannot be written to.
        """
        keys = _keys(measure, population, args, options)
        first = {key: r for r, key in reversed([*enumerate(keys)])}  # of networks that are the same one is measured
        missing = sorted(r for key, r in first.items() if not self._holds(key))
        size = 1 if population.device.type == "cpu" else TOGETHER

        def find(rows: list[int]) -> None:
            some = population[rows].label(**{PLACE: range(len(rows))})
            own = {name: _own(thing, rows) for name, thing in options.items()}
            found = measure(some, *(_own(thing, rows) for thing in args), **own)
            for place, r in enumerate(rows):
                self._write(keys[r], _of_one(found, some, place), str(_named(measure)))

        chunks = [missing[at : at + size] for at in range(0, len(missing), size)]
        if self.on and missing and not _others(args, options):
            names = [self._name(keys[r]) for r in missing]
            self.on.measure(self.root, measure, population[missing], names, args, options)
        elif size == 1:
            map_replicas(find, chunks)
        else:
            for rows in chunks:
                find(rows)
        self.used.update(map(self._name, keys))
        return _joined([self._read(key) for key in keys], population)

    def known(self, measure: Callable[..., Measured], population: Population, *args: Any, **options: Any) -> bool:
        """Whether all of that was measured before."""
        return all(map(self._holds, _keys(measure, population, args, options)))

    def _holds(self, key: str) -> bool:
        """Whether a measure is here, or can be brought."""
        return self._file(key).exists() or self.archives.bring(self._name(key), self.root)

    def _name(self, key: str) -> str:
        return f"measures/{key}.safetensors"

    def _file(self, key: str) -> Path:
        return self.root / self._name(key)

    def _write(self, key: str, found: Measured, name: str) -> None:
        table = found.to_csv(index=False) if isinstance(found, pd.DataFrame) else None
        tensors = {} if table is not None else {n: t.detach().cpu().contiguous() for n, t in found.items()}
        try:
            self._file(key).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LthError(f"cannot write to the store: {error}. Set LTH_STORE to another folder") from error
        save_tensors(self._file(key), tensors, {"measure": name, "table": table, "hash": _hash(tensors, table)})

    def _read(self, key: str) -> Measured:
        file = self._file(key)
        try:
            tensors, header = load_tensors(file)
            if header["hash"] != _hash(tensors, header["table"]):
                raise LthError(f"{file} is damaged")
        except (LthError, KeyError) as error:
            raise LthError(f"{file} is damaged: delete it, then the same command measures it again") from error
        table = header["table"]
        return tensors if table is None else pd.read_csv(io.StringIO(table))


def _hash(tensors: Tensors, table: str | None) -> str:
    return hashlib.sha256(f"{tensors_hash(tensors)} {table}".encode()).hexdigest()


def _named(measure: Any) -> Any:
    """What a measure is, as JSON; UsageError for one whose code may change under its name."""
    kind = measure if isinstance(measure, type(_named)) else type(measure)
    if kind.__module__.partition(".")[0] != "lth" or "<" in kind.__qualname__:
        raise UsageError(
            f"what {kind.__qualname__} finds would be kept under its name, whatever becomes of its code: measure with "
            "a function or a dataclass of a module of lth"
        )
    told = describe("a measure", measure) if is_dataclass(measure) else kind.__qualname__
    return {"module": kind.__module__, "what": told}


def _keys(measure: Any, population: Population, args: tuple[Any, ...], options: dict[str, Any]) -> list[str]:
    """What the measure of each network is kept under."""
    others, blank = _others(args, options), lambda thing: OTHER if isinstance(thing, Population) else thing
    if any(len(other) != len(population) for other in others):
        raise UsageError(f"each of the {len(population)} networks needs its own other one: there are {len(others[0])}")
    told = describe("what is measured", [list(map(blank, args)), {name: blank(o) for name, o in options.items()}])
    shared = {"version": VERSION, "measure": _named(measure), "arguments": told}
    return [_key(shared, population[[r]], [other[[r]] for other in others]) for r in range(len(population))]


def _others(args: tuple[Any, ...], options: dict[str, Any]) -> list[Population]:
    """The arguments that are other networks."""
    return [thing for thing in (*args, *options.values()) if isinstance(thing, Population)]


def _own(thing: Any, rows: list[int]) -> Any:
    """An argument, of which some networks have their own part where it is other networks."""
    return thing[rows] if isinstance(thing, Population) else thing


def _key(shared: dict[str, Any], one: Population, others: Sequence[Population]) -> str:
    told = {**shared, "network": describe("a network", one), "seed": one.seeds[0]}
    told |= {"others": [describe("a network", other) for other in others]} if others else {}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _of_one(found: Measured, population: Population, place: int) -> Measured:
    """The part of one network, without the columns of its frame."""
    if not isinstance(found, pd.DataFrame):
        return {name: tensor[[place]] for name, tensor in found.items()}
    return found[found[PLACE] == place].drop(columns=population.frame.columns)


def _joined(parts: list[Measured], population: Population) -> Measured:
    """The parts of all networks together, tables with the frame's columns before them."""
    if not isinstance(parts[0], pd.DataFrame):
        join: Callable[[str], Tensor] = lambda name: torch.cat([part[name] for part in parts])  # noqa: E731
        return {name: join(name).to(population.device) for name in parts[0]}
    rows = [population.frame.iloc[[r] * len(part)].reset_index(drop=True) for r, part in enumerate(parts)]
    return pd.concat([row.assign(**part) for row, part in zip(rows, parts, strict=True)], ignore_index=True)
