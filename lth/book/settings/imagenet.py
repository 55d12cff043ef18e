"""The section on networks for ImageNet, which chapters 1 and 5 have."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lth.book.settings.base import Facts, Presets, Settings
from lth.errors import UsageError

Large = Literal["vgg16", "resnet50_imagenet", "resnet8"]

# of the sections on ImageNet, for images of any kind
IMAGENET: Presets = {
    "smoke": {"imagenet_seeds": 2, "imagenet_precision": "fp32"},
    "imagenet": {"imagenet": "imagenet"},
}


class ImageNet(Settings):
    """What chapters 1 and 5 have in common: a section on networks for ImageNet, which is left out without images."""

    imagenet: str = Field(
        "",
        description="images for the section on large networks: what `lth data imagenet --from FOLDER` made, or an "
        "image folder; empty: the section is left out",
    )
    imagenet_seeds: int = Field(3, ge=2, le=100, description="networks per method in that section")
    imagenet_length: float = Field(1, ge=1e-4, le=1, description="share of the papers' steps that they are trained for")
    imagenet_precision: Literal["fp32", "tf32", "bf16"] = Field("bf16", description="of the products in their training")

    @property
    def large(self) -> dict[str, int]:
        """Architecture → batch size of the networks of that section."""
        return {}

    def check_imagenet(self, facts: Facts) -> None:
        """Raises UsageError, in one line, where the images do not fit the section."""
        from lth.models import Model

        for model, batch in self.large.items():
            if batch > facts.train:
                raise UsageError(
                    f"imagenet={self.imagenet}: a batch of {batch} for {model} is more than its {facts.train} training "
                    "images: change `imagenet_batches`"
                )
            try:
                assert Model(model, facts.shape, facts.classes).shapes
            except UsageError as error:
                raise UsageError(f"imagenet={self.imagenet} does not fit the model {model}: {error}") from error
