"""How strongly the loss pulls on a network: the gradient flow [E, Sec. 2]."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lth.data import Data, Split
from lth.gradients import mean_gradients
from lth.population import Population, Tensors


@dataclass(frozen=True)
class GradientFlow:
    """A probe for `train`: column `gradient_flow`, ∇Lᵀ∇L over the weights that are there.

    L is the mean cross-entropy of the first `block` training examples. By how much the loss falls in a small step of
    gradient descent is the step times this number; weights that the mask hides cannot move and do not count.
    """

    block: int = 1000

    def __call__(self, population: Population, data: Data) -> Tensors:
        """Column name → one number per replica, (R,)."""
        block = Split(data.train.images[: self.block], data.train.labels[: self.block])
        grads, _ = mean_gradients(population, block)
        seen = {n: g * population.masks[n] if n in population.masks else g for n, g in grads.items()}
        return {"gradient_flow": torch.stack([g.flatten(1).square().sum(1) for g in seen.values()]).sum(0)}
