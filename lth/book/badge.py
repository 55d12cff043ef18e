"""What a page says was run: architecture, data, how many, how long, on what, with which preset."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from lth.book.claims import ledger
from lth.book.presets import PRESETS, changed, nearest, parameters
from lth.book.settings import CHAPTER_PARAMETERS
from lth.book.text import escape
from lth.errors import UsageError

NAMES = {  # as the papers write them
    "lenet5": "LeNet5",
    "lenet_300_100": "LeNet 300-100",
    "conv4": "Conv-4",
    "resnet8": "ResNet-8 (stem of stride 4)",  # as for ImageNet, where larger ones have none for small images
    "resnet14": "ResNet-14 (stem of stride 4)",
    "vgg16_bn": "VGG-16",
    "mobilenet": "MobileNet",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar10-jpeg": "CIFAR-10 (from JPEG files)",
    "cifar100": "CIFAR-100",
}
FEW = 4  # parameters that a badge names


def named(name: str) -> str:
    """An architecture or a data set as the papers write it, in Markdown."""
    own = re.sub(r"^resnet(\d+)(x2)?$", lambda m: f"ResNet-{m[1]}" + " of double width" * bool(m[2]), name)
    return escape(NAMES.get(name, own))


def badge(chapter: str, told: dict[str, Any]) -> str:
    """«LeNet5 on MNIST · n = 16 masks · 300 steps of 64 images · preset paper, but with steps 300 in place of 11719»"""
    values = told.get("parameters", {})
    parts = [setting(chapter, told)]
    if "seeds" in values:
        parts.append(f"n = {values['seeds']} {unit(chapter)}s")
    if {"steps", "batch_size"} <= set(values):
        parts.append(f"{values['steps']:,} steps of {values['batch_size']} images")
    if "epochs" in values and "rounds" in values:
        parts.append(f"{values['rounds']} rounds of {values['epochs']} epochs")
    if "sparsity" in values:
        parts.append(f"{100 * values['sparsity']:g} % sparse")
    if "arms" in values:
        parts.append(escape(", ".join(values["arms"])))
    if "trained on" in told:
        machines = dict.fromkeys(re.sub(r", \d+ cores?", "", told["trained on"]).split(", "))
        parts.append(f"trained on {escape(' and '.join(machines))}")
    preset = nearest(chapter, told.get("preset", "?"), values)
    words = f"preset {escape(preset)}" if preset in PRESETS else escape(preset)
    if preset in PRESETS and (other := changed(chapter, preset, values)):
        each = [f"{escape(name)} {_in_words(it)} in place of {_in_words(usual)}" for name, (it, usual) in other.items()]
        words += f", but with {', '.join(each) if len(each) <= FEW else f'{len(each)} other values'}"
    return " ".join(f"[{part}]{{.ran}}" for part in [*parts, words] if part)


def _in_words(value: Any) -> str:
    return escape(",".join(map(str, value)) if isinstance(value, list | tuple) else value) or "none"


def setting(chapter: str, told: dict[str, Any], model: str = "") -> str:
    """«LeNet5 on MNIST»; "" where a stamp does not say. model: if it is not the chapter's first."""
    values = told.get("parameters", {})
    if "dataset" not in values:
        return ""
    try:
        model = model or parameters(chapter, "paper", _known(chapter, values)).models[0]
    except UsageError:  # of an edition whose parameters were others
        model = values.get("model", "")
    where = "scikit-learn's digits" if told["data"] == "digits" else named(told["data"])
    return f"{named(model)} on {where}" if model else where


def _known(chapter: str, values: dict[str, Any]) -> dict[str, Any]:
    """Those of an edition's parameters that the chapter has today."""
    return {name: value for name, value in values.items() if name in CHAPTER_PARAMETERS[chapter].model_fields}


def unit(chapter: str) -> str:
    """What most of a chapter's claims count: «mask»."""
    ((unit, _),) = Counter(c.replication for c in ledger().values() if c.chapter == chapter).most_common(1)
    return unit
