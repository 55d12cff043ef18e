"""Spending a ticket better: changes to the network and its start, after the mask has been found [J, Sec. 3].

The mask stays as it is. Label smoothing and distillation, which change the loss, are fields of `lth.recipe.Recipe`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from lth import seeds as streams
from lth.data import Split
from lth.errors import UsageError
from lth.gradients import full_precision
from lth.methods import init
from lth.population import Population, Tensors


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


def sparsity_in_all(population: Population) -> Tensor:
    """Share of zeros among prunable weights *and* those of extra skips, which are never pruned: (R,)."""
    skips = sum(p[0].numel() for n, p in population.params.items() if n not in population.masks and p.ndim > 2)
    prunable = sum(m[0].numel() for m in population.masks.values())
    return population.sparsity() * prunable / (prunable + skips)


@full_precision()
def gradinit(
    population: Population,
    split: Split,
    *,
    lr: float = 0.1,
    batch_size: int = 128,
    iterations: int = 180,
    rate: float = 1e-2,
    least: float = 0.01,
    limit: float = 1.0,
) -> Population:
    """Every parameter tensor times a learned number, so that the first step of SGD lowers the loss most: GradInit
    [Zhu et al. 2021; J, Sec. 3.2], with numbers of its own for each replica.

    In each of `iterations` rounds a batch gives the gradient g of the network as it is scaled so far. Where ‖g‖ is
    above `limit`, the numbers are changed so that it falls; elsewhere so that the loss after the step θ − lr·g falls,
    on a batch of which one half is new (the authors' code holds g fixed there; then the loss need not fall). Adam with
    the given `rate` changes them, with moments of its own for either aim; they begin at 1 and stay above `least`.
    Batch norm uses the statistics of the batch. A replica's `seed` decides its batches.
    Raises UsageError where the split has too few images for a batch and a half.
    """
    if len(split) < batch_size + batch_size // 2:
        raise UsageError(f"a batch of {batch_size} images and half another cannot be drawn from {len(split)}")

    def learn(rows: slice) -> Tensors:
        return _scales(population[rows], split, lr, batch_size, iterations, rate, least, limit)

    parts = population.in_parts(learn, 6 * batch_size)  # two passes, the first with a graph of its gradient
    scales = {n: torch.cat([part[n] for part in parts]) for n in population.params}
    return replace(population, params={n: p * _column(scales[n], p, len(p)) for n, p in population.params.items()})


def _scales(
    population: Population,
    split: Split,
    lr: float,
    batch_size: int,
    iterations: int,
    rate: float,
    least: float,
    limit: float,
) -> Tensors:
    """What `gradinit` multiplies by: name → (R,)."""
    replicas = len(population)
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

    for first, second in _batches(population, len(split), batch_size, iterations):
        scaled = {n: w * _column(scales[n], w, replicas) for n, w in weights.items()}
        found = torch.autograd.grad(losses(scaled, first).sum(), list(scaled.values()), create_graph=True)
        gradients = {n: _masked(g, population, n) for n, g in zip(scaled, found, strict=True)}
        norm = sum(g.reshape(replicas, -1).square().sum(1) for g in gradients.values()).sqrt()
        after = losses({n: w - lr * gradients[n] for n, w in scaled.items()}, second)
        aim = (norm > limit).long(), each
        rounds[aim] += 1
        goal = torch.where(norm > limit, norm, after).sum()
        for name, grad in zip(scales, torch.autograd.grad(goal, list(scales.values())), strict=True):
            mean, square = moments[name]  # Adam's
            mean[aim] = 0.9 * mean[aim] + 0.1 * grad
            square[aim] = 0.999 * square[aim] + 0.001 * grad.square()
            size = (square[aim] / (1 - 0.999 ** rounds[aim])).sqrt() + 1e-8
            with torch.no_grad():
                scales[name] -= rate * mean[aim] / (1 - 0.9 ** rounds[aim]) / size
                scales[name].clamp_(min=least)
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
