"""Which images a step sees, and how they are cropped, scaled and flipped: replica by replica, from its own seed.

The draws are made on the host, an epoch at a time, and travel as a few bytes per image; images are cropped, scaled and
flipped in the memory of the device, where they lie, or where `lth.training.feed` puts them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lth import seeds

PADDING = 4  # pixels of black around an image before it is cropped to its size again
AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of a random part that is scaled: share of the area, width over height
TRIES = 10  # to find one that fits into the image
MOVES = {True: (3, torch.uint8), "resized": (5, torch.int16)}  # numbers that say how an image is moved, and their kind


class Batches:
    """The endless streams of examples of several replicas, in batches.

    Each epoch is a new permutation of all examples, cut into full batches, so that a batch may hold the end of
    one epoch and the beginning of the next.
    """

    def __init__(
        self,
        replicas: Sequence[int],
        examples: int,
        batch: int,
        augment: bool | str = False,
        size: Sequence[int] = (),
    ) -> None:
        """replicas: the seed of each. augment: see `Recipe`; "resized" asks for the `size` of the images, (H, W)."""
        self.replicas, self.examples, self.batch = list(replicas), examples, batch
        self.augment, self.size = augment, size
        self.epochs: dict[int, tuple[np.ndarray, np.ndarray | None]] = {}  # the latest ones, drawn once

    def between(self, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        """What the steps start … stop−1 see.

        Returns the examples, (stop − start, r, batch) int64, and with `augment` how each is moved: (…, 3) uint8, top
        and left edge of the crop (0 … 2·PADDING) and whether it is flipped; with "resized" (…, 5) int16, top, left,
        height and width of the part and whether it is flipped.
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
        """One epoch of every replica: order (r, examples) and moves (r, examples, 3 or 5)."""
        order = [seeds.numpy_stream(seed, seeds.ORDER, epoch).permutation(self.examples) for seed in self.replicas]
        if not self.augment:
            return np.stack(order), None
        streams = [seeds.numpy_stream(seed, seeds.AUGMENT, epoch) for seed in self.replicas]
        if self.augment == "resized":
            return np.stack(order), np.stack([random_parts(stream, self.examples, *self.size) for stream in streams])
        high = (2 * PADDING + 1, 2 * PADDING + 1, 2)
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


def random_parts(stream: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """`count` random parts of an image, drawn as `torchvision.transforms.RandomResizedCrop` does, and flips.

    (count, 5) int16: top, left, height, width, flip. A share of the area is drawn, and the logarithm of the ratio of
    the sides; what does not fit into the image is drawn again, at most `TRIES` times, then the middle is taken.
    """
    high, wide = min(height, round(width / RATIO[0])), min(width, round(height * RATIO[1]))
    parts = np.tile(np.array([(height - high) // 2, (width - wide) // 2, high, wide, 0], np.int16), (count, 1))
    open_ = np.arange(count)
    for _ in range(TRIES):
        area = height * width * stream.uniform(*AREA, len(open_))
        ratio = np.exp(stream.uniform(*np.log(RATIO), len(open_)))
        h, w = np.rint(np.sqrt(area / ratio)).astype(int), np.rint(np.sqrt(area * ratio)).astype(int)
        fits = (h > 0) & (h <= height) & (w > 0) & (w <= width)
        h, w, found = h[fits], w[fits], open_[fits]
        parts[found, :4] = np.stack([stream.integers(height - h + 1), stream.integers(width - w + 1), h, w], axis=1)
        open_ = open_[~fits]
    parts[:, 4] = stream.integers(2, size=count)
    return parts


def resized_crop(images: Tensor, moves: Tensor, height: int, width: int) -> Tensor:
    """A part of each image, scaled to height × width: (n, C, H, W), (n, 5) → (n, C, height, width) float32.

    Linear interpolation, antialiased, as torchvision's `resized_crop` does it, and mirrored left to right where the
    fifth number is 1. Every new row is a weighted mean of old rows, every new column one of old columns, so that an
    image is multiplied by one matrix from the left and one from the right.
    """
    top, left, high, wide, flip = moves.float().unbind(1)
    rows, columns = _means(top, high, images.shape[2], height), _means(left, wide, images.shape[3], width)
    columns = torch.where(flip.view(-1, 1, 1) == 1, columns.flip(1), columns)
    return rows[:, None] @ images.float() @ columns[:, None].mT


def _means(start: Tensor, length: Tensor, old: int, new: int) -> Tensor:
    """Weights of `old` pixels in each of `new` ones that stand for the part from `start` on: (n, new, old)."""
    start, scale = start.view(-1, 1, 1), length.view(-1, 1, 1) / new
    places = torch.arange(old, device=start.device) + 0.5
    middles = start + scale * (torch.arange(new, device=start.device)[:, None] + 0.5)
    weights = (1 - (places - middles).abs() / scale.clamp_min(1)).clamp_min(0)
    weights = weights * ((places > start) & (places < start + length.view(-1, 1, 1)))
    return weights / weights.sum(2, keepdim=True)
