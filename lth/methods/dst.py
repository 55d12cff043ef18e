"""Dynamic sparse training: every so often a layer's smallest weights make way for new ones [E, Sec. 3.2].

SET [Mocanu et al. 2018] grows connections at random, RigL [Evci et al. 2020] those with the largest gradient,
RigL-Inverted [E, Fig. 3] those with the smallest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lth import seeds as streams
from lth.data import Data, Split
from lth.errors import UsageError
from lth.gradients import mean_gradients
from lth.methods.prune import largest
from lth.population import Population, Tensors

Grow = Literal["random", "gradient", "least_gradient"]


def rewire(weights: Tensor, mask: Tensor, wanted: Tensor, fraction: float) -> Tensor:
    """The new mask of one layer, with as many weights as before: weights, mask, wanted and result (r, n).

    Of a replica's a active weights the ⌊fraction·a⌋ smallest magnitudes are dropped. As many are then grown:
    among all that are now inactive, the dropped ones too, those with the highest score in `wanted`. Of equals
    the first in the layer is kept, and grown.
    """
    active = mask.sum(1)
    count = (active.double() * fraction).long()
    kept = largest(weights.abs().masked_fill(~mask, -1), active - count)
    return kept | largest(wanted.nan_to_num().masked_fill(kept, -torch.inf), count)


@dataclass(frozen=True)
class DST:
    """A mask update for `train`: SET, RigL or RigL-Inverted.

    grow:          what is grown: "random" (SET), the largest |∂L/∂w| ("gradient", RigL) or the smallest
                   ("least_gradient", RigL-Inverted) of the dense gradient.
    every:         optimiser steps between two updates, the first after `every` steps.
    end:           no update after as many steps or more. With the length of training here the drop fraction
                   follows a cosine learning rate, as in [E]'s experiments on MNIST.
    drop_fraction: of a layer's weights, at the beginning. After t steps ½(1 + cos(π·t/end)) of it is left.
    block:         training examples whose mean loss gives the gradient: always the same, spread evenly over
                   the training set, so that one sorted by class shows all classes.

    Each layer keeps its density; one that is dense remains so. A grown weight starts at zero, one that is
    dropped and grown in the same update keeps its value and its momentum (`train` sees to both).
    """

    grow: Grow
    every: int
    end: int
    drop_fraction: float = 0.3
    block: int = 1000

    def __post_init__(self) -> None:
        if self.grow not in Grow.__args__:
            raise UsageError(f"unknown grow criterion {self.grow!r}: known are {', '.join(Grow.__args__)}")
        if not 0 < self.every < self.end:
            raise UsageError(f"mask updates need 0 < every < end, or there are none: {self}")
        if not 0 < self.drop_fraction < 1:
            raise UsageError(f"the drop fraction lies between 0 and 1, both excluded: {self}")
        if self.block < 1:
            raise UsageError(f"the gradient needs a block of at least one example: {self}")

    def fraction(self, step: int) -> float:
        """Drop fraction after `step` steps."""
        return self.drop_fraction * 0.5 * (1 + math.cos(math.pi * step / self.end))

    def due(self, step: int) -> bool:
        """Whether the masks change after `step` steps."""
        return 0 < step < self.end and step % self.every == 0

    def masks(self, population: Population, step: int, data: Data) -> Tensors:
        """The masks after `step` steps: name → (r, *shape) bool. A replica's do not depend on the others."""
        wanted = self._random(population, step) if self.grow == "random" else self._gradient(population, data.train)
        return {
            name: rewire(
                population.params[name].flatten(1), mask.flatten(1), wanted[name].flatten(1), self.fraction(step)
            ).view(mask.shape)
            for name, mask in population.masks.items()
        }

    def _random(self, population: Population, step: int) -> Tensors:
        """A random score for each weight, from the stream (seed, GROW, step, layer): name → (r, *shape)."""
        wanted = {}
        for layer, (name, mask) in enumerate(population.masks.items()):
            generators = [streams.torch_stream(seed, streams.GROW, step, layer) for seed in population.seeds]
            scores = torch.stack([torch.rand(mask.shape[1:], generator=generator) for generator in generators])
            wanted[name] = scores.to(mask.device)
        return wanted

    def _gradient(self, population: Population, train: Split) -> Tensors:
        """|∂L/∂w| on the block, or −|∂L/∂w|: name → (r, *shape)."""
        gradients, _ = mean_gradients(population, train.evenly(self.block))
        sign = 1 if self.grow == "gradient" else -1
        return {name: sign * gradients[name].abs() for name in population.masks}
