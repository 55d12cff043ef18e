"""Which images a step sees, and how they are cropped and flipped: replica by replica, from its own seed.

The draws are made on the host, an epoch at a time, and travel as a few bytes per image; images are gathered,
cropped and flipped where they lie, in the memory of the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lth import seeds

PADDING = 4  # pixels of black around an image before it is cropped to its size again


class Batches:
    """The endless streams of examples of several replicas, in batches.

    Each epoch is a new permutation of all examples, cut into full batches, so that a batch may hold the end of
    one epoch and the beginning of the next.
    """

    def __init__(self, replicas: Sequence[int], examples: int, batch: int, augment: bool = False) -> None:
        """`replicas`: the seed of each."""
        self.replicas, self.examples, self.batch, self.augment = list(replicas), examples, batch, augment
        self.epochs: dict[int, tuple[np.ndarray, np.ndarray | None]] = {}  # the latest ones, drawn once

    def between(self, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        """What the steps start … stop−1 see.

        Returns the examples, (stop − start, r, batch) int64, and with `augment` how each is moved,
        (stop − start, r, batch, 3) uint8: top and left edge of the crop (0 … 2·PADDING) and whether it is flipped.
        """
        first, last = start * self.batch, stop * self.batch
        epochs = range(first // self.examples, -(-last // self.examples))
        self.epochs = {epoch: self.epochs.get(epoch) or self._draw(epoch) for epoch in epochs}
        offset = epochs[0] * self.examples
        cut = slice(first - offset, last - offset)

        def blocks(parts: list[np.ndarray]) -> Tensor:
            stream = (parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))[:, cut]
            shaped = stream.reshape(len(self.replicas), stop - start, self.batch, *stream.shape[2:])
            return torch.from_numpy(np.ascontiguousarray(np.swapaxes(shaped, 0, 1)))

        orders, moves = zip(*self.epochs.values(), strict=True)
        return blocks(list(orders)), blocks(list(moves)) if self.augment else None

    def _draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray | None]:
        """One epoch of every replica: order (r, examples) and moves (r, examples, 3)."""
        order = [seeds.numpy_stream(seed, seeds.ORDER, epoch).permutation(self.examples) for seed in self.replicas]
        if not self.augment:
            return np.stack(order), None
        high = (2 * PADDING + 1, 2 * PADDING + 1, 2)
        streams = [seeds.numpy_stream(seed, seeds.AUGMENT, epoch) for seed in self.replicas]
        moves = [stream.integers(0, high, (self.examples, 3), dtype=np.uint8) for stream in streams]
        return np.stack(order), np.stack(moves)


def crop_and_flip(images: Tensor, moves: Tensor) -> Tensor:
    """Images moved as told: (n, C, H, W), (n, 3) uint8 → (n, C, H, W).

    Each is padded with `PADDING` black pixels on every side, cropped to its size at (top, left), then mirrored
    left to right where the third number is 1, as the usual training on CIFAR does.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, [PADDING] * 4)
    top, left, flip = moves.long().unbind(1)
    across = torch.arange(width, device=images.device)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.where(flip[:, None] == 1, width - 1 - across, across)
    n = torch.arange(len(images), device=images.device)[:, None, None, None]
    channels = torch.arange(images.shape[1], device=images.device)[:, None, None]
    return padded[n, channels, rows[:, None, :, None], columns[:, None, None, :]]
