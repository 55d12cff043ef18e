"""In which order the numbers of images and kernels lie in memory: with the channels last, or as they are written."""

from __future__ import annotations

import torch

from lth.population import Population

WIDE = 5_000_000  # parameters; larger networks get all cores of a CPU (`lth.training.train.threads_each`)
FEW = 16  # channels; GPUs have been seen to handle convolutions of fewer badly with these as last axis

faster: dict[tuple[str, str, str], bool] = {}  # kind of step and GPU → whether it likes its channels last, as timed


def kind_of_step(population: Population, precision: str) -> tuple[str, str, str]:
    """What decides which layout is faster: architecture, precision, GPU."""
    return str(population.model), precision, torch.cuda.get_device_name(population.device)


def likes_channels_last(population: Population, precision: str) -> bool:
    """Whether convolutions are fastest with the channels as last axis: those of large networks on a CPU are not.

    On a GPU neither may be those of few channels, which must be tried (`doubts_layout`).
    """
    if population.device.type == "cpu":
        return _channels(population) > 0 and not is_wide(population)
    return _channels(population) > 0 and faster.get(kind_of_step(population, precision), True)


def doubts_layout(population: Population, precision: str) -> bool:
    """Whether nobody knows yet which layout is faster on this GPU."""
    return 0 < _channels(population) < FEW and kind_of_step(population, precision) not in faster


def _channels(population: Population) -> int:
    """The most channels that go into a convolution of one replica; 0 where there is none."""
    return max((p.shape[2] for p in population.params.values() if p.ndim == 5), default=0)


def is_wide(population: Population) -> bool:
    """Whether a network has more than `WIDE` parameters."""
    return sum(shape.numel() for shape in population.model.shapes.params.values()) > WIDE
