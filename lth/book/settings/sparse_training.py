"""Training LeNet5 sparse, which chapters 1 and 2 share."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from lth.book.settings.base import Facts, Presets, Settings, pruning_within

SMALLEST_LAYER = 150  # weights of LeNet5's first layer on images of one channel

# a quarter of the steps of [E] and half its batches, which is an eighth of the work; what comes when is in proportion
SHORT = {"steps": 3_000, "batch_size": 64, "prune_start": 750, "prune_end": 1_750, "prune_every": 25}

# what chapters 1 and 2 share, so that they train the same networks
SPARSE_TRAINING: Presets = {
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
    "night": SHORT | {"dst_every": 125, "probe_every": 50},
}


class SparseTraining(Settings):
    """What the chapters on sparse training, 1 and 2, have in common: LeNet5, its pruning, its mask updates.

    The defaults are the papers' settings [E, Table 4], with more networks than its five: of two in three that learn and
    all that learn, five of each cannot be told apart. The two chapters share the networks that they train alike.
    """

    dataset: str = Field("mnist", description="digits, mnist, fashion_mnist, or a folder or archive of images")
    seeds: int = Field(16, ge=3, le=100, description="networks per method, each with the mask of a pruned network")
    first_seed: int = Field(0, ge=0, lt=1_000_000, description="seed of the first network; the others follow")
    sparsity: float = Field(0.95, gt=0, lt=1, description="fraction of each layer's weights that is pruned")
    steps: int = Field(11_719, gt=0, description="optimiser steps of every training run")
    batch_size: int = Field(128, gt=0, description="training images per step")
    lr: float = Field(0.05, gt=0, description="learning rate at the start of the cosine schedule")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD")
    weight_decay: float = Field(5e-4, ge=0, description="penalty weight_decay·‖w‖² on kernels, TensorFlow's convention")
    prune_start: int = Field(3_000, ge=0, description="step at which gradual pruning begins")
    prune_end: int = Field(7_000, gt=0, description="step at which the final sparsity is reached")
    prune_every: int = Field(100, gt=0, description="steps between two prunings")
    dst_drop_fraction: float = Field(0.3, gt=0, lt=1, description="share of weights that the first mask update drops")
    dst_every: int = Field(500, ge=2, description="steps between two mask updates (100 in the authors' code)")
    probe_every: int = Field(200, gt=0, description="steps between two measurements of the gradient flow")
    block: int = Field(1_000, gt=0, description="training examples that gradient flow and RigL's gradients are of")

    @model_validator(mode="after")
    def _trainable(self) -> Self:
        pruning_within(self.steps, self.prune_start, self.prune_end)
        for name in ("dst_every", "probe_every"):
            if (every := getattr(self, name)) >= self.steps:
                raise ValueError(f"{name} ({every}) must be shorter than the run of {self.steps} steps")
        for name in {"sparsity", "high_sparsity"} & set(type(self).model_fields):
            if round(SMALLEST_LAYER * (1 - getattr(self, name))) < 1:
                raise ValueError(
                    f"{name} ({getattr(self, name)}) empties the first layer of LeNet5, which has {SMALLEST_LAYER} "
                    f"weights: below {1 - 0.5 / SMALLEST_LAYER:.4f} one is left"
                )
        return self

    @property
    def models(self) -> list[str]:
        return ["lenet5"]

    def limits(self, facts: Facts) -> dict[str, tuple[int, int]]:
        return super().limits(facts) | {"block": (self.block, facts.train)}
