"""Spending a ticket better: changes to the network and its start, after the mask has been found [J, Sec. 3].

The mask stays as it is. Label smoothing and distillation, which change the loss, are fields of
`lth.training.recipe.Recipe`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from lth import seeds as streams
from lth.data import Split
from lth.errors import UsageError
from lth.memory import in_less_room
from lth.methods import init
from lth.population import Population, Tensors
from lth.precision import full_precision


def change(population: Population, **options: Any) -> Population:
    """The same weights and masks in a network with other `activation` or `skips` [J, Sec. 3.1].

    What the new network has besides (the 1×1 convolutions of extra skips, and their batch norm) begins as in
    `lth.methods.init`. Raises UsageError for what the architecture has no place for.
    """
    model = replace(population.model, **options)
    fresh = init.kaiming_normal(model, population.seeds).to(population.device)
    if foreign := sorted(population.params.keys() - fresh.params.keys()):
        raise UsageError(f"{model.name} has no place for {foreign[0]}: extra skips are added, not taken away")
    dtype = next(iter(population.params.values())).dtype
    params = {n: population.params.get(n, p.to(dtype)) for n, p in fresh.params.items()}
    buffers = {n: population.buffers.get(n, b.to(dtype)) for n, b in fresh.buffers.items()}
    return Population(model, params, population.masks, buffers, population.frame)


def weights_left(population: Population) -> Tensor:
    """All weights that a network has: those under its masks *and* those of extra skips, never pruned: (R,) int64."""
    skips = sum(p[0].numel() for n, p in population.params.items() if n not in population.masks and p.ndim > 2)
    return population.weights_left() + skips


def scaled(population: Population, scales: Tensors) -> Population:
    """Every parameter tensor times its number, name → (R,); what has none, as a skip added since, stays as it is."""
    params = {n: p * _column(scales[n], p, len(p)) if n in scales else p for n, p in population.params.items()}
    return replace(population, params=params)


@dataclass(frozen=True)
class GradInit:
    """Learns a number for every parameter tensor, so that the first step of SGD lowers the loss most
    [Zhu et al. 2021; J, Sec. 3.2]; called with networks and images it gives name → (R,), see `scaled`.

    In each of `iterations` rounds a batch gives the gradient g of the network as it is scaled so far. Where ‖g‖ is
    above `limit`, the numbers are changed so that it falls; elsewhere so that the loss after the step θ − lr·g falls,
    on a batch of which one half is new. Adam with the given `rate` changes them; they begin at 1 and stay above
    `least`. Batch norm uses the statistics of the batch (training mode). A replica's `seed` decides its batches.

    variant: "through": g changes with the numbers, as [Zhu et al. 2021] have it, and each aim has Adam's moments of its
             own. "held": as the code of [J] is launched, g has length 1 in the trial step and is held fixed (then the
             loss need not fall), derivatives are clipped at ±1, both aims share the second moment, and the numbers of
             biases may fall to 0. One of its scripts scales the dense network before it is masked, another the masked
             one, as is done here.

    Raises UsageError where the split has too few images for a batch and a half.
    """

    lr: float = 0.1
    batch_size: int = 128
    iterations: int = 180
    rate: float = 1e-2
    least: float = 0.01
    limit: float = 1.0
    variant: Literal["through", "held"] = "through"

    @in_less_room
    @full_precision()
    def __call__(self, population: Population, split: Split) -> Tensors:
        if len(split) < self.batch_size + self.batch_size // 2:
            raise UsageError(f"a batch of {self.batch_size} images and half another cannot be drawn from {len(split)}")
        two_passes = 6 * self.batch_size  # the first with a graph of its gradient
        parts = population.in_parts(lambda rows: _learn(self, population[rows], split), two_passes)
        return {n: torch.cat([part[n] for part in parts]) for n in population.params}


def _learn(how: GradInit, population: Population, split: Split) -> Tensors:
    """What `GradInit` finds for networks that fit into memory together: name → (R,)."""
    replicas, held = len(population), how.variant == "held"
    network = population.network().train()
    weights = {n: p.detach() for n, p in network.named_parameters()}
    statistics = {n: b.clone() for n, b in network.named_buffers()}
    scales = {n: torch.ones(replicas, dtype=p.dtype, device=p.device, requires_grad=True) for n, p in weights.items()}
    moments = {n: torch.zeros(2, 2, replicas, dtype=p.dtype, device=p.device) for n, p in weights.items()}
    rounds = torch.zeros(2, replicas, device=population.device)  # so far, with either aim
    each = torch.arange(replicas, device=population.device)

    def losses(parameters: Tensors, index: Tensor) -> Tensor:
        """Mean loss of each replica on its images `index`, (B, R)."""
        images = split.pixels(index).to(next(iter(weights.values())).dtype).flatten(1, 2)
        tensors = parameters | {n: b.clone() for n, b in statistics.items()}
        logits = functional_call(network, tensors, (images,)).reshape(len(index), replicas, -1)
        return F.cross_entropy(logits.transpose(1, 2), split.labels[index], reduction="none").mean(0)

    for first, second in _batches(population, len(split), how.batch_size, how.iterations):
        scaled = {n: w * _column(scales[n], w, replicas) for n, w in weights.items()}
        found = torch.autograd.grad(losses(scaled, first).sum(), list(scaled.values()), create_graph=True)
        gradients = {n: _masked(g, population, n) for n, g in zip(scaled, found, strict=True)}
        norm = sum(g.reshape(replicas, -1).square().sum(1) for g in gradients.values()).sqrt()
        trial = {n: (g / _column(norm, g, replicas)).detach() for n, g in gradients.items()} if held else gradients
        after = losses({n: w - how.lr * trial[n] for n, w in scaled.items()}, second)
        aim = (norm > how.limit).long(), each
        rounds[aim] += 1
        goal = torch.where(norm > how.limit, norm, after).sum()
        for name, grad in zip(scales, torch.autograd.grad(goal, list(scales.values())), strict=True):
            mean, square = moments[name]  # Adam's
            if held:
                grad, squared, taken = grad.clamp(-1, 1), (torch.zeros_like(each), each), rounds.sum(0)
            else:
                squared, taken = aim, rounds[aim]
            mean[aim] = 0.9 * mean[aim] + 0.1 * grad
            square[squared] = 0.999 * square[squared] + 0.001 * grad.square()
            size = (square[squared] / (1 - 0.999**taken)).sqrt() + 1e-8
            with torch.no_grad():
                scales[name] -= how.rate * mean[aim] / (1 - 0.9 ** rounds[aim]) / size
                scales[name].clamp_(min=0.0 if held and name.endswith("bias") else how.least)
    return {n: s.detach() for n, s in scales.items()}


def _column(scale: Tensor, weight: Tensor, replicas: int) -> Tensor:
    """(R,) in the shape that multiplies a tensor of the stacked network, or of a single one."""
    return scale.view(-1, *[1] * (weight.ndim - 1)) if replicas > 1 else scale


def _masked(gradient: Tensor, population: Population, name: str) -> Tensor:
    mask = population.masks.get(name)
    return gradient if mask is None else gradient * mask.view(gradient.shape)


def _batches(population: Population, images: int, size: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of batches, (size, R) each: the second has the first half of the first one and as many other images."""
    generators = [streams.torch_stream(seed, streams.SCALE) for seed in population.seeds]
    for _ in range(count):
        drawn = torch.stack([torch.randperm(images, generator=g)[: size + size // 2] for g in generators], dim=1)
        first, second = drawn[:size], torch.cat([drawn[: size - size // 2], drawn[size:]])
        yield first.to(population.device), second.to(population.device)
