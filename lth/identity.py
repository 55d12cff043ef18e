"""The name of a run: a hash of everything that decides its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from torch import Tensor

from lth.population import Population
from lth.recipe import PER_REPLICA, Recipe

ENGINE = 1  # raised when a change of the training code changes its numbers: older runs are then trained again


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def run_keys(
    population: Population,
    fingerprint: str,
    recipe: Recipe,
    updates: Mapping[str, Any],
    probes: Sequence[Any],
    keep: Sequence[int],
) -> list[str]:
    """One key per replica, which does not depend on the replicas beside it: (R,) strings of 16 hex digits.

    It covers the replica's initial weights and masks, its seed and own rates, the recipe (fields that differ
    from their default, so that a new field keeps old keys), its mask-update rule, the data's fingerprint, the
    probes and the kept steps. Labels in the frame are not part of it: chapters share runs under other names.
    """
    keys = []
    for r in range(len(population)):
        one = population[[r]]
        row = one.frame.iloc[0]
        rule = updates.get(row.get("method"))
        description = {
            **({"engine": ENGINE} if ENGINE > 1 else {}),
            "model": [one.model.name, one.model.shape, one.model.classes],
            "params": tensors_hash(one.params),
            "masks": tensors_hash(one.masks),
            "buffers": tensors_hash(one.buffers),
            "seed": int(row["seed"]),
            **{name: float(row[name]) for name in PER_REPLICA if name in row},
            "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
            "update": _describe(rule),
            "data": fingerprint,
            "probes": [_describe(probe) for probe in probes],
            "keep": sorted(set(keep)),
        }
        keys.append(hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16])
    return keys


def _describe(thing: Any) -> Any:
    """A rule or probe as JSON: its class's name and its fields; a function by its name."""
    if is_dataclass(thing):
        fields = {name: _describe(value) for name, value in asdict(thing).items()}
        return {"kind": type(thing).__name__, **fields}
    return getattr(thing, "__qualname__", thing)
