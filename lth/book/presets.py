"""Six sets of values for the parameters of every chapter.

smoke: seconds, for tests. quick: two CPU cores, two minutes, data that need no download. night: two CPU cores, one
night for all chapters together, real images. gpu: one data-centre GPU. paper: the papers' own tables, which are the
defaults of `lth.book.settings`. imagenet: the same, and the sections on networks for ImageNet; several GPUs.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from lth.book.settings import CHAPTER_PARAMETERS, VALUES
from lth.book.settings.base import DIGITS, Facts, Settings
from lth.book.settings.imagenet import ImageNet
from lth.errors import UsageError

PRESETS = ("smoke", "quick", "night", "gpu", "paper", "imagenet")


def parameters(chapter: str, preset: str, overrides: Mapping[str, Any] | None = None) -> Settings:
    """The validated parameters of a chapter: the preset's values, then the overrides (strings are converted).

    Raises UsageError, in one line that names the parameter, for an unknown preset or name, a wrong type or a
    value out of range.
    """
    if preset not in PRESETS:
        raise UsageError(unknown("preset", preset, PRESETS))
    kind = CHAPTER_PARAMETERS[chapter]
    for name in overrides or {}:
        if name not in kind.model_fields:
            if others := [other for other, fields in CHAPTER_PARAMETERS.items() if name in fields.model_fields]:
                raise UsageError(
                    f"{chapter} has no parameter {name}, only {', '.join(others)}: name the chapter to run"
                )
            raise UsageError(f"{unknown('parameter', name, kind.model_fields)} (`lth list` explains them)")
    return kind(**{**VALUES[chapter].get(preset, {}), **(overrides or {})})


def changed(chapter: str, preset: str, values: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Name → (value, the preset's of today) of each parameter in which they differ; which seeds were drawn is none."""
    usual = parameters(chapter, preset).model_dump()
    both = [name for name in values if name in usual and name != "first_seed"]
    return {name: (values[name], usual[name]) for name in both if values[name] != usual[name]}


def nearest(chapter: str, typed: str, values: Mapping[str, Any]) -> str:
    """The preset from which these values of an execution differ least; the one that was typed if none is nearer.

    Whoever types a preset and the paper's whole settings has run the preset `paper`. «by hand» and the like stay.
    """
    if typed not in PRESETS:
        return typed
    return min((typed, *PRESETS), key=lambda preset: len(changed(chapter, preset, values)))


def check_data(chapter: str, values: Mapping[str, Any]) -> None:
    """UsageError, in one line, where the data set does not fit these parameters; LthError where it is not there.

    Digits are known without torch, whose import takes seconds.
    """
    settings, facts = parameters(chapter, "paper", values), DIGITS
    if settings.dataset != "digits":
        from lth import data

        facts = Facts.of(data.load(settings.dataset))
    settings.check(facts)
    if isinstance(settings, ImageNet) and settings.imagenet:
        from lth import data

        settings.check_imagenet(Facts.of(data.load(settings.imagenet)))


def unknown(kind: str, name: str, known: Any) -> str:
    """«unknown KIND NAME: did you mean …? Known: …»"""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown {kind} {name}: {hint}Known: {', '.join(known)}"
