"""How a population is trained: the recipe and its learning-rate schedule."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from lth.checked import Checked

# fields that a column of the frame may set replica by replica
PER_REPLICA = ("lr", "weight_decay", "label_smoothing", "distill")


BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam's, the same in PyTorch, TensorFlow and [M]


class Recipe(Checked):
    """Everything about a training run that all replicas share.

    A column of the population's frame named `lr`, `weight_decay`, `label_smoothing` or `distill` overrides the field
    for each replica. Raises UsageError, in one line, for values that do not fit.
    """

    steps: int = Field(gt=0, description="optimiser steps, counted from the first of the schedule")
    first_step: int = Field(
        0,
        ge=0,
        description="where training begins: a network rewound to step K goes on from K in the schedule and in its "
        "order of images, with its momentum at zero",
    )
    batch_size: int = Field(128, gt=0)
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = Field(0.05, gt=0, description="peak learning rate")
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    milestones: tuple[int, ...] = Field((), description="steps at which the step schedule drops")
    gamma: float = Field(0.1, gt=0, description="factor of each drop")
    warmup: int = Field(0, ge=0, description="steps of linear warm-up")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD only")
    weight_decay: float = Field(0.0, ge=0)
    decay: Literal["all", "kernels_l2"] = Field(
        "all",
        description="'all': weight_decay·w is added to every gradient (PyTorch). 'kernels_l2': the penalty "
        "weight_decay·‖w‖² on kernels only, so 2·weight_decay·w there and nothing on biases (TensorFlow, [E])",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="α: labels are y(1 − α) + α/K, in training only")
    distill: float = Field(0.0, ge=0, le=1, description="κ: the loss is (1 − κ)·cross-entropy + κ·distillation")
    temperature: float = Field(1.0, gt=0, description="τ of the distillation")
    augment: bool | Literal["resized"] = Field(
        False,
        description="true: crop at random after padding with 4 black pixels, and flip. resized: scale a random part to "
        "the size that networks see, and flip, as is usual on ImageNet",
    )
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        "fp32",
        description="of the products in forward and backward pass; weights and optimiser state are always fp32. "
        "tf32 makes no difference on a CPU",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.milestones and self.schedule != "step":
            raise ValueError(f"milestones belong to schedule='step', not {self.schedule!r}")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must increase: {self.milestones}")
        if not all(0 < milestone < self.steps for milestone in self.milestones):
            raise ValueError(f"milestones must lie inside the run of {self.steps} steps: {self.milestones}")
        if self.first_step >= self.steps:
            raise ValueError(f"first_step ({self.first_step}) must lie before the end of the run ({self.steps} steps)")
        if self.warmup > self.steps:
            raise ValueError(f"warmup ({self.warmup} steps) is longer than the run ({self.steps} steps)")
        return self

    def lr_factor(self, step: int) -> float:
        """Learning rate of step `step` (0 … steps−1), relative to the peak.

        Cosine: ½(1 + cos(π·step/steps)). Step: gamma^(milestones passed). Warm-up multiplies the first
        `warmup` steps by (step + 1)/warmup.
        """
        factor = 1.0
        if self.schedule == "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        elif self.schedule == "step":
            factor = self.gamma ** sum(milestone <= step for milestone in self.milestones)
        return factor * min(1.0, (step + 1) / self.warmup) if self.warmup else factor

    def factors(self) -> list[tuple[float, float, float, float]]:
        """Of each step: the learning rate relative to the peak, Adam's 1 − β₁ᵗ and 1 − β₂ᵗ for its t-th update, and
        the momentum."""
        updates = [max(1, step + 1 - self.first_step) for step in range(self.steps)]
        return [(self.lr_factor(step), 1 - BETA1**t, 1 - BETA2**t, self.momentum) for step, t in enumerate(updates)]

    def decay_scale(self, ndim: int) -> float:
        """What multiplies weight_decay·w in the gradient of a parameter of one replica with `ndim` axes."""
        if self.decay == "all":
            return 1.0
        return 2.0 if ndim > 1 else 0.0
