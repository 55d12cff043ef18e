"""Which weights to keep before any training: SNIP, GraSP and SynFlow.

Each gives name → (R, *shape) scores of the prunable weights, high for those to keep; `prune.without_lowest` makes masks
of them. Raises UsageError where all scores of a replica are zero. Networks are scored as they stand at initialisation:
SNIP and GraSP in training mode, where batch norm uses the statistics of the images, as their authors' programs do;
SynFlow in evaluation mode, where it uses its own (mean 0 and variance 1 as yet), as its authors' paper is run. The
benchmark program of SynFlow's authors scores by SNIP and GraSP in evaluation mode as well: there two thirds of the
masks' weights are others.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from lth.data import Split
from lth.errors import UsageError
from lth.gradients import mean_gradients
from lth.memory import in_less_room
from lth.methods import prune
from lth.population import Population, Tensors
from lth.precision import full_precision

TEMPERATURE = 200.0  # what GraSP's authors divide the logits by, so that the loss is nearly that of a uniform guess


def snip(population: Population, split: Split) -> Tensors:
    """|w ⊙ ∂L/∂w|: how much the loss changes if a weight goes, to first order [Lee et al. 2019].

    In training mode, on the mean loss of all images of `split` together. The sum of the scores is not divided out.
    """
    gradients, _ = mean_gradients(population, split)
    return _telling({name: (population.params[name] * gradients[name]).abs() for name in population.masks})


@in_less_room
@full_precision()
def grasp(population: Population, split: Split, temperature: float = TEMPERATURE) -> Tensors:
    """w ⊙ (H g), by how much the gradient's squared norm falls if a weight goes [Wang et al. 2020].

    g and H are gradient and Hessian of the mean loss in the weights that are there; H g = ∇(½ gᵀg). In training mode,
    the images of `split` together; a few of each class are what the paper takes. Its program, as this, divides the
    logits by 200, which the paper does not mention; others, such as SynFlow's authors, do the same.
    """
    parts = population.in_parts(lambda rows: _grasp(population[rows], split, temperature), len(split))
    return _telling({name: torch.cat([part[name] for part in parts]) for name in population.masks})


def _grasp(population: Population, split: Split, temperature: float) -> Tensors:
    replicas = len(population)
    copy = replace(population, buffers={n: b.clone() for n, b in population.buffers.items()})
    network = copy.network().train()
    weights = {n: p for n, p in network.named_parameters() if n in population.masks}
    every = torch.arange(len(split), device=population.device)
    images = split.pixels(every).to(next(iter(weights.values())).dtype).repeat(1, replicas, 1, 1)
    logits = network(images).reshape(len(split) * replicas, -1) / temperature
    labels = split.labels.repeat_interleave(replicas)
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum") / len(split)
    gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    masked = [g.reshape(m.shape) * m for g, m in zip(gradients, population.masks.values(), strict=True)]
    flow = sum(g.square().sum() for g in masked) / 2
    products = torch.autograd.grad(flow, list(weights.values()))
    return {n: population.params[n] * hg.view_as(population.params[n]) for n, hg in zip(weights, products, strict=True)}


def synflow(population: Population) -> Tensors:
    """|w| ⊙ ∂R/∂|w|, where R is the sum of the outputs of the network with all its numbers made positive, for an image
    of ones [Tanaka et al. 2020]. It needs no data. float64, as the product of many layers is a large number."""
    wide = {n: p.double().abs() for n, p in population.params.items()}
    buffers = {n: b.double().abs() for n, b in population.buffers.items()}
    positive = replace(population, params=wide, buffers=buffers)

    def score(one: Population) -> Tensors:
        network = one.network().eval()
        weights = {n: p for n, p in network.named_parameters() if n in one.masks}
        ones = torch.ones(1, len(one) * one.model.shape[0], *one.model.shape[1:], device=one.device).double()
        grads = torch.autograd.grad(network(ones).sum(), list(weights.values()))
        return {n: one.params[n] * g.view_as(one.params[n]) for n, g in zip(weights, grads, strict=True)}

    parts = positive.in_parts(lambda rows: score(positive[rows]), images=1)
    return _telling({n: torch.cat([part[n] for part in parts]) for n in population.masks})


def _telling(scores: Tensors) -> Tensors:
    """The scores; UsageError where those of a replica are all zero."""
    some = sum(score.flatten(1).count_nonzero(1) for score in scores.values()).tolist()
    if 0 in some:
        raise UsageError(
            f"all scores of replica {some.index(0)} are zero: no signal gets from its images to its loss. "
            "Has a layer lost all its weights, or have the weights not been drawn?"
        )
    return scores


def synflow_masks(population: Population, sparsity: float, rounds: int = 100) -> Tensors:
    """Masks by SynFlow in many rounds, after each of which the scores are computed anew [Tanaka et al. 2020, Alg. 1].

    The density falls exponentially, (1 − sparsity)^(k/rounds) after round k. In one round layers would collapse.
    """
    prune.check_sparsity(sparsity)
    start = population.weights_left().tolist()
    for k in range(1, rounds + 1):
        left = [round(weights * (1 - sparsity) ** (k / rounds)) for weights in start]
        population = prune.apply(population, prune.down_to(population, synflow(population), left))
    return population.masks
