"""Networks that say the same with outputs of another size, made comparable before their landscapes are.

Half the logits are the same decisions, half the slope of the loss, and a top eigenvalue that is smaller: who was
trained with smoothed labels looks smooth without having changed a decision. And in front of batch norm, weights of half
the length compute the same and have four times the curvature. So logits are first divided by the temperature that suits
them best [Guo et al. 2017], and directions are measured by the length of the layer that they change.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from lth.data import Split
from lth.errors import UsageError
from lth.population import Population

MOST = 20.0  # ln of the largest factor that is looked for; beyond it lies a network that is never wrong


def temperature(population: Population, split: Split) -> Tensor:
    """The T of each replica with which logits/T have the smallest mean cross-entropy on `split`: (R,) float64.

    nan where there is none: a network without an error there would be the better the surer it is, and one that is worse
    than a guess the better the less it says.
    """
    logits = population.logits(split).double()
    logits = logits - logits.mean(2, keepdim=True)
    own = logits.gather(2, split.labels.view(1, -1, 1).expand(len(logits), -1, 1))[..., 0]

    def slope(sharpness: Tensor) -> Tensor:
        """Of the mean loss in 1/T, which is convex in it."""
        expected = (F.softmax(logits * sharpness.view(-1, 1, 1), 2) * logits).sum(2)
        return (expected - own).mean(1)

    size = logits.square().mean((1, 2)).sqrt()
    low, high = (torch.full((len(logits),), end, dtype=torch.float64, device=logits.device) for end in (-MOST, MOST))
    found = (slope((low.exp()) / size) < 0) & (slope(high.exp() / size) > 0)
    for _ in range(60):
        middle = (low + high) / 2
        above = slope(middle.exp() / size) > 0
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return torch.where(found, size / middle.exp(), torch.nan)


def calibrated(population: Population, split: Split) -> Population:
    """The networks with their last layer divided by the temperature that fits `split`, and their logits with it.

    Replicas that have none (see `temperature`) are left out. Raises UsageError where none is left.
    """
    suits = temperature(population, split)
    there = suits.isfinite().cpu().numpy()
    if not there.any():
        raise UsageError(
            "no network has a temperature: none is wrong on any of the images, or all are worse than a guess"
        )
    some, divisor = population[there], suits[torch.as_tensor(there, device=suits.device)]
    last = list(some.params)[-2:]  # weights and biases of the classifier
    params = {n: p / divisor.view(-1, *[1] * (p.ndim - 1)).to(p) if n in last else p for n, p in some.params.items()}
    return replace(some, params=params)


def layer_lengths(population: Population) -> Tensor:
    """For each parameter the length of the tensor of weights it belongs to, 1 for biases and batch norm: (R, P).

    With these as `scale`, `lth.analysis.hessian.top` finds the largest curvature in *relative* changes of the layers,
    which stays as it is when a layer in front of batch norm is multiplied by a number.
    """
    parts = []
    for param in population.params.values():
        length = param.flatten(1).norm(dim=1, keepdim=True) if param.ndim > 2 else torch.ones_like(param[:, :1])
        parts.append(length.expand(-1, param[0].numel()))
    return torch.cat(parts, dim=1)
