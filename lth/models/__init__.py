"""Architectures as plain `torch.nn` modules, and `Model`, the recipe for building one.

A module draws no random numbers of its own that matter: initial weights come from `lth.methods.init`. Its
forward does not care how many channels a layer has, so that one module can hold many replicas side by side;
its layers are of the types Conv2d, Linear and BatchNorm2d.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import nn

from lth.errors import UsageError
from lth.models.activation import ACTIVATIONS
from lth.models.conv import VGG16, Conv4
from lth.models.lenet import LeNet5, LeNet300100
from lth.models.mobilenet import MobileNet
from lth.models.resnet import SKIPS, BasicBlock, Bottleneck, ConvSkip, ResNet
from lth.models.stacked import STACKED, stack


class Architecture(NamedTuple):
    """How to build one, as build(shape, classes, **options), and which options of `Model` it has a place for."""

    build: Callable[..., nn.Module]
    skips: tuple[str, ...] = ("none",)
    affine: tuple[bool, ...] = (True,)
    widths: int = 0  # how many numbers of channels and neurons can be chosen
    activations: tuple[str, ...] = tuple(ACTIVATIONS)


def _resnet(block: type[nn.Module], *depths: int, **stem: Any) -> Architecture:
    return Architecture(partial(ResNet, block=block, depths=depths, **stem), SKIPS, (True, False), widths=1)


ARCHITECTURES: dict[str, Architecture] = {
    "lenet5": Architecture(LeNet5, widths=4),
    "lenet_300_100": Architecture(LeNet300100, widths=2),
    "conv4": Architecture(Conv4),
    "vgg16": Architecture(VGG16, widths=1),
    "vgg16_bn": Architecture(partial(VGG16, norm=True), affine=(True, False), widths=1),
    "mobilenet": Architecture(MobileNet, affine=(True, False)),
    "resnet8": _resnet(BasicBlock, 1, 1, 1, maps=16, imagenet=True),
    "resnet14": _resnet(BasicBlock, 2, 2, 2, maps=16, imagenet=True),
    "resnet20": _resnet(BasicBlock, 3, 3, 3, maps=16),
    "resnet32": _resnet(BasicBlock, 5, 5, 5, maps=16),
    "resnet32x2": _resnet(BasicBlock, 5, 5, 5, maps=32),  # of the literature on pruning at initialisation
    "resnet18": _resnet(BasicBlock, 2, 2, 2, 2),
    "resnet34": _resnet(BasicBlock, 3, 4, 6, 3),
    "resnet50": _resnet(Bottleneck, 3, 4, 6, 3),
    "resnet18_imagenet": _resnet(BasicBlock, 2, 2, 2, 2, imagenet=True),
    "resnet34_imagenet": _resnet(BasicBlock, 3, 4, 6, 3, imagenet=True),
    "resnet50_imagenet": _resnet(Bottleneck, 3, 4, 6, 3, imagenet=True),
}
OWN = frozenset(ARCHITECTURES)  # lth's


def register(name: str, build: Callable[[tuple[int, int, int], int], nn.Module]) -> None:
    """Makes an architecture of your own a model: `Model(name, shape, classes)` is then `build(shape, classes)`.

    build: a function, or the class of the module itself. What the layers are and may do is told above; what the
           network does enters the names of its stored runs. The same name again takes the place of what it meant.
    Raises UsageError where lth has an architecture of that name.
    """
    if name in OWN:
        raise UsageError(f"lth has a model {name!r} already: give yours another name")
    ARCHITECTURES[name] = Architecture(build, activations=("relu",))
    for remembered in (_template, _outputs, _shapes):
        remembered.cache_clear()


class Shapes(NamedTuple):
    """Shapes of one network's tensors by name, in the module's order, and the names of the prunable ones."""

    params: Mapping[str, torch.Size]
    buffers: Mapping[str, torch.Size]
    prunable: tuple[str, ...]


@dataclass(frozen=True)
class Model:
    """What all replicas of a population share: the architecture with its options, and what goes in and out.

    shape:       of an image, (C, H, W).
    activation:  relu, swish or mish, everywhere in the network.
    skips:       extra skip connections of a ResNet: none, plain or conv (`lth.models.resnet`).
    affine:      whether batch norm has a learned scale and shift.
    widths:      numbers of channels and neurons of the hidden layers of a LeNet; the number of channels of the first
                 stage of a VGG or ResNet, from which the others follow. Empty for the usual ones.

    Raises UsageError for what the architecture has no place for.
    """

    name: str
    shape: tuple[int, int, int] = (1, 28, 28)
    classes: int = 10
    activation: str = "relu"
    skips: str = "none"
    affine: bool = True
    widths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "widths", tuple(self.widths))
        if self.name not in ARCHITECTURES:
            raise UsageError(
                f"unknown model {self.name!r}: known are {', '.join(ARCHITECTURES)}, and what lth.models.register adds"
            )
        kind = ARCHITECTURES[self.name]
        for option, known in (("activation", kind.activations), ("skips", kind.skips), ("affine", kind.affine)):
            if (value := getattr(self, option)) not in known:
                raise UsageError(f"{self.name} supports {option} {' or '.join(map(str, known))}, not {value}")
        if self.widths and (len(self.widths) != kind.widths or min(self.widths) < 1):
            number = "no choice of hidden widths"
            if kind.widths:
                number = f"{kind.widths} hidden width{'s' * (kind.widths > 1)} of at least 1"
            raise UsageError(f"{self.name} supports {number}, not {self.widths}")

    @property
    def options(self) -> dict[str, Any]:
        """The options that differ from their defaults; with name, shape and classes they are the whole model."""
        named = {field.name: field.default for field in fields(self)[3:]}
        return {name: value for name, default in named.items() if (value := getattr(self, name)) != default}

    @property
    def registered(self) -> Callable[..., nn.Module] | None:
        """What builds it, where that is not lth's own (`register`)."""
        return None if self.name in OWN else ARCHITECTURES[self.name].build

    def build(self, device: str | torch.device = "meta") -> nn.Module:
        """A fresh module; on the default device "meta" it has shapes and no values.

        Its batch norms do not count batches: their buffers are the running mean and variance. Raises
        UsageError, naming the smallest size, where the images are too small for it.
        """
        if str(device) == "meta":
            return _twin(_template(self))
        return _built(self, device)

    @property
    def shapes(self) -> Shapes:
        """Names and shapes of the parameters and buffers; found once per model, so that asking is free."""
        return _shapes(self)

    @property
    def outputs(self) -> int:
        """How many numbers the layers with parameters put out for one image: what takes memory in training."""
        return _outputs(self)

    @property
    def prunable(self) -> list[str]:
        """Names of the parameters that pruning may touch: convolution and linear weights.

        Never biases, scales and shifts, nor the extra skips of [J], which stay dense.
        """
        return list(self.shapes.prunable)


@lru_cache
def _template(model: Model) -> nn.Module:
    module = _built(model, "meta")
    if model.registered:
        _check(model, module)
    return module


@torch.no_grad()
def _check(model: Model, module: nn.Module) -> None:
    """Raises UsageError where a registered architecture is not what the top of this module asks for."""
    for part in module.modules():
        if type(part) not in STACKED and next(part.parameters(recurse=False), None) is not None:
            raise UsageError(
                f"{model.name} has weights in a {type(part).__name__}: they belong in Conv2d, Linear and BatchNorm2d"
            )
    images = torch.empty(3, *model.shape, device="meta")
    if (found := tuple(module(images).shape)) != (3, model.classes):
        raise UsageError(f"{model.name} gives {found} for 3 images, expected {(3, model.classes)}")
    pair = stack(_twin(module))
    for part in pair.modules():
        for tensors in (part._parameters, part._buffers):
            tensors.update({n: t.expand(2, *t.shape) for n, t in tensors.items() if t is not None})
    try:
        found = tuple(pair(images.repeat(1, 2, 1, 1)).shape)
    except Exception as error:  # whatever a forward raises that finds more channels than it expects
        found = str(error).partition("\n")[0]
    if found != (3, 2, model.classes):
        raise UsageError(f"{model.name} cannot hold two networks side by side, its forward counts channels: {found}")


def _built(model: Model, device: str | torch.device) -> nn.Module:
    with torch.device(device):
        module = ARCHITECTURES[model.name].build(model.shape, model.classes, **model.options)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.num_batches_tracked = None
    return module


def _twin(module: nn.Module) -> nn.Module:
    """A module whose layers and tensors can be exchanged without a trace in the first: far faster than building."""
    twin = object.__new__(type(module))
    vars(twin).update({n: part.copy() if isinstance(part, dict | set) else part for n, part in vars(module).items()})
    twin._modules.update({name: _twin(child) for name, child in module._modules.items()})
    return twin


@lru_cache
def _outputs(model: Model) -> int:
    module, counts = model.build().eval(), []
    for part in module.modules():
        if next(part.parameters(recurse=False), None) is not None:
            part.register_forward_hook(lambda part, args, out: counts.append(out.numel()))
    module(torch.zeros(1, *model.shape, device="meta"))
    return sum(counts)


@lru_cache
def _shapes(model: Model) -> Shapes:
    module = model.build()
    params = {name: p.shape for name, p in module.named_parameters()}
    buffers = {name: b.shape for name, b in module.named_buffers()}
    dense = tuple(f"{name}." for name, part in module.named_modules() if isinstance(part, ConvSkip))
    prunable = tuple(name for name, shape in params.items() if len(shape) > 1 and not name.startswith(dense))
    return Shapes(MappingProxyType(params), MappingProxyType(buffers), prunable)
