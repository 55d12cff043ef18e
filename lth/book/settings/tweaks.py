"""Chapter 4: its parameters, and what the presets set them to."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from lth.book.settings.base import Facts, Presets, Settings, words

Network = Literal[
    "resnet8",
    "resnet14",
    "resnet20",
    "resnet32",
    "resnet32x2",
    "resnet18",
    "resnet34",
    "resnet50",
    "vgg16_bn",
    "mobilenet",
]


class Tweaks(Settings):
    """Chapter 4: what to do with a ticket once it is drawn.

    The defaults are ResNet-18 on CIFAR-100 [J, Sec. 4.1]; what the paper leaves open is the authors' code's (`init`,
    `standardise`), or ours (`kappa`, `temperature`).
    """

    dataset: str = Field(
        "cifar100", description="digits, mnist, fashion_mnist, cifar10, cifar100, or a folder or archive of images"
    )
    model: Network = Field("resnet18", description="architecture")
    init: Literal["torch_default", "kaiming_normal"] = Field("torch_default", description="initial weights")
    standardise: bool = Field(True, description="images with mean 0 and variance 1 in each channel")
    seeds: int = Field(10, ge=2, le=100, description="networks per method")
    first_seed: int = Field(0, ge=0, description="seed of the first network; the others follow")
    rounds: int = Field(16, ge=1, description="rounds of iterative magnitude pruning")
    ratio: float = Field(0.2, gt=0, lt=1, description="share of the weights left that a round prunes")
    levels: Annotated[list[int], BeforeValidator(words)] = Field(
        list(range(1, 17)), min_length=2, description="rounds whose tickets are spent in all ways"
    )
    shown: int = Field(11, ge=1, description="the one of them whose landscape is looked at")
    steps: int = Field(63_180, gt=0, description="optimiser steps of every training run: 180 epochs")
    validate_every: int = Field(351, gt=0, description="steps between two looks at the validation images: one epoch")
    batch_size: int = Field(128, gt=0, description="training images per step")
    lr: float = Field(
        0.1, gt=0, description="learning rate at the start; a tenth from one half, a hundredth from 3/4 on"
    )
    weight_decay: float = Field(2e-4, ge=0, description="weight decay, in PyTorch's convention")
    augment: bool = Field(True, description="crop and flip the training images at random")
    others: Annotated[list[Network], BeforeValidator(words)] = Field(
        ["resnet34", "resnet50", "vgg16_bn", "mobilenet"],
        description="other architectures, in which the plain ticket is compared with all tweaks together",
    )
    skips: Literal["none", "plain", "conv"] = Field(
        "conv", description="extra skips: through 1×1 convolutions or plain"
    )
    smoothing: float = Field(0.1, gt=0, lt=1, description="α of label smoothing")
    kappa: float = Field(0.9, gt=0, le=1, description="κ: weight of distillation in the loss")
    temperature: float = Field(4.0, gt=0, description="τ of distillation")
    scaling_steps: int = Field(180, gt=0, description="steps in which GradInit learns the scales")
    scaling_rate: float = Field(0.01, gt=0, description="rate at which it changes them")
    scaling_variant: Literal["through", "held"] = Field(
        "through", description="of GradInit: the gradient of the trial step changes with the scales, or is held fixed"
    )
    scales_first: bool = Field(True, description="scales are learned on the ticket, before skips are added to it")
    masks_at: Annotated[list[float], BeforeValidator(words)] = Field(
        [0.9, 0.95, 0.98], min_length=1, description="sparsities at which masks found in other ways are compared"
    )
    rewind_step: int = Field(11_583, gt=0, description="step whose weights rewound tickets start from: epoch 33")
    batches: int = Field(10, gt=0, description="batches on which the Hessian's top eigenvalue is found")
    tolerance: float = Field(1e-3, gt=0, lt=1, description="relative error of an eigenvalue at which the search ends")
    grid: int = Field(21, ge=3, description="points along each side of a picture of the landscape; odd")
    images: int = Field(1_000, ge=10, description="test images whose loss it shows, at most all")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.steps < 3:
            raise ValueError(f"steps={self.steps}: the learning rate drops at one half and at 3/4 of them: at least 3")
        if self.levels != sorted(set(self.levels)) or not 1 <= self.levels[0] <= self.levels[-1] <= self.rounds:
            raise ValueError(f"levels must increase and lie from 1 to {self.rounds}, not {self.levels}")
        if self.shown not in self.levels:
            raise ValueError(f"shown ({self.shown}) must be one of the levels {self.levels}")
        for name in ("rewind_step", "validate_every"):
            if getattr(self, name) > self.steps - (name == "rewind_step"):
                raise ValueError(f"{name} ({getattr(self, name)}) lies beyond the run of {self.steps} steps")
        if not all(0 < share < 1 for share in self.masks_at):
            raise ValueError(f"masks_at are sparsities between 0 and 1, not {self.masks_at}")
        if self.grid % 2 == 0:
            raise ValueError(f"grid must be odd, so that the network itself is in the picture, not {self.grid}")
        if self.skips != "none" and not self.model.startswith("resnet"):
            raise ValueError(f"{self.model} has no place for extra skips: set skips=none")
        return self

    @property
    def models(self) -> list[str]:
        return [self.model, *self.others]

    def limits(self, facts: Facts) -> dict[str, tuple[int, int]]:
        # a tenth is put aside for validation; a step of GradInit draws a batch and half another
        left = facts.train - round(facts.train / 10)
        return {"batch_size": (self.batch_size, 2 * left // 3)}


VALUES: Presets = {
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
        "steps": 50,
        "validate_every": 25,
        "batch_size": 32,
        "augment": False,
        "scaling_steps": 10,
        "scaling_rate": 0.05,
        "masks_at": [0.9],
        "others": [],
        "rewind_step": 10,
        "batches": 1,
        "tolerance": 0.02,
        "grid": 7,
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
        "batch_size": 64,
        "validate_every": 704,
        "scaling_steps": 60,
        "scaling_rate": 0.03,
        "masks_at": [0.95],
        "others": [],
        "rewind_step": 634,
        "batches": 8,
        "tolerance": 0.02,
        "grid": 17,
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
        "grid": 17,
    },
    "paper": {},
}
