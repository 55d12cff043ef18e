"""Chapter 3: its parameters, and what the presets set them to."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from lth.book.settings.base import Presets, Settings, pruning_within, whole
from lth.book.settings.sparse_training import SHORT


class LTBasin(Settings):
    """Chapter 3: lottery tickets and the basin of the pruning solution.

    The defaults are the paper's settings: LeNet5's [E, Table 3], or the MLP's where that is the model [E, App. D]. The
    paper has one pruning solution and five networks of each kind.
    """

    dataset: str = Field("mnist", description="digits, mnist, fashion_mnist, or a folder or archive of images")
    model: Literal["lenet5", "lenet_300_100"] = Field("lenet5", description="architecture")
    seeds: int = Field(20, ge=3, le=200, description="pruning solutions")
    first_seed: int = Field(0, ge=0, lt=1_000_000, description="seed of the first of them; the others follow")
    tickets: int = Field(2, ge=2, le=20, description="networks of each kind that are trained on a solution's mask")
    sparsity: float = Field(0.95, gt=0, lt=1, description="fraction of each layer's weights that is pruned")
    steps: int = Field(11_719, gt=0, description="optimiser steps of every training run")
    batch_size: int = Field(128, gt=0, description="training images per step")
    lr: float = Field(0.05, gt=0, description="learning rate at the start of the cosine schedule")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD")
    weight_decay: float = Field(0.0, ge=0, description="penalty weight_decay·‖w‖² on kernels, TensorFlow's convention")
    prune_start: int = Field(3_000, ge=0, description="step at which gradual pruning begins")
    prune_end: int = Field(7_000, gt=0, description="step at which the final sparsity is reached")
    prune_every: int = Field(100, gt=0, description="steps between two prunings")
    rewind_step: int = Field(0, ge=0, description="K: step of the pruning run that tickets are rewound to")
    points: Annotated[Literal[8, 15, 29], BeforeValidator(whole)] = Field(
        29, description="points on each path, α from −0.2 to 1.2"
    )
    images: int = Field(60_000, ge=10, description="training images whose loss and error the paths show")

    @model_validator(mode="before")
    @classmethod
    def _of_the_model(cls, given: dict[str, Any]) -> dict[str, Any]:
        mlp = {"sparsity": 0.98, "lr": 0.2, "weight_decay": 1e-4}
        return mlp | given if given.get("model") == "lenet_300_100" else given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        pruning_within(self.steps, self.prune_start, self.prune_end)
        if self.rewind_step > self.prune_start:
            raise ValueError(
                f"rewind_step ({self.rewind_step}) must not lie after prune_start ({self.prune_start}): "
                "from there on the weights are already pruned"
            )
        if self.tickets > self.seeds:
            raise ValueError(
                f"tickets ({self.tickets}) must not exceed seeds ({self.seeds}): an ensemble of tickets is compared "
                "with one of as many pruning solutions"
            )
        return self


VALUES: Presets = {
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
    "night": SHORT | {"points": 15, "images": 5_000},
    "gpu": {"precision": "tf32"},
    "paper": {},
}
