"""Files of tensors: safetensors with a JSON header, and the compact form in which a population's masks are packed."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lth.errors import LthError, UsageError
from lth.models import Model

Tensors = dict[str, Tensor]


def save_tensors(path: Path, tensors: Tensors, header: dict[str, Any]) -> None:
    """One safetensors file with a JSON header, written under a temporary name, synced, then renamed.

    Raises LthError where it cannot be written; an older file of that name is then still there.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file(tensors, partial, {"lth": json.dumps(header, default=lambda value: value.item())})
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        raise LthError(f"cannot write {path}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def load_header(path: Path) -> dict[str, Any]:
    """The header of a file that `save_tensors` wrote, without its tensors; LthError where it is something else."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads(file.metadata()["lth"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise LthError(f"{path} is damaged or was not written by lth: {error}") from error


def load_tensors(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and header of a file that `save_tensors` wrote; LthError where it is something else."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["lth"])  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise LthError(f"{path} is damaged or was not written by lth: {error}") from error


def unpacked(path: Path) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """`params`, `masks` and `buffers` of a population's file, by name, with the replicas as first axis, and its header.

    A network that is registered nowhere is read, too. Raises LthError, naming the file, where it is damaged or foreign.
    """
    tensors, header = load_tensors(path)
    groups: dict[str, Tensors] = {"params": {}, "masks": {}, "buffers": {}, "values": {}, "bits": {}}
    try:
        for name, tensor in tensors.items():
            group, _, rest = name.partition(".")
            groups[group][rest] = tensor
        values, bits, replicas = groups.pop("values"), groups.pop("bits"), len(pd.DataFrame(header["frame"]))
        for name, one in _masked(header).items() if header.get("compact") else ():
            shape = (replicas, *one)
            mask = np.ones(shape, bool)
            if name in bits:
                mask = np.unpackbits(bits[name].numpy(), count=mask.size).astype(bool).reshape(shape)
                if mask.sum() != len(values[name]):
                    raise ValueError(f"{len(values[name])} values of {name} for {mask.sum()} places")
                whole = values[name].new_zeros(shape)
                groups["params"][name] = whole.masked_scatter_(torch.from_numpy(mask), values[name])
            groups["masks"][name] = torch.from_numpy(mask)
        return groups, header
    except (KeyError, TypeError, ValueError, RuntimeError, UsageError) as error:
        raise LthError(f"{path} holds no population: {error}") from error


def _masked(header: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter that has a mask, from the header of a file in the compact form."""
    if "shapes" not in header:  # of an older file
        shapes = Model(**header["model"]).shapes
        return {name: shapes.params[name] for name in shapes.prunable}
    return header["shapes"]


def weights_left(path: Path) -> tuple[int, int]:
    """Of a file in the compact form: how many weights that may be pruned are left, and how many there are.

    Only its header is read. Raises UsageError where it is of an older kind and its architecture is unknown.
    """
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["lth"])
        names = set(file.keys())
        size = lambda name: math.prod(file.get_slice(name).get_shape())  # noqa: E731
        shapes = _masked(header)
        total = len(pd.DataFrame(header["frame"])) * sum(map(math.prod, shapes.values()))
        kept = (f"values.{name}" if f"values.{name}" in names else f"params.{name}" for name in shapes)
        return sum(map(size, kept)), total
