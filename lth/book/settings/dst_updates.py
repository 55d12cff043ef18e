"""Chapter 2: its parameters, and what the presets set them to."""

from __future__ import annotations

import math
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from lth.book.settings.base import Facts, Presets, words
from lth.book.settings.sparse_training import SPARSE_TRAINING, SparseTraining
from lth.errors import UsageError

LENET5_BIASES = 6 + 16 + 120 + 84  # and one for each class
EXACT = 5_000  # active parameters of an exact Hessian, at most (`lth.analysis.hessian`)


class DSTUpdates(SparseTraining):
    """Chapter 2: what mask updates do to the gradient and to the Hessian."""

    dst_often: int = Field(100, gt=0, description="the same in a second set of runs: the interval of the authors' code")
    hessian_updates: Annotated[list[int], BeforeValidator(words)] = Field(
        [1, 2, 4, 8], min_length=2, description="numbers of the updates around which Hessians are measured"
    )
    hessian_seeds: int = Field(10, ge=2, description="masks whose networks have their Hessians measured, at most all")
    hessian_images: int = Field(10_000, ge=10, description="training images that give an estimated Hessian")
    lanczos_steps: int = Field(25, ge=10, description="Hessian-vector products per estimate")
    many_images: int = Field(60_000, ge=10, description="training images that give an exact one of a few networks")
    few_images: int = Field(1_000, ge=10, description="training images of the example that shows they are too few")

    @model_validator(mode="after")
    def _kept(self) -> Self:
        if self.dst_often >= self.dst_every:
            raise ValueError(f"dst_often ({self.dst_often}) must be shorter than dst_every ({self.dst_every})")
        numbers = self.hessian_updates
        kept = {k * 2**n for n in range(30) for k in (1, 3)}
        if numbers != sorted(set(numbers)) or not set(numbers) <= kept or numbers[1] * self.dst_every >= self.steps:
            raise ValueError(
                "hessian_updates must increase, be among those around which networks are kept, 1, 2, 3, 4, 6, 8, 12, "
                f"…, and the second must come before the end of training: not {numbers}"
            )
        return self

    def check(self, facts: Facts) -> None:
        super().check(facts)
        layers = lenet5_layers(facts.shape, facts.classes)
        active = sum(max(1, round(n * (1 - self.sparsity))) for n in layers) + LENET5_BIASES + facts.classes
        if active > EXACT:
            least = 1 - (EXACT - LENET5_BIASES - facts.classes - len(layers)) / sum(layers)
            raise UsageError(
                f"sparsity={self.sparsity} leaves {active:,} parameters of LeNet5 on {facts.name}, whose exact Hessian "
                f"has at most {EXACT:,}: at least {math.ceil(1000 * least) / 1000}"
            )
        if self.lanczos_steps > active:
            raise UsageError(
                f"lanczos_steps={self.lanczos_steps} are more than the {active:,} parameters that sparsity="
                f"{self.sparsity} leaves: at most {active}"
            )


def lenet5_layers(shape: tuple[int, int, int], classes: int) -> list[int]:
    """How many weights each layer of LeNet5 has."""
    channels, *sides = shape
    height, width = (((side - 4) // 2 - 4) // 2 for side in sides)
    return [150 * channels, 2_400, 16 * height * width * 120, 120 * 84, 84 * classes]


VALUES: Presets = {
    "smoke": SPARSE_TRAINING["smoke"]
    | {
        "dst_often": 2,
        "hessian_updates": [1, 2],
        "hessian_seeds": 2,
        "hessian_images": 20,
        "lanczos_steps": 10,
        "many_images": 30,
        "few_images": 10,
    },
    "quick": SPARSE_TRAINING["quick"]
    | {
        "dst_often": 10,
        "hessian_seeds": 3,
        "hessian_images": 60,
        "lanczos_steps": 16,
        "many_images": 100,
        "few_images": 20,
    },
    "night": SPARSE_TRAINING["night"] | {"dst_often": 25, "hessian_seeds": 5, "many_images": 20_000},
    "gpu": {"precision": "tf32"},
    "paper": {},
}
