"""Initial weights for a network that is sparse already [E, Sec. 3.1 and App. A; Liu et al. 2019].

Glorot and Bengio (2010) and He et al. (2015) choose the variance of a weight so that the signal neither
vanishes nor explodes: scale/u, where u counts the connections of the neuron that the weight belongs to. In a
dense layer all neurons have equally many; under a mask each has its own number.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from lth import seeds as streams
from lth.errors import UsageError
from lth.population import Population

Mode = Literal["forward", "backward", "average"]
Fans = Literal["neuron", "layer", "dense"]


def variance(mask: Tensor, mode: Mode = "average", fans: Fans = "neuron", scale: float = 1.0) -> Tensor:
    """Variance scale/u of each weight under `mask`, zero where there is none [E, Eq. 1 and 2].

    mask:  (R, out, in) or (R, out, in, height, width), bool; the result has its shape.
    mode:  forward: u = fan-in of the weight's output neuron (channel), the variance that keeps activations;
           backward: u = fan-out of its input neuron (channel), the variance that keeps gradients;
           average: the mean of the two.
    fans:  neuron: counted under the mask, neuron by neuron [E]; layer: the dense layer's, times the density of
           the layer [Liu et al. 2019]; dense: the dense layer's, mask or no mask.
    scale: 1 for units that are linear around zero (Glorot), 2 for ReLU (He).

    A grouped convolution's fan-out counts all its output channels, as in torch. Raises UsageError for words
    that are not among these and for a scale that is not positive.
    """
    for name, value, known in (("mode", mode, Mode.__args__), ("fans", fans, Fans.__args__)):
        if value not in known:
            raise UsageError(f"unknown {name} {value!r}: known are {', '.join(known)}")
    if not 0 < scale < math.inf:
        raise UsageError(f"scale must be positive (1 for Glorot, 2 for He), not {scale}")
    counted = mask if fans == "neuron" else torch.ones_like(mask)
    kernel = tuple(range(3, mask.ndim))
    fan_in = counted.sum((2, *kernel), keepdim=True)  # (R, out, 1, …)
    fan_out = counted.sum((1, *kernel), keepdim=True)  # (R, 1, in, …)
    u = {"forward": fan_in, "backward": fan_out, "average": (fan_in + fan_out) / 2}[mode]
    if fans == "layer":
        u = u * mask.float().mean(tuple(range(1, mask.ndim)), keepdim=True)
    return scale * mask / torch.where(mask, u, 1)  # a neuron without weights has u = 0, and nothing to draw


def normal(population: Population, mode: Mode = "average", fans: Fans = "neuron", scale: float = 1.0) -> Population:
    """The population with new weights under its masks: normal, with mean zero and the `variance` above.

    Biases of the prunable layers become zero; all else stays as it is: batch norm, extra skips, the frame. The
    numbers come from a replica's `init_seed` (`seed` where there is no such column): one standard normal number
    per weight, masked or not, so that masks and rules can be compared draw by draw. They have nothing to do with
    what `lth.methods.init` draws for that seed. A replica that is not `sound` stays so. The defaults are those of
    [E, Table 1].
    """
    params = dict(population.params)
    generators = [
        streams.torch_stream(int(seed), streams.INIT, 1)  # 1: not the stream of `lth.methods.init`
        for seed in population.frame.get("init_seed", population.frame["seed"])
    ]
    for name, mask in population.masks.items():
        old = params[name]
        draws = [torch.randn(old.shape[1:], dtype=old.dtype, generator=generator) for generator in generators]
        params[name] = torch.stack(draws).to(old.device) * variance(mask, mode, fans, scale).sqrt().to(old.dtype)
        bias = name.removesuffix("weight") + "bias"
        if bias in params:
            params[bias] = torch.zeros_like(params[bias])
    return replace(population, params=params).without(~population.sound())
