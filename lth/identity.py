"""The name of a run: a hash of everything that decides its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lth.population import Population
from lth.recipe import PER_REPLICA

if TYPE_CHECKING:
    from lth.engine import Plan

ENGINE = 2  # raised when a change of the training code changes its numbers: older runs are then trained again


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def run_keys(population: Population, plan: Plan) -> list[str]:
    """One key per replica, which does not depend on the replicas beside it: (R,) strings of 16 hex digits.

    It covers the replica's initial weights and masks, its seed and own rates, the recipe (fields that differ
    from their default, so that a new field keeps old keys), its mask-update rule, the data's fingerprint, the
    probes and the kept steps, its teacher and its penalty. Labels in the frame are not part of it: chapters share
    runs under other names.
    """
    keys = []
    for r in range(len(population)):
        one = population[[r]]
        row = one.frame.iloc[0]
        teacher = plan.teacher if plan.teacher is None or len(plan.teacher) == 1 else plan.teacher[[r]]
        taught = plan.teacher is not None and float(row.get("distill", plan.recipe.distill)) != 0
        model = [one.model.name, one.model.shape, one.model.classes]
        description = {
            **({"engine": ENGINE} if ENGINE > 1 else {}),
            "model": [*model, options] if (options := one.model.options) else model,
            "params": tensors_hash(one.params),
            "masks": tensors_hash(one.masks),
            "buffers": tensors_hash(one.buffers),
            "seed": int(row["seed"]),
            **{name: float(row[name]) for name in PER_REPLICA if name in row},
            "recipe": plan.recipe.model_dump(mode="json", exclude_defaults=True),
            "update": _describe(plan.updates.get(row.get("method"))),
            "data": plan.data.fingerprint,
            "probes": [_describe(probe) for probe in plan.probes],
            "keep": sorted(set(plan.keep)),
            **({"teacher": _describe(teacher)} if taught else {}),
            **({"penalty": _describe(plan.penalty[r : r + 1])} if plan.penalty else {}),
        }
        keys.append(hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16])
    return keys


def _describe(thing: Any) -> Any:
    """What a part of a plan is, as JSON: a dataclass by its name and its fields other than their default (so that a
    new field keeps old keys), a function by its name, tensors by their hash."""
    if isinstance(thing, Tensor):
        return tensors_hash({"": thing})
    if isinstance(thing, Population):
        parts = (thing.params, thing.masks, thing.buffers)
        return [_describe(thing.model), *map(tensors_hash, parts)]
    if is_dataclass(thing):
        told = {f.name: _describe(getattr(thing, f.name)) for f in fields(thing) if not _is_default(thing, f)}
        return {"kind": type(thing).__name__, **told}
    if isinstance(thing, Mapping):
        return {str(name): _describe(value) for name, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [_describe(value) for value in thing]
    return getattr(thing, "__qualname__", thing)


def _is_default(thing: Any, field: Field) -> bool:
    value = getattr(thing, field.name)
    return isinstance(value, bool | int | float | str | None) and value == field.default
