"""Images with their labels, in the memory of a device or in a file that is mapped into it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

PIECE = 4096  # images that are looked at together where all are


@dataclass(frozen=True, eq=False)
class Split:
    """N images with their labels: `images` uint8 (N, C, H, W), `labels` int64 (N,).

    mean, std: of the brightness of each channel, (C,), by which networks see the images standardised; None: as it is.
    seen:      side of the square in the middle of an image that networks see; 0: all of it.
    on_disk:   the images lie in a file that is mapped into the host's memory (`lth.data.mapped`) and stay there. What
               is taken of them goes where the labels are.
    """

    images: Tensor
    labels: Tensor
    mean: Tensor | None = None
    std: Tensor | None = None
    seen: int = 0
    on_disk: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        return self.labels.device

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image as a network sees it."""
        channels, *sides = self.images.shape[1:]
        return (channels, self.seen, self.seen) if self.seen else (channels, *sides)

    def rows(self, index: Tensor) -> Tensor:
        """The bytes of images `index`, (n,) int64: uint8 (n, C, H, W)."""
        if self.on_disk:
            return self.images.index_select(0, index.cpu()).to(self.device)
        return self.images.index_select(0, index)

    def pixels(self, index: Tensor) -> Tensor:
        """Images `index` (int64, any shape) as a network sees them: float32, index.shape + (C, H, W)."""
        rows = self.rows(index.reshape(-1))  # gathered as bytes: a quarter of the traffic
        return self.scaled(rows).view(*index.shape, *self.shape)

    def scaled(self, images: Tensor) -> Tensor:
        """Images (n, C, H, W) of brightness 0 … 255 as a network sees them: their middle, where only that is seen;
        float32, brightness in [0, 1], standardised where that is asked."""
        if self.seen and (spare := [side - self.seen for side in images.shape[2:]]) != [0, 0]:
            top, left = (rest // 2 for rest in spare)
            images = images[:, :, top : top + self.seen, left : left + self.seen]
        seen = images.float().div_(255)
        if self.mean is None:
            return seen
        return seen.sub_(self.mean.view(-1, 1, 1)).div_(self.std.view(-1, 1, 1))

    def take(self, rows: Tensor | Sequence[int]) -> Split:
        """Some of the images, in memory."""
        rows = torch.as_tensor(rows, device=self.device)
        images = self.rows(rows) if self.on_disk else self.images[rows]
        return replace(self, images=images, labels=self.labels[rows], on_disk=False)

    def at_random(self, count: int, seed: int) -> Split:
        """`count` of the images, at most all."""
        return self.take(np.random.default_rng(seed).permutation(len(self))[:count])

    def of_each_class(self, count: int) -> Split:
        """The first `count` images of each class, or as many as it has, class by class."""
        labels = self.labels.cpu().numpy()
        return self.take(np.concatenate([np.flatnonzero(labels == c)[:count] for c in np.unique(labels)]))

    def evenly(self, count: int, first: bool = False) -> Split:
        """`count` of the images, at most all, spread evenly: of data sorted by class they show each class.

        They begin half a step behind the first image, or with it. So there are two such blocks that have no image in
        common, where half of the images are enough for both.
        """
        count = min(count, len(self))
        places = 2 * torch.arange(count, device=self.device) + (not first)
        rows = places * len(self) // (2 * count)
        return self.take(rows)

    def pieces(self, most: int) -> tuple[Tensor, ...]:
        """Places 0 … N−1, cut into the fewest pieces of at most `most`, of the same size give or take one.

        No piece is a leftover of one image, for which batch norm has no variance.
        """
        return torch.arange(len(self), device=self.device).tensor_split(-(-len(self) // most))

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the brightness of each channel, in [0, 1]: (C,) float32 each."""
        counts = 0
        for piece in self.images.split(PIECE):
            channels = piece.transpose(0, 1).flatten(1).cpu()
            counts = counts + torch.stack([torch.bincount(channel, minlength=256) for channel in channels])
        shares = counts.double() / counts.sum(1, keepdim=True)
        values = torch.arange(256, dtype=torch.float64) / 255
        mean = shares @ values
        std = (shares @ values.square() - mean.square()).clamp_min(1e-12).sqrt()
        return mean.float().to(self.device), std.float().to(self.device)

    def to(self, device: str | torch.device) -> Split:
        own = {"labels": self.labels, "mean": self.mean, "std": self.std}
        own |= {} if self.on_disk else {"images": self.images}
        return replace(self, **{name: None if tensor is None else tensor.to(device) for name, tensor in own.items()})


def fingerprint(train: Split, test: Split) -> str:
    """sha256 (hex) of the bytes and shapes of all images and labels, and of how networks see them."""
    train, test = train.to("cpu"), test.to("cpu")
    digest = hashlib.sha256()
    for tensor in (train.images, train.labels, test.images, test.labels):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        for piece in tensor.split(PIECE):
            digest.update(piece.contiguous().numpy())
    for tensor in (train.mean, train.std):
        if tensor is not None:
            digest.update(tensor.numpy())
    if train.seen:
        digest.update(f"seen {train.seen}".encode())
    return digest.hexdigest()
