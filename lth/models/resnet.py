"""Residual networks [He et al. 2016] for CIFAR and for ImageNet, and the extra skip connections of [J, Fig. 3].

Parameters are named as in torchvision. Extra skips go round each 3×3 convolution of a block, with its batch
norm: what goes in is added to what comes out, before the activation; the block's own shortcut stays.

- "plain" adds the input itself, wherever it has the shape of the output. At the first convolution of a stage
  the image shrinks or channels are added: there is nothing to add, and nothing is.
- "conv" passes it through a 1×1 convolution of the same stride and batch norm. Its weights begin at 1e-4
  (`lth.methods.init`), are dense and never pruned: 1,220,608 in ResNet-18. The skip does not begin small,
  however: in training mode its batch norm takes most of that scale out again.

A bottleneck has one 3×3 convolution, its second, and so one extra skip. The paper does not say what it does
there; its code has extra skips in basic blocks only.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from lth.models.activation import ACTIVATIONS

SKIPS = ("none", "plain", "conv")


def projection(channels: int, maps: int, stride: int, affine: bool) -> list[nn.Module]:
    """A 1×1 convolution and batch norm, which give an input the shape of an output."""
    return [nn.Conv2d(channels, maps, 1, stride, bias=False), nn.BatchNorm2d(maps, affine=affine)]


class ConvSkip(nn.Sequential):
    """An extra skip through a 1×1 convolution and batch norm; `Model.prunable` leaves it out."""


def extra_skip(skips: str, channels: int, maps: int, stride: int, affine: bool) -> nn.Module | None:
    """The extra skip round a 3×3 convolution; None where there is none."""
    if skips == "conv":
        return ConvSkip(*projection(channels, maps, stride, affine))
    if skips == "plain" and (channels, stride) == (maps, 1):
        return nn.Identity()
    return None


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut round both: (B, channels, H, W) → (B, maps, ⌈H/stride⌉, ⌈W/stride⌉)."""

    expansion = 1

    def __init__(self, channels: int, maps: int, stride: int, activation: str, skips: str, affine: bool) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.conv1 = nn.Conv2d(channels, maps, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(maps, affine=affine)
        self.conv2 = nn.Conv2d(maps, maps, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(maps, affine=affine)
        self.downsample = nn.Sequential()
        if (channels, stride) != (maps, 1):
            self.downsample = nn.Sequential(*projection(channels, maps, stride, affine))
        self.skip1 = extra_skip(skips, channels, maps, stride, affine)
        self.skip2 = extra_skip(skips, maps, maps, 1, affine)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x))
        if self.skip1 is not None:
            out = out + self.skip1(x)
        middle = self.activation(out)
        out = self.bn2(self.conv2(middle)) + self.downsample(x)
        if self.skip2 is not None:
            out = out + self.skip2(middle)
        return self.activation(out)


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolution and a shortcut round all three; the stride is that of the 3×3 one.

    (B, channels, H, W) → (B, 4·maps, ⌈H/stride⌉, ⌈W/stride⌉).
    """

    expansion = 4

    def __init__(self, channels: int, maps: int, stride: int, activation: str, skips: str, affine: bool) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.conv1 = nn.Conv2d(channels, maps, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(maps, affine=affine)
        self.conv2 = nn.Conv2d(maps, maps, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(maps, affine=affine)
        self.conv3 = nn.Conv2d(maps, 4 * maps, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * maps, affine=affine)
        self.downsample = nn.Sequential()
        if (channels, stride) != (4 * maps, 1):
            self.downsample = nn.Sequential(*projection(channels, 4 * maps, stride, affine))
        self.skip2 = extra_skip(skips, maps, maps, stride, affine)

    def forward(self, x: Tensor) -> Tensor:
        first = self.activation(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(first))
        if self.skip2 is not None:
            out = out + self.skip2(first)
        out = self.bn3(self.conv3(self.activation(out))) + self.downsample(x)
        return self.activation(out)


class ResNet(nn.Module):
    """A stem, stages of blocks, the mean over the image, one linear layer; convolutions have no bias.

    `depths` are the numbers of blocks per stage. Stages have `maps`, 2·`maps`, 4·`maps`, … channels (times
    four with bottlenecks), and from the second on each halves the image. The stem for CIFAR is one 3×3
    convolution; for ImageNet a 7×7 one of stride 2 and a 3×3 max-pool of stride 2. Shortcuts between stages
    are 1×1 convolutions, also in ResNet-20 and 32, as in OpenLTH; the original there pads with empty channels.
    `widths`, where it is given, is another number of `maps`.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        activation: str = "relu",
        skips: str = "none",
        affine: bool = True,
        widths: tuple[int, ...] = (),
        *,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        maps: int = 64,
        imagenet: bool = False,
    ) -> None:
        super().__init__()
        maps = widths[0] if widths else maps
        self.activation = ACTIVATIONS[activation]
        self.imagenet = imagenet
        kernel, stride, padding = (7, 2, 3) if imagenet else (3, 1, 1)
        self.conv1 = nn.Conv2d(shape[0], maps, kernel, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(maps, affine=affine)
        self.stages = [f"layer{i + 1}" for i in range(len(depths))]
        channels = maps
        for i, (stage, depth) in enumerate(zip(self.stages, depths, strict=True)):
            blocks = []
            for b in range(depth):
                stride = 2 if i > 0 and b == 0 else 1
                blocks.append(block(channels, maps * 2**i, stride, activation, skips, affine))
                channels = block.expansion * maps * 2**i
            self.add_module(stage, nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → logits (B, classes)."""
        x = self.activation(self.bn1(self.conv1(x)))
        if self.imagenet:
            x = F.max_pool2d(x, 3, 2, 1)
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        return self.fc(x.mean((2, 3)))
