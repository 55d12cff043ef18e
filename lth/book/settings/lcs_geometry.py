"""Chapter 6: its parameters, and what the presets set them to."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from lth.book.settings.base import Facts, Presets, Settings, words


class LCSGeometry(Settings):
    """Chapter 6: why iterative magnitude pruning works, seen in the landscape.

    The defaults are ResNet-20 on CIFAR-10 [P, App. B]; what the paper leaves open is its code's (`scales`,
    `standardise`) or ours (`pushes`, `stability_steps`, `dense_seeds`).
    """

    dataset: str = Field(
        "cifar10", description="digits, mnist, fashion_mnist, cifar10, cifar100, or a folder or archive of images"
    )
    model: Literal["lenet_300_100", "resnet8", "resnet20", "resnet18"] = Field("resnet20", description="architecture")
    seeds: int = Field(4, ge=3, le=100, description="networks per method")
    dense_seeds: int = Field(20, ge=3, le=100, description="dense networks whose errors make ε, those of `seeds` first")
    first_seed: int = Field(0, ge=0, description="seed of the first network; the others follow")
    rounds: int = Field(12, ge=3, description="rounds of pruning")
    ratio: float = Field(0.2, gt=0, lt=1, description="share of the weights left that a round prunes")
    rewind_steps: Annotated[list[int], BeforeValidator(words)] = Field(
        [0, 250, 2_000], min_length=2, description="steps that ladders go back to; the last should give tickets"
    )
    stability_steps: Annotated[list[int], BeforeValidator(words)] = Field(
        [0, 100, 250, 500, 2_000, 8_000], min_length=2, description="steps from which two copies are trained"
    )
    steps: int = Field(62_400, gt=0, description="optimiser steps of every training run")
    batch_size: int = Field(128, gt=0, description="training images per step")
    lr: float = Field(0.1, gt=0, description="learning rate at the start")
    milestones: Annotated[list[int], BeforeValidator(words)] = Field(
        [31_200, 46_800], description="steps at which it drops"
    )
    gamma: float = Field(0.1, gt=0, lt=1, description="factor of each drop")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay, in PyTorch's convention")
    augment: bool = Field(True, description="crop and flip the training images at random")
    scales: Literal["ones", "uniform"] = Field(
        "uniform", description="what batch norm's scales begin with: 1, or uniform in [0, 1] as in the authors' code"
    )
    standardise: bool = Field(True, description="images with mean 0 and variance 1 in each channel, as there")
    tune_lr: float = Field(1e-3, gt=0, description="constant learning rate of fine-tuning, a hundredth of `lr`")
    points: int = Field(11, ge=3, description="points on a line between two networks")
    grid: int = Field(51, ge=5, description="points along each side of a slice")
    pictured: int = Field(10_000, ge=10, description="test images whose error the slices show, at most all")
    images: int = Field(
        50_000, ge=10, description="training images that losses and batch norm's statistics are of, at most all"
    )
    probed: Annotated[list[int], BeforeValidator(words)] = Field(
        [2, 4, 6, 8], min_length=2, description="levels that are looked at closely"
    )
    pushes: Annotated[list[float], BeforeValidator(words)] = Field(
        [0, 1, 3], min_length=2, description="lengths of random pushes of the start, 1: that of pruning"
    )
    shares: Annotated[list[float], BeforeValidator(words)] = Field(
        [tenth / 10 for tenth in range(1, 10)], min_length=2, description="shares of the weights pruned in one round"
    )
    lanczos_images: int = Field(
        50_000, ge=10, description="training images that a Hessian is estimated on, at most all"
    )
    lanczos_steps: int = Field(512, ge=10, description="Hessian-vector products per run of Lanczos' method")
    lanczos_runs: int = Field(4, ge=1, description="runs of Lanczos' method per estimated spectrum")
    exact: int = Field(0, ge=0, le=5_000, description="active parameters, at most, whose Hessian is computed entirely")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rewind_steps[0] != 0 or 0 in self.milestones:
            raise ValueError(
                f"rewind_steps begin with 0 and milestones do not, unlike {self.rewind_steps} and {self.milestones}"
            )
        tops = {"rewind_steps": self.steps, "stability_steps": self.steps, "milestones": self.steps}
        for name, top in {**tops, "probed": self.rounds}.items():
            numbers = getattr(self, name)
            if numbers != sorted(set(numbers)) or (numbers and not 0 <= numbers[0] <= numbers[-1] < top):
                raise ValueError(f"{name} must increase and lie from 0 to {top - 1}, not {numbers}")
        if not all(0 < share < 1 for share in self.shares):
            raise ValueError(f"shares must lie between 0 and 1, not {self.shares}")
        if self.pushes[:2] != [0, 1] or self.pushes != sorted(set(self.pushes)):
            raise ValueError(f"pushes begin with 0 and 1 and increase, unlike {self.pushes}")
        if self.probed[0] == 0:
            raise ValueError(f"probed levels are sparse ones, from 1 on, unlike {self.probed}")
        if self.dense_seeds < self.seeds:
            raise ValueError(f"dense_seeds ({self.dense_seeds}) are at least the {self.seeds} networks of `seeds`")
        return self

    def limits(self, facts: Facts) -> dict[str, tuple[int, int]]:
        return {"batch_size": (self.batch_size, facts.train // 2)}  # the spread of a loss over batches needs two

    def trainings(self) -> dict[str, int]:
        """How many networks a run of the chapter trains for each purpose, at most."""
        levels, ladders = len(self.probed), len(self.rewind_steps)
        return {
            "dense networks": self.dense_seeds,
            "ladders to the rewind steps": self.seeds * self.rounds * ladders,
            "random pushes": self.seeds * 2 * (levels + 1) * len(self.pushes),
            "copies, for stability": self.seeds * 4 * len(self.stability_steps),
            "several shares at once": self.seeds * levels * 2 * len(self.shares),
            "other masks": self.seeds * 2 * levels,
            "other ways of training again": self.seeds * (2 * self.rounds + 3 * levels),
            "the adaptive ladder": self.seeds * self.rounds,
        }


VALUES: Presets = {
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
}
