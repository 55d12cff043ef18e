"""Six sets of values for the parameters of every chapter.

smoke: seconds, for tests. quick: two CPU cores, two minutes, data that need no download. night: two CPU cores, one
night for all chapters together, real images. gpu: one data-centre GPU. paper: the papers' own tables, which are the
defaults of `lth.book.settings`. imagenet: the same, and the sections on networks for ImageNet; several GPUs.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from lth.book.settings import CHAPTER_PARAMETERS, DIGITS, Facts, ImageNet, Settings
from lth.errors import UsageError

PRESETS = ("smoke", "quick", "night", "gpu", "paper", "imagenet")

# of the sections on ImageNet, for images of any kind
_IMAGENET: dict[str, dict[str, Any]] = {
    "smoke": {"imagenet_seeds": 2, "imagenet_precision": "fp32"},
    "imagenet": {"imagenet": "imagenet"},
}

# a quarter of the steps of [E] and half its batches, which is an eighth of the work; what comes when is in proportion
_SHORT = {"steps": 3_000, "batch_size": 64, "prune_start": 750, "prune_end": 1_750, "prune_every": 25}

# what chapters 1 and 2 share, so that they train the same networks
_SPARSE_TRAINING: dict[str, dict[str, Any]] = {
    "smoke": {
        "dataset": "digits",
        "seeds": 3,
        "steps": 10,
        "batch_size": 16,
        "prune_start": 2,
        "prune_end": 6,
        "prune_every": 2,
        "dst_every": 4,
        "probe_every": 5,
        "block": 20,
    },
    "quick": {
        "dataset": "digits",
        "seeds": 3,
        "sparsity": 0.9,
        "steps": 300,
        "batch_size": 32,
        "prune_start": 75,
        "prune_end": 175,
        "prune_every": 10,
        "dst_every": 20,
        "probe_every": 20,
        "block": 200,
    },
    "night": _SHORT | {"dst_every": 125, "probe_every": 50},
}

_VALUES: dict[str, dict[str, dict[str, Any]]] = {
    "gradient_flow": {
        "smoke": _SPARSE_TRAINING["smoke"]
        | {
            "mlp_seeds": 3,
            "draws": 300,
            "inputs": 20,
            "imagenet_models": ["resnet8", "resnet8"],
            "imagenet_batches": [8, 8],
            "imagenet_length": 1e-4,
        }
        | _IMAGENET["smoke"],
        "quick": _SPARSE_TRAINING["quick"]
        | {
            "high_sparsity": 0.95,
            "mlp_seeds": 3,
            "mlp_lr": 0.1,
            "draws": 2000,
            "inputs": 100,
        },
        "night": _SPARSE_TRAINING["night"],
        "gpu": {"precision": "tf32"},
        "paper": {},
        "imagenet": _IMAGENET["imagenet"],
    },
    "dst_updates": {
        "smoke": _SPARSE_TRAINING["smoke"]
        | {
            "dst_often": 2,
            "hessian_updates": [1, 2],
            "hessian_seeds": 2,
            "hessian_images": 20,
            "lanczos_steps": 10,
            "many_images": 30,
            "few_images": 10,
        },
        "quick": _SPARSE_TRAINING["quick"]
        | {
            "dst_often": 10,
            "hessian_seeds": 3,
            "hessian_images": 60,
            "lanczos_steps": 16,
            "many_images": 200,
            "few_images": 20,
        },
        "night": _SPARSE_TRAINING["night"] | {"dst_often": 25, "hessian_seeds": 5, "many_images": 20_000},
        "gpu": {"precision": "tf32"},
        "paper": {},
    },
    "lt_basin": {
        "smoke": {
            "dataset": "digits",
            "seeds": 3,
            "steps": 60,
            "batch_size": 32,
            "prune_start": 15,
            "prune_end": 35,
            "prune_every": 5,
            "points": 8,
        },
        "quick": {
            "dataset": "digits",
            "seeds": 4,
            "sparsity": 0.8,
            "steps": 600,
            "batch_size": 64,
            "prune_start": 150,
            "prune_end": 360,
            "prune_every": 10,
            "points": 15,
            "images": 1437,
        },
        "night": _SHORT | {"points": 15, "images": 5_000},
        "gpu": {"precision": "tf32"},
        "paper": {},
    },
    "tweaks": {
        "smoke": {
            "dataset": "digits",
            "model": "resnet8",
            "seeds": 2,
            "rounds": 2,
            "ratio": 0.6,
            "levels": [1, 2],
            "shown": 2,
            "steps": 3,
            "validate_every": 3,
            "batch_size": 16,
            "augment": False,
            "scaling_steps": 1,
            "scaling_rate": 0.05,
            "masks_at": [0.8],
            "others": ["resnet8"],
            "rewind_step": 1,
            "tolerance": 0.5,
            "batches": 1,
            "grid": 3,
            "images": 20,
        },
        "quick": {
            "dataset": "digits",
            "model": "resnet8",
            "init": "kaiming_normal",
            "standardise": False,
            "seeds": 3,
            "rounds": 3,
            "ratio": 0.7,
            "levels": [1, 3],
            "shown": 3,
            "steps": 75,
            "validate_every": 25,
            "batch_size": 32,
            "augment": False,
            "scaling_steps": 15,
            "scaling_rate": 0.05,
            "masks_at": [0.9],
            "others": [],
            "rewind_step": 15,
            "batches": 1,
            "tolerance": 0.02,
            "grid": 9,
            "images": 100,
        },
        "night": {
            "dataset": "cifar10-jpeg",
            "model": "resnet8",
            "seeds": 8,
            "rounds": 4,
            "ratio": 0.55,
            "levels": [1, 3, 4],
            "shown": 3,
            "steps": 3_520,
            "validate_every": 352,
            "scaling_steps": 60,
            "scaling_rate": 0.03,
            "masks_at": [0.95],
            "others": [],
            "rewind_step": 634,
            "batches": 2,
            "tolerance": 0.02,
            "grid": 11,
            "images": 500,
        },
        "gpu": {
            "dataset": "cifar10",
            "model": "resnet20",
            "seeds": 4,
            "rounds": 4,
            "ratio": 0.55,
            "levels": [1, 3, 4],
            "shown": 3,
            "steps": 3_510,
            "validate_every": 351,
            "scaling_steps": 60,
            "scaling_rate": 0.03,
            "masks_at": [0.95],
            "others": ["resnet14"],
            "precision": "bf16",
            "rewind_step": 643,
            "batches": 2,
            "tolerance": 0.02,
            "grid": 11,
        },
        "paper": {},
    },
    "rti_repulsion": {
        "smoke": {
            "dataset": "digits",
            "rounds": 4,
            "ratio": 0.5,
            "epochs": 1,
            "arms": ["adam:0.05:50", "adam:0.005:50", "sgd:0.1:50"],
            "points": 3,
            "imagenet_model": "resnet8",
            "imagenet_batches": [8],
            "imagenet_length": 0.03,
        }
        | _IMAGENET["smoke"],
        "quick": {
            "dataset": "digits",
            "rounds": 7,
            "ratio": 0.3,
            "epochs": 5,
            "arms": ["adam:0.05:60", "adam:0.005:60", "sgd:0.1:60"],
            "decay_tested": 1e-3,
            "points": 12,
        },
        "night": {"seeds": 5, "epochs": 3, "rounds": 21},  # to less than 1 % of the weights
        "gpu": {
            "precision": "tf32",
            "dataset": "cifar10",
            "model": "resnet20",
            "rounds": 10,
            "epochs": 10,
            "arms": ["sgd:0.1:128", "sgd:0.1:512", "sgd:0.1:2048"],
            "schedule": "step",
            "drops": [7, 8],
            "weight_decay": 1e-5,
            "decay_tested": 1e-5,
            "augment": True,
        },
        "paper": {},
        "imagenet": _IMAGENET["imagenet"],
    },
    "lcs_geometry": {
        "smoke": {
            "scales": "ones",
            "standardise": False,
            "dataset": "digits",
            "model": "resnet8",  # which has batch norm
            "seeds": 3,
            "dense_seeds": 4,
            "rounds": 3,
            "ratio": 0.5,
            "rewind_steps": [0, 2],
            "stability_steps": [0, 3],
            "steps": 8,
            "batch_size": 16,
            "milestones": [4, 6],
            "augment": False,
            "points": 3,
            "grid": 5,
            "pictured": 50,
            "images": 50,
            "probed": [1, 2],
            "pushes": [0, 1],
            "shares": [0.3, 0.7],
            "lanczos_images": 20,
            "lanczos_steps": 10,
            "lanczos_runs": 1,
        },
        "quick": {
            "scales": "ones",
            "standardise": False,
            "dataset": "digits",
            "model": "lenet_300_100",
            "seeds": 3,
            "dense_seeds": 12,
            "rounds": 9,
            "ratio": 0.4,
            "rewind_steps": [0, 12],
            "stability_steps": [0, 12],
            "steps": 200,
            "batch_size": 32,
            "lr": 0.05,
            "milestones": [100, 150],
            "augment": False,
            "tune_lr": 5e-4,
            "points": 5,
            "grid": 17,
            "pictured": 360,
            "images": 1437,
            "probed": [2, 8],
            "shares": [0.2, 0.5, 0.8],
            "lanczos_images": 100,
            "lanczos_steps": 60,
            "lanczos_runs": 2,
            "exact": 5_000,
        },
        "night": {
            "scales": "ones",
            "standardise": False,
            "dataset": "mnist",
            "model": "resnet8",
            "seeds": 6,
            "rounds": 16,
            "rewind_steps": [0, 25, 100],
            "stability_steps": [0, 10, 30, 100, 300],
            "steps": 1_000,
            "batch_size": 32,
            "lr": 0.4,
            "milestones": [500, 750],
            "augment": False,
            "tune_lr": 4e-3,
            "points": 5,
            "grid": 17,
            "pictured": 1_000,
            "images": 2_000,
            "probed": [3, 8, 13],
            "shares": [0.2, 0.4, 0.6, 0.8],
            "lanczos_images": 500,
            "lanczos_steps": 256,
            "lanczos_runs": 2,
        },
        "gpu": {
            "precision": "tf32",
            "seeds": 6,
            "rewind_steps": [0, 30, 250],
            "stability_steps": [0, 30, 100, 250, 1_000],
            "rounds": 10,
            "steps": 4_000,
            "milestones": [2_000, 3_000],
            "points": 7,
            "grid": 25,
            "images": 10_000,
            "probed": [2, 6],
            "shares": [0.2, 0.4, 0.6, 0.8],
            "lanczos_images": 2_000,
            "lanczos_steps": 128,
            "lanczos_runs": 2,
        },
        "paper": {},
    },
}


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
    return kind(**{**_VALUES[chapter].get(preset, {}), **(overrides or {})})


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
