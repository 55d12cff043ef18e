"""Gradient flow: how fast the loss falls to first order [E, Eq. 27]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lth.data import Data
from lth.errors import UsageError
from lth.gradients import mean_gradients
from lth.population import Population


@dataclass(frozen=True)
class GradientFlow:
    """∇Lᵀ∇L of the active parameters, biases included: what a `lth.training.plan.Probe` may measure [E, Figs. 2 and 3].

    block: L is the mean cross-entropy of so many training examples, spread evenly over the training set; always the
           same, and others than those that gradients for growing connections are taken from (`lth.methods.dst`).

    With `Probe(…, around_updates=True)` the history tells it right before each mask update too.
    """

    block: int = 1000

    def __post_init__(self) -> None:
        if self.block < 1:
            raise UsageError(f"gradient flow needs a block of at least one example: {self}")

    def __call__(self, population: Population, data: Data) -> dict[str, Tensor]:
        """`gradient_flow` of each replica: (R,) float64, in nats per unit of learning rate."""
        gradients, _ = mean_gradients(population, data.train.evenly(self.block, first=True))
        active = (g * population.masks[n] if n in population.masks else g for n, g in gradients.items())
        return {"gradient_flow": torch.stack([g.flatten(1).double().square().sum(1) for g in active]).sum(0)}
