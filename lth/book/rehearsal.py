"""A chapter's training without any training: which networks it needs, which of them are there, what the others cost.

The statements of the notebook that train are executed (`lth.book.training`). Networks that the store holds, or an
archive, are read, so that what is made from them is right; the others are pretended. Of what is made from a pretended
network the store knows nothing, which is right as well: it has not been trained.
"""

from __future__ import annotations

import ast
import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lth.book.chapter import Chapter, Watched
from lth.book.training import CHAPTER, training_cells
from lth.data import Data, Split
from lth.errors import LthError
from lth.methods import prune
from lth.population import Population, concat
from lth.store.measures import Measures
from lth.training.identity import run_keys
from lth.training.plan import Plan, Run
from lth.training.recipe import Recipe


@dataclass
class Rehearsal:
    """What training would find.

    looked_at: the runs that the store or an archive holds, "runs/KEY", and the kept steps that training starts from.
    measures:  those of the measures that training needs and that are there.
    steps:     replica-steps of all networks, there or not, by kind: "resnet8 1x28x28 32" (model, images, batch size).
    needed:    how many networks there are in all.
    rough:     statements that cannot go on without the true networks; the counts are then a little too low.
    """

    looked_at: dict[str, set[int]] = field(default_factory=dict)
    measures: set[str] = field(default_factory=set)
    steps: Counter[str] = field(default_factory=Counter)
    rough: int = 0
    seen: set[str] = field(default_factory=set)

    @property
    def there(self) -> set[str]:
        return set(self.looked_at)

    @property
    def needed(self) -> int:
        return len(self.seen)

    def note(self, key: str, there: bool, kind: str, steps: int) -> None:
        if key not in self.seen:
            self.seen.add(key)
            self.steps[kind] += steps
            if there:
                self.looked_at[f"runs/{key}"] = set()

    def look(self, keys: Sequence[str], step: int) -> None:
        for key in keys:
            if f"runs/{key}" in self.looked_at:
                self.looked_at[f"runs/{key}"].add(step)


def rehearse(chapter: str, values: Mapping[str, Any]) -> Rehearsal:
    """What the training of a chapter with these parameters needs. LthError where its data are not there."""
    told, space = Rehearsal(), dict(values)
    for statement in ast.parse("\n".join(training_cells(chapter))).body:
        try:
            with _no_outputs(), redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
                exec(compile(ast.Module([statement], []), chapter, "exec"), space)
        except LthError:
            raise
        except Exception:  # noqa: BLE001 - a pretended network has no loss, no eigenvalue, no best epoch
            if len(told.there) == told.needed:
                raise
            told.rough += 1
        if isinstance(own := space.get(CHAPTER), Chapter) and "train" not in vars(own):
            own.train, own.measure = _pretends(own, told), _Pretended(own.store.root, used=told.measures)
    return told


def _pretends(chapter: Chapter, told: Rehearsal) -> Callable[..., Run]:
    """Takes the place of `Chapter.train`."""

    def train(
        population: Population, recipe: Recipe, data: Data | None = None, history_only: bool = False, **how: Any
    ) -> Run:
        store, plan = chapter.store, Plan(data or chapter.data, recipe, **how)
        keys, model = run_keys(population, plan), population.model
        kind = f"{model.name} {'x'.join(map(str, model.shape))} {recipe.batch_size}"
        probed = {name for probe in plan.probes for name in probe.measure(population[[0]], plan.data)}
        runs = []
        for r, key in enumerate(keys):
            there = store.holds(key, history_only)
            told.note(key, there, kind, recipe.steps - recipe.first_step)
            one = population[[r]]
            true = store.read([key], one, plan.keep).without_failed() if there else None
            runs.append(true or _pretended(one, plan, key, probed))
        final = concat([run.final for run in runs])
        history = pd.concat([run.history for run in runs], ignore_index=True)
        come = [step for step in sorted(set(plan.keep)) if not any(step in run.left_out for run in runs)]
        kept = {step: concat([run.at(step) for run in runs]) for step in come}
        return Run(final, history, Watched(kept, lambda step: told.look(keys, step)), 0.0, {})

    return train


def _pretended(one: Population, plan: Plan, key: str, probed: set[str]) -> Run:
    """A run that did not take place: weights a little apart from all others', a history of one row without numbers."""
    theta, chance = one.theta(), torch.Generator().manual_seed(int(key, 16) % 2**63)
    apart = one.with_theta(theta * (1 + 0.3 * torch.randn(theta.shape, generator=chance).to(theta)))
    rule = plan.updates.get(one.frame.iloc[0].get("method"))
    if isinstance(rule, prune.Gradual):
        apart = prune.apply(apart, rule.masks(apart, plan.recipe.steps, plan.data))
    row = {"step": plan.recipe.steps} | dict.fromkeys(["loss", "accuracy", *probed], np.nan)
    return Run(apart, one.frame.assign(**row), dict.fromkeys(plan.keep, apart) | {plan.recipe.first_step: one}, 0.0, {})


class _Pretended(Measures):
    """Reads measures that are there; of a network that is not there every factor is 1."""

    def __call__(self, measure: Callable[..., Any], population: Population, *args: Any, **options: Any) -> Any:
        if self.known(measure, population, *args, **options):
            return super().__call__(measure, population, *args, **options)
        return {name: torch.ones(len(population)) for name in population.params}


@contextmanager
def _no_outputs() -> Iterator[None]:
    """Networks put out nothing, which takes no time; rules that ask them (adaptive pruning) take their least."""
    true = Population.logits

    def nothing(population: Population, split: Split) -> Tensor:
        return torch.full((len(population), len(split), population.model.classes), torch.nan)

    Population.logits = nothing
    try:
        yield
    finally:
        Population.logits = true
