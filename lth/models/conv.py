"""Networks of 3×3 convolutions and max-pools, without shortcuts: Conv-4 and VGG-16."""

from __future__ import annotations

from torch import Tensor, nn

from lth.errors import UsageError
from lth.models.activation import ACTIVATIONS, pooled


class Conv4(nn.Module):
    """Conv-4 of [Frankle and Carbin 2019], used by [M]: 2,425,930 parameters on 3×32×32 inputs with 10 classes.

    64 – 64 – pool – 128 – 128 – pool – 256 – 256 – classes: four 3×3 convolutions that keep the image's size,
    then three linear layers. No batch norm. Raises UsageError for images smaller than 4×4.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, activation: str = "relu") -> None:
        super().__init__()
        channels, height, width = shape
        if min(height, width) < 4:
            raise UsageError(f"Conv-4 needs images of at least 4×4 pixels, not {height}×{width}")
        self.activation = ACTIVATIONS[activation]
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1)
        self.conv2 = nn.Conv2d(64, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 128, 3, padding=1)
        self.conv4 = nn.Conv2d(128, 128, 3, padding=1)
        self.fc1 = nn.Linear(128 * (height // 2 // 2) * (width // 2 // 2), 256)
        self.fc2 = nn.Linear(256, 256)
        self.fc3 = nn.Linear(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → logits (B, classes)."""
        x = pooled(self.activation, self.conv2(self.activation(self.conv1(x))))
        x = pooled(self.activation, self.conv4(self.activation(self.conv3(x))))
        x = self.activation(self.fc1(x.flatten(1)))
        x = self.activation(self.fc2(x))
        return self.fc3(x)


class VGG16(nn.Module):
    """VGG-16 for small images, as lottery-ticket work uses it: 14,719,818 parameters on 3×32×32, 10 classes.

    Thirteen 3×3 convolutions in five stages, a 2×2 max-pool after each of the first four, the mean over what
    is left of the image (2×2 of 32×32), and one linear layer. With `norm` (14,728,266 parameters) each
    convolution is followed by batch norm and keeps its bias. Convolutions are named conv1_1 … conv5_3. `widths` is
    the number of channels of the first stage; the others have 2, 4, 8 and 8 times as many. Raises UsageError for
    images smaller than 16×16, of which the pools would leave nothing.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        activation: str = "relu",
        norm: bool = False,
        affine: bool = True,
        widths: tuple[int, ...] = (64,),
    ) -> None:
        super().__init__()
        channels, height, width = shape
        if min(height, width) < 16:
            raise UsageError(f"VGG-16 needs images of at least 16×16 pixels, not {height}×{width}")
        self.activation = ACTIVATIONS[activation]
        self.stages: list[list[str]] = []
        for stage, (times, convolutions) in enumerate([(1, 2), (2, 2), (4, 3), (8, 3), (8, 3)], 1):
            maps = times * widths[0]
            self.stages.append([f"{stage}_{i}" for i in range(1, convolutions + 1)])
            for name in self.stages[-1]:
                self.add_module(f"conv{name}", nn.Conv2d(channels, maps, 3, padding=1))
                self.add_module(f"bn{name}", nn.BatchNorm2d(maps, affine=affine) if norm else nn.Identity())
                channels = maps
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → logits (B, classes)."""
        for stage in self.stages:
            for name in stage:
                x = self.get_submodule(f"bn{name}")(self.get_submodule(f"conv{name}")(x))
                if name == stage[-1] and stage is not self.stages[-1]:
                    x = pooled(self.activation, x)
                else:
                    x = self.activation(x)
        return self.fc(x.mean((2, 3)))
