"""Chapter 1: its parameters, and what the presets set them to."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from lth.book.settings.base import Presets, words
from lth.book.settings.imagenet import IMAGENET, ImageNet, Large
from lth.book.settings.sparse_training import SPARSE_TRAINING, SparseTraining


class GradientFlow(SparseTraining, ImageNet):
    """Chapter 1: initial weights of sparse networks, and the gradient flow in training."""

    high_sparsity: float = Field(0.98, gt=0, lt=1, description="sparsity of the second table, and of the MLP 300-100")
    mlp_seeds: int = Field(10, ge=3, le=100, description="networks per method of the MLP 300-100")
    mlp_lr: float = Field(0.2, gt=0, description="learning rate of the MLP 300-100 at the start, as the text has it")
    mlp_weight_decay: float = Field(1e-4, ge=0, description="and its weight decay; `lr` and `weight_decay` beside them")
    draws: int = Field(10_000, ge=100, description="random draws in the checks of the derivation")
    inputs: int = Field(200, ge=10, description="random images for the signal propagation")
    imagenet_models: Annotated[list[Large], BeforeValidator(words)] = Field(
        ["vgg16", "resnet50_imagenet"], min_length=2, max_length=2, description="networks of the section on ImageNet"
    )
    imagenet_batches: Annotated[list[int], BeforeValidator(words)] = Field(
        [1024, 4096], min_length=2, max_length=2, description="and their batch sizes"
    )

    @property
    def large(self) -> dict[str, int]:
        return dict(zip(self.imagenet_models, self.imagenet_batches, strict=True))


VALUES: Presets = {
    "smoke": SPARSE_TRAINING["smoke"]
    | {
        "mlp_seeds": 3,
        "draws": 300,
        "inputs": 20,
        "imagenet_models": ["resnet8", "resnet8"],
        "imagenet_batches": [8, 8],
        "imagenet_length": 1e-4,
    }
    | IMAGENET["smoke"],
    "quick": SPARSE_TRAINING["quick"]
    | {
        "high_sparsity": 0.95,
        "mlp_seeds": 3,
        "mlp_lr": 0.1,
        "draws": 2000,
        "inputs": 100,
    },
    "night": SPARSE_TRAINING["night"],
    "gpu": {"precision": "tf32"},
    "paper": {},
    "imagenet": IMAGENET["imagenet"],
}
