"""Architectures as plain `torch.nn` modules, and `Model`, the recipe for building one.

A module draws no random numbers of its own that matter: initial weights come from `lth.methods.init`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from lth.errors import UsageError
from lth.models.lenet import LeNet5, LeNet300100

ARCHITECTURES: dict[str, type[nn.Module]] = {"lenet5": LeNet5, "lenet_300_100": LeNet300100}


@dataclass(frozen=True)
class Model:
    """What all replicas of a population share: architecture, input shape (C, H, W), number of classes."""

    name: str
    shape: tuple[int, int, int] = (1, 28, 28)
    classes: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if self.name not in ARCHITECTURES:
            raise UsageError(f"unknown model {self.name!r}: known are {', '.join(ARCHITECTURES)}")

    def build(self, device: str | torch.device = "meta") -> nn.Module:
        """A fresh module; on the default device "meta" it has shapes and no values."""
        with torch.device(device):
            return ARCHITECTURES[self.name](self.shape, self.classes)

    @property
    def prunable(self) -> list[str]:
        """Names of the parameters that pruning may touch: convolution and linear weights, never biases."""
        return [name for name, p in self.build().named_parameters() if p.ndim > 1]
