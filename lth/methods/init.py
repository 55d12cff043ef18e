"""Initial weights of dense networks.

Every function here makes one network per seed and differs from the others only in the distribution of the
prunable weights, whose width follows from a layer's fan-in and fan-out: for a convolution, channels in and out
times the kernel's area (of a depthwise one torch counts one channel in and all channels out). Biases (but for
`torch_default`) and batch-norm shifts are 0, scales 1, running means 0 and variances 1, and the weights of extra skips
1e-4 [J].
The frame has `seed`, `init_seed` (both the seed given) and `columns`.

A seed gives the same weights on every device, whichever other seeds are asked for: each has one stream, from
which the layers draw in the module's order. Nothing else draws from it, so that a network with extra skips or
another activation has the weights of the one without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn

from lth import seeds as streams
from lth.models import Model
from lth.population import Population

SKIP_WEIGHT = 1e-4  # of the 1×1 convolutions in extra skips, as in the code of [J]


def glorot_uniform(model: Model, seeds: Sequence[int], **columns: object) -> Population:
    """Weights uniform in ±√(6/(fan-in + fan-out)) [Glorot and Bengio 2010, Eq. 16].

    TensorFlow's default for dense and convolutional layers, and so the initialisation of [E].
    """
    return _dense(model, seeds, nn.init.xavier_uniform_, columns)


def glorot_normal(model: Model, seeds: Sequence[int], **columns: object) -> Population:
    """Weights normal with variance 2/(fan-in + fan-out) [Glorot and Bengio 2010, Eq. 12]."""
    return _dense(model, seeds, nn.init.xavier_normal_, columns)


def kaiming_uniform(model: Model, seeds: Sequence[int], **columns: object) -> Population:
    """Weights uniform in ±√(6/fan-in), so that their variance is that of `kaiming_normal`.

    For the LeNet of [M]. Not the default of torch's layers, which is narrower: ±√(1/fan-in).
    """
    return _dense(model, seeds, nn.init.kaiming_uniform_, columns)


def kaiming_normal(model: Model, seeds: Sequence[int], **columns: object) -> Population:
    """Weights normal with variance 2/fan-in [He et al. 2015, Eq. 10], for the convolutional networks of [M]."""
    return _dense(model, seeds, nn.init.kaiming_normal_, columns)


def torch_default(model: Model, seeds: Sequence[int], **columns: object) -> Population:
    """Weights and biases uniform in ±√(1/fan-in), as torch's own layers begin; so do the networks of [J]'s code.

    Their standard deviation is √6 = 2.45 times smaller than that of `kaiming_normal`. In front of batch norm that
    changes nothing in what a network computes, and makes it learn six times as fast.
    """
    networks = _dense(model, seeds, partial(nn.init.kaiming_uniform_, a=5**0.5), columns)
    layers = [name.removesuffix("weight") for name in networks.masks]
    for r, seed in enumerate(seeds):
        generator = streams.torch_stream(seed, streams.INIT, 1)  # a stream of their own: weights are drawn as ever
        for layer in layers:
            if (bias := networks.params.get(f"{layer}bias")) is not None:
                bound = networks.params[f"{layer}weight"][r, 0].numel() ** -0.5
                bias[r].uniform_(-bound, bound, generator=generator)
    return networks


def with_uniform_scales(networks: Population) -> Population:
    """The same networks with the scales γ of batch norm drawn from U[0, 1], as in the framework of [P].

    Half of the channels begin with less than half of their signal. Networks without scales stay as they are.
    """
    params = dict(networks.params)
    scales = [n for n, p in params.items() if n not in networks.masks and n.endswith("weight") and p.ndim == 2]
    for name in scales:
        params[name] = params[name].clone()
    for r, seed in enumerate(networks.frame["init_seed"]):
        generator = streams.torch_stream(int(seed), streams.INIT, 2)
        for name in scales:
            params[name][r].uniform_(0, 1, generator=generator)
    return replace(networks, params=params)


def _dense(model: Model, seeds: Sequence[int], draw_: Callable[..., Tensor], columns: dict[str, object]) -> Population:
    """Dense networks, one per seed, whose prunable weights are filled by `draw_(weight, generator=…)`."""
    shapes = model.shapes
    params = {name: torch.zeros(len(seeds), *shape) for name, shape in shapes.params.items()}
    for name, stack in params.items():
        if name not in shapes.prunable and name.endswith("weight"):
            stack.fill_(1 if stack.ndim == 2 else SKIP_WEIGHT)
    for r, seed in enumerate(seeds):
        generator = streams.torch_stream(seed, streams.INIT)
        for name in shapes.prunable:
            draw_(params[name][r], generator=generator)
    buffers = {
        name: (torch.ones if name.endswith("running_var") else torch.zeros)(len(seeds), *shape)
        for name, shape in shapes.buffers.items()
    }
    masks = {name: torch.ones_like(params[name], dtype=torch.bool) for name in shapes.prunable}
    frame = pd.DataFrame({"seed": list(seeds), "init_seed": list(seeds)}).assign(**columns)
    return Population(model, params, masks, buffers, frame)
