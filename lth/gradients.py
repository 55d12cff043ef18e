"""Gradients of the training loss on a fixed set of images, for every replica, in full precision."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from lth.data import Split
from lth.memory import in_less_room
from lth.population import Population, Tensors
from lth.precision import full_precision

CHUNK = 1000  # images at a time


@in_less_room
@full_precision()
def mean_gradients(population: Population, split: Split) -> tuple[Tensors, Tensor]:
    """∇L and L of the mean cross-entropy over all of `split`: name → (R, *shape), and (R,).

    Dense: also with respect to weights that the mask holds at zero. Batch norm uses the statistics of the images, a
    thousand at a time, as in training, and the population's own statistics stay as they are.
    """
    parts = population.in_parts(lambda rows: _mean_gradients(population[rows], split), min(len(split), CHUNK))
    grads = {n: torch.cat([part[0][n] for part in parts]) for n in population.params}
    return grads, torch.cat([part[1] for part in parts])


def _mean_gradients(population: Population, split: Split) -> tuple[Tensors, Tensor]:
    copy = replace(population, buffers={n: b.clone() for n, b in population.buffers.items()})
    network = copy.network().train()
    params = dict(network.named_parameters())
    dtype = next(iter(params.values())).dtype
    grads, loss = {n: torch.zeros_like(p) for n, p in population.params.items()}, 0.0
    for piece in split.pieces(CHUNK):
        images = split.pixels(piece).to(dtype).repeat(1, len(population), 1, 1)
        labels = split.labels[piece, None].expand(-1, len(population))
        share = len(piece) / len(split)
        logits = network(images).reshape(len(piece), len(population), -1)
        nll = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").mean(0) * share
        for total, grad in zip(grads.values(), torch.autograd.grad(nll.sum(), params.values()), strict=True):
            total += grad.reshape(total.shape)
        loss = loss + nll.detach()
    return grads, loss
