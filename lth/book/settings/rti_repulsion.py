"""Chapter 5: its parameters, and what the presets set them to."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from lth.book.settings.base import Facts, Presets, words
from lth.book.settings.imagenet import IMAGENET, ImageNet, Large

ARM = r"^(sgd|adam):\d*\.?\d+(e-?\d+)?:[1-9]\d*$"


class RTIRepulsion(ImageNet):
    """Chapter 5: do tickets find an old solution again, and what if that is forbidden?

    The defaults are LeNet 300-100 on MNIST [M, Table 1], which trains with Adam; the arms with SGD, the optimiser of
    the paper's other networks, are ours.
    """

    dataset: str = Field("mnist", description="digits, mnist, fashion_mnist, cifar10, or a folder or archive of images")
    subset: float = Field(1.0, gt=0, le=1, description="share of the training images that is used")
    model: Literal["lenet_300_100", "conv4", "resnet20"] = Field("lenet_300_100", description="architecture")
    seeds: int = Field(3, ge=3, le=100, description="networks per method and arm")
    first_seed: int = Field(0, ge=0, description="seed of the first network; the others follow")
    rounds: int = Field(25, ge=4, description="rounds of pruning")
    ratio: float = Field(0.2, gt=0, lt=1, description="share of the weights left that a round prunes")
    epochs: int = Field(25, gt=0, description="passes through the training images in every round")
    arms: Annotated[list[Annotated[str, Field(pattern=ARM)]], BeforeValidator(words)] = Field(
        ["adam:0.02:60", "adam:0.0012:60", "sgd:0.1:60"],
        min_length=2,
        description="ways to train, as optimiser:learning rate:batch size, from the least stable to the most stable",
    )
    schedule: Literal["constant", "cosine", "step"] = Field(
        "constant", description="of the learning rate; step: to a tenth at each of `drops`"
    )
    drops: Annotated[list[int], BeforeValidator(words)] = Field(
        [], description="epochs after which the schedule `step` drops"
    )
    warmup: int = Field(0, ge=0, description="epochs over which the learning rate rises at the start")
    weight_decay: float = Field(0.0, ge=0, description="weight decay, in PyTorch's convention")
    decay_tested: float = Field(1e-4, gt=0, description="weight decay of the networks compared with those without")
    augment: bool = Field(False, description="crop and flip the training images at random")
    repel: float = Field(2.0, gt=0, description="λ_r of repulsion")
    attract: float = Field(-1.0, lt=0, description="λ_r of attraction")
    points: int = Field(20, ge=3, description="points on a line between two networks")
    imagenet_model: Large = Field("resnet50_imagenet", description="network of the section on ImageNet")
    imagenet_batches: Annotated[list[int], BeforeValidator(words)] = Field(
        [1024], min_length=1, max_length=1, description="and its batch size"
    )

    @property
    def large(self) -> dict[str, int]:
        return {self.imagenet_model: self.imagenet_batches[0]}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.arms)) < len(self.arms):
            raise ValueError(f"arms must differ, not {self.arms}")
        if any(float(arm.split(":")[1]) == 0 for arm in self.arms):
            raise ValueError(f"an arm's learning rate must be above 0: {self.arms}")
        if self.drops != sorted(set(self.drops)) or not all(0 < epoch < self.epochs for epoch in self.drops):
            raise ValueError(f"drops must increase and lie within the {self.epochs} epochs, not {self.drops}")
        if bool(self.drops) != (self.schedule == "step"):
            raise ValueError("drops belong to schedule=step, which needs them: drops=13,16")
        if self.warmup > self.epochs:
            raise ValueError(f"warmup ({self.warmup} epochs) is longer than the {self.epochs} epochs of a round")
        if not any(0.02 <= (1 - self.ratio) ** level <= 0.3 for level in range(2, self.rounds + 1)):
            raise ValueError(
                f"{self.rounds} rounds at ratio {self.ratio} never leave 2 to 30 % of the weights, at which claims are "
                "judged: change `rounds` or `ratio`"
            )
        return self

    def limits(self, facts: Facts) -> dict[str, tuple[int, int]]:
        used = int(self.subset * facts.train)
        return {"arms": (max(int(arm.split(":")[2]) for arm in self.arms), used)}


VALUES: Presets = {
    "smoke": {
        "dataset": "digits",
        "rounds": 4,
        "ratio": 0.5,
        "epochs": 1,
        "arms": ["adam:0.03:50", "adam:0.005:50", "sgd:0.1:50"],
        "points": 3,
        "imagenet_model": "resnet8",
        "imagenet_batches": [8],
        "imagenet_length": 0.03,
    }
    | IMAGENET["smoke"],
    "quick": {
        "dataset": "digits",
        "rounds": 7,
        "ratio": 0.3,
        "epochs": 5,
        "arms": ["adam:0.03:60", "adam:0.005:60", "sgd:0.1:60"],
        "decay_tested": 1e-3,
        "points": 12,
    },
    "night": {"subset": 0.5, "seeds": 5, "epochs": 3, "rounds": 21},  # to less than 1 % of the weights
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
    "imagenet": IMAGENET["imagenet"],
}
