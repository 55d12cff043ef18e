"""Activation functions by name, and max-pooling in the cheaper order."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "swish": F.silu, "mish": F.mish}


def pooled(activation: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The activation of `x`, then 2×2 max-pooling: (B, C, H, W) → (B, C, H // 2, W // 2).

    ReLU is monotone, so it commutes with the maximum, and after the pool it has a quarter of the work. Swish
    and Mish fall before they rise: there the order matters.
    """
    if activation is F.relu:
        return F.relu(F.max_pool2d(x, 2))
    return F.max_pool2d(activation(x), 2)
