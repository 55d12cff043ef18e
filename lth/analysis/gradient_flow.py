"""Gradient flow: how fast the loss falls to first order [E, Eq. 27]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lth.data import Data, Split
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
        weights, others = parts(population, data.train.evenly(self.block, first=True))
        return {"gradient_flow": weights + others}


def parts(population: Population, split: Split) -> tuple[Tensor, Tensor]:
    """∇Lᵀ∇L of the weights that masks leave, and of all else, biases above all: (R,) each, float64.

    Before a network tells images apart the biases of its outputs alone have a flow of `of_guessing`.
    """
    gradients, _ = mean_gradients(population, split)
    weights = others = torch.zeros(len(population), dtype=torch.double, device=next(iter(gradients.values())).device)
    for name, gradient in gradients.items():
        squares = gradient.double().square()
        if name in population.masks:
            weights = weights + (squares * population.masks[name]).flatten(1).sum(1)
        else:
            others = others + squares.flatten(1).sum(1)
    return weights, others


def of_guessing(split: Split, classes: int) -> float:
    """Σ (f_k − 1/K)², f_k the share of the images in class k of K: what the biases of the outputs can gain at first.

    That is ∇Lᵀ∇L with respect to these where every output is 0, whatever the weights are.
    """
    shares = torch.bincount(split.labels.cpu(), minlength=classes).double() / len(split)
    return float((shares - 1 / classes).square().sum())
