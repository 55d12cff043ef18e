"""The name of a run: a hash of everything that decides its result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

from lth.errors import UsageError
from lth.population import Population
from lth.training.describe import describe, origin, tensors_hash
from lth.training.plan import Plan, Probe
from lth.training.recipe import PER_REPLICA

if TYPE_CHECKING:
    import pandas as pd

    from lth.training.plan import Plan, Probe

ENGINE = 2  # raised when a change of the training code changes its numbers: older runs are then trained again


def run_keys(population: Population, plan: Plan) -> list[str]:
    """One key per replica, which does not depend on the replicas beside it: (R,) strings of 16 hex digits.

    It covers the replica's initial weights and masks, its seed and own rates, the recipe (fields that differ from their
    default, so that a new field keeps old keys), its mask-update rule, the data's fingerprint, the probes and the kept
    steps, its teacher and its penalty. What is defined outside lth is part of it with its code
    (`lth.training.describe`). Labels in the frame are not part of it, so that chapters share runs under other names,
    unless a rule or probe from outside lth could read them. Raises UsageError, naming the thing, where that cannot be
    told.
    """
    data, build = plan.data, population.model.registered
    foreign = {"architecture": describe(f"the architecture {population.model.name}", build)} if build else {}
    if kinds := [type(part) for part in (data, data.train, data.test) if _foreign(type(part))]:
        foreign["kinds of data"] = describe("the data", kinds)
    updates = {method: _dataclass(f"the rule of {method!r}", rule) for method, rule in plan.updates.items()}
    probes = [_probe(probe) for probe in plan.probes]
    watched = any(_foreign(probe) or _foreign(probe.measure) for probe in plan.probes)
    if plan.penalty:
        _dataclass("the penalty", plan.penalty)
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
            **foreign,
            "update": updates.get(row.get("method")),
            "data": data.fingerprint,
            "probes": probes,
            "keep": sorted(set(plan.keep)),
            **({"teacher": describe("the teacher", teacher)} if taught else {}),
            **({"penalty": describe("the penalty", plan.penalty[r : r + 1])} if plan.penalty else {}),
            **({"labels": _labels(row)} if watched or _foreign(plan.updates.get(row.get("method"))) else {}),
        }
        keys.append(hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16])
    return keys


def _foreign(thing: Any) -> bool:
    """Whether a part of a plan, by its class or as a function, is defined outside lth."""
    return thing is not None and origin(getattr(thing, "__module__", None) or "") != "lth"


def _dataclass(role: str, thing: Any) -> Any:
    if isinstance(thing, type):
        raise UsageError(f"{role} is the class {thing.__name__} itself: write {thing.__name__}(…)")
    if not is_dataclass(thing):
        raise UsageError(
            f"{role}, {type(thing).__name__}, is no dataclass: put @dataclass(frozen=True) above its class, for a "
            "stored run is named by the fields of its rules"
        )
    return describe(role, thing)


def _probe(probe: Probe) -> Any:
    measure = probe.measure
    if isinstance(measure, type) or not callable(measure):
        raise UsageError(f"a probe measures with a function or a dataclass that can be called, not {measure!r}")
    return describe("a probe", probe)


def _labels(row: pd.Series) -> Any:
    return describe("the frame", {str(name): getattr(v, "item", lambda v=v: v)() for name, v in row.items()})
