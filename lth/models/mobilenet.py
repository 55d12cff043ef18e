"""MobileNet v1 [Howard et al. 2017]."""

from __future__ import annotations

from torch import Tensor, nn

from lth.models.activation import ACTIVATIONS

STAGES = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]


class DepthwiseSeparable(nn.Module):
    """A 3×3 convolution of each channel by itself, then a 1×1 convolution across channels."""

    def __init__(self, channels: int, maps: int, stride: int, activation: str, affine: bool) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.conv1 = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels, affine=affine)
        self.conv2 = nn.Conv2d(channels, maps, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(maps, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) → (B, maps, ⌈H/stride⌉, ⌈W/stride⌉)."""
        x = self.activation(self.bn1(self.conv1(x)))
        return self.activation(self.bn2(self.conv2(x)))


class MobileNet(nn.Module):
    """MobileNet v1 for small images, as [J] uses it: 3,217,226 parameters on 3×32×32 inputs with 10 classes.

    A 3×3 convolution of stride 1 (2 in the original, for larger images), thirteen depthwise separable blocks,
    `STAGES`, whose strides make 32×32 into 2×2, the mean over the image, one linear layer.
    """

    def __init__(
        self, shape: tuple[int, int, int], classes: int, activation: str = "relu", affine: bool = True
    ) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        channels = 32
        self.conv1 = nn.Conv2d(shape[0], channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels, affine=affine)
        blocks = []
        for maps, stride in STAGES:
            blocks.append(DepthwiseSeparable(channels, maps, stride, activation, affine))
            channels = maps
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → logits (B, classes)."""
        x = self.activation(self.bn1(self.conv1(x)))
        return self.fc(self.blocks(x).mean((2, 3)))
