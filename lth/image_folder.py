"""Image folders, `train/<class>/*` and `test/<class>/*` (or `val`), as directory or archive, to tensors.

The two folders may lie one directory deeper. Archives are read in memory: nothing is unpacked to the disk.
"""

from __future__ import annotations

import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lth.errors import LthError

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz")
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
Picture = tuple[str, str, np.ndarray]  # class, path inside the source, pixels (H, W) or (H, W, 3)


def read(source: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], int]:
    """((images, labels) of train, the same of test, number of classes) of the directory or archive `source`.

    images: uint8 (N, C, H, W) in the order of class and file name, C = 1 where all images are grey, else 3.
    labels: int64 (N,), the place of the class among the sorted class names.
    Raises LthError for a damaged archive or image, images of several sizes, a split or class that is missing.
    """
    pictures: dict[str, list[Picture]] = {"train": [], "test": [], "val": []}
    first = None
    for path, content in _files(source):
        if (place := _place(path)) is None:
            continue
        try:
            with Image.open(io.BytesIO(content)) as image:
                pixels = np.array(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
        except Exception as error:  # each of Pillow's decoders fails in its own way
            raise LthError(f"{path} in {source} is not a readable image: {error}") from error
        first = first or (path, pixels.shape)
        if pixels.shape[:2] != first[1][:2]:
            sizes = f"{first[0]} is {_size(first[1])}, {path} is {_size(pixels.shape)}"
            raise LthError(f"images in {source} differ in size ({sizes}): scale them to one size first")
        split, kind = place
        pictures[split].append((kind, path, pixels))
    train, test = pictures["train"], pictures["test"] or pictures["val"]
    if not train or not test:
        missing = "test/<class>/ (or val/<class>/)" if train else "train/<class>/"
        raise LthError(f"{source} holds no images in {missing}")
    classes = sorted({kind for kind, _, _ in train})
    if strange := sorted({kind for kind, _, _ in test} - set(classes)):
        raise LthError(f"{source} has test images of classes without training images: {', '.join(strange)}")
    channels = 1 if all(pixels.ndim == 2 for _, _, pixels in train + test) else 3
    return _stack(train, classes, channels), _stack(test, classes, channels), len(classes)


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    """Path inside `source` and content of every image file in it."""
    if source.is_dir():
        for path in source.rglob("*"):
            if path.name.lower().endswith(IMAGES) and path.is_file():
                yield path.relative_to(source).as_posix(), path.read_bytes()
        return
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                if member.isfile() and member.name.lower().endswith(IMAGES):
                    yield member.name, archive.extractfile(member).read()
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise LthError(f"{source} is damaged ({error}): fetch it again") from error


def _place(path: str) -> tuple[str, str] | None:
    """(split, class) of train/cat/1.png or pets/train/cat/1.png; None for a file that is in no split."""
    parts = [part for part in path.split("/") if part != "."]
    if parts[-1].startswith("."):  # what macOS adds to archives
        return None
    for depth in (0, 1):
        if len(parts) >= depth + 3 and parts[depth] in ("train", "test", "val"):
            return parts[depth], parts[depth + 1]
    return None


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}×{shape[0]}"


def _stack(pictures: list[Picture], classes: list[str], channels: int) -> tuple[Tensor, Tensor]:
    pictures.sort(key=lambda picture: picture[:2])
    images = torch.empty(len(pictures), channels, *pictures[0][2].shape[:2], dtype=torch.uint8)
    for image, (_, _, pixels) in zip(images, pictures, strict=True):
        # a grey image among coloured ones is the same in all channels
        image.copy_(torch.from_numpy(pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)))
    number = {kind: i for i, kind in enumerate(classes)}
    return images, torch.tensor([number[kind] for kind, _, _ in pictures])
