"""How far a signal gets in a network with its initial weights [E, Fig. 1c and App. A].

Glorot and Bengio (2010) and He et al. (2015) want a neuron's output to vary as much as its inputs do, and a gradient
on its way back as much as those it is made of. Measured here for one layer under a mask, where neurons have
different numbers of connections (`layer_variances`), for a chain of layers (`depth_variances`), and for whole
networks (`output_std`). Inputs are N(0, 1); whatever is random is named by a seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lth import seeds as streams
from lth.methods.sparse_init import Fans, Mode, variance
from lth.population import Population

CHUNK = 500  # draws of a layer's weights at a time


def skewed_mask(outputs: int, inputs: int, seed: int) -> Tensor:
    """A mask of hubs and loners: (outputs, inputs) bool.

    The first neuron has one input, the last has all, the others lie in between at equal ratios. Which inputs a
    neuron has is random; some inputs are up to a hundred times as likely as others, so that fan-outs differ too.
    """
    generator = streams.torch_stream(seed, streams.SIGNAL, 0)
    chance = torch.logspace(-2, 0, inputs)[torch.randperm(inputs, generator=generator)]
    fan_in = (inputs ** torch.linspace(0, 1, outputs)).round()
    # waiting times of inputs that arrive at these rates: the first k to come are k draws without replacement
    waiting = -torch.rand(outputs, inputs, generator=generator).log() / chance
    return waiting.argsort(dim=1).argsort(dim=1) < fan_in[:, None]


def layer_variances(
    mask: Tensor, mode: Mode, fans: Fans, scale: float = 1.0, draws: int = 10_000, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Variance of each output, and of the gradient at each input, for inputs and output gradients of variance 1.

    mask: (out, in) or (out, in, height, width) bool. Of a convolution, one output pixel and one input pixel that is
    not near the border stand for all: (out,) and (in,), float64. Mean squares over `draws` draws of inputs,
    gradients and weights, the latter with the `variance` of [E, Eq. 2]; zero for what has no connection.
    """
    generator = streams.torch_stream(seed, streams.SIGNAL, 1)
    outputs, inputs, *kernel = mask.shape
    forward, backward = torch.zeros(outputs, dtype=torch.float64), torch.zeros(inputs, dtype=torch.float64)
    for weights in _weights(mask, mode, fans, scale, draws, generator):
        signal = torch.randn(len(weights), 1, inputs, *kernel, generator=generator)
        gradient = torch.randn(len(weights), outputs, 1, *kernel, generator=generator)
        forward += (weights * signal).flatten(2).sum(2).double().square().sum(0)
        backward += (weights * gradient).transpose(1, 2).flatten(2).sum(2).double().square().sum(0)
    return forward / draws, backward / draws


def depth_variances(
    masks: Sequence[Tensor], mode: Mode, fans: Fans, scale: float = 2.0, draws: int = 1_000, seed: int = 0
) -> Tensor:
    """Variance of z after each of the linear layers `masks`, z ← W·relu(z), from z ~ N(0, 1): (layers,) float64.

    Mean squares over a layer's neurons and `draws` draws of input and weights.
    """
    generator = streams.torch_stream(seed, streams.SIGNAL, 2)
    z = torch.randn(draws, masks[0].shape[1], generator=generator)
    powers = []
    for mask in masks:
        parts = z.relu().unsqueeze(2).split(CHUNK)
        layers = _weights(mask, mode, fans, scale, draws, generator)
        z = torch.cat([(weights @ part).squeeze(2) for weights, part in zip(layers, parts, strict=True)])
        powers.append(z.double().square().mean())
    return torch.stack(powers)


def _weights(
    mask: Tensor, mode: Mode, fans: Fans, scale: float, draws: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """`draws` times the weights of one layer, in pieces of (CHUNK, *mask.shape)."""
    deviation = variance(mask[None], mode, fans, scale).sqrt()
    for piece in torch.arange(draws).split(CHUNK):
        yield deviation * torch.randn(len(piece), *mask.shape, generator=generator)


@torch.no_grad()
def output_std(population: Population, inputs: int = 1_000, seed: int = 0) -> Tensor:
    """Standard deviation of the logits over `inputs` images from N(0, 1) and all classes: (R,), as in [E, Fig. 1c].

    All networks see the same images.
    """
    generator = streams.torch_stream(seed, streams.SIGNAL, 3)
    images = torch.randn(inputs, *population.model.shape, generator=generator).to(population.device)
    return torch.stack([population.module(r)(images).std() for r in range(len(population))])
