"""Initial weights."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import nn

from lth import seeds as streams
from lth.models import Model
from lth.population import Population


def glorot_uniform(model: Model, seeds: Sequence[int], **columns: object) -> Population:
    """Dense networks, one per seed: weights uniform in ±√(6/(fan-in + fan-out)), biases zero.

    TensorFlow's default for dense and convolutional layers, and so the initialisation of [E] (Glorot and
    Bengio 2010, Eq. 16). The frame has `seed`, `init_seed` (both the seed given) and `columns`. A seed gives
    the same weights on every device, whichever other seeds are asked for.
    """
    networks = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):  # torch's constructors draw from the global stream
            module = model.build("cpu")
        generator = streams.torch_stream(seed, streams.INIT)
        for parameter in module.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter, generator=generator)
            else:
                nn.init.zeros_(parameter)
        networks.append(module)
    params = {
        name: torch.stack([dict(m.named_parameters())[name].detach() for m in networks])
        for name, _ in networks[0].named_parameters()
    }
    buffers = {
        name: torch.stack([dict(m.named_buffers())[name] for m in networks]) for name, _ in networks[0].named_buffers()
    }
    masks = {name: torch.ones_like(params[name], dtype=torch.bool) for name in model.prunable}
    frame = pd.DataFrame({"seed": list(seeds), "init_seed": list(seeds)}).assign(**columns)
    return Population(model, params, masks, buffers, frame)
