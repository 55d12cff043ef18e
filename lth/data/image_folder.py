"""Image folders, `train/<class>/*` and `test/<class>/*` (or `val`), as directory or archive, to tensors.

The folders may lie one directory deeper, and class folders may have folders of their own. What a person sees in
an image folder is what is read: symbolic links are followed, what is hidden or left behind by tools is not
looked at. What cannot be read is an error, and what is left out is told.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lth.data import archive, layout, picture
from lth.errors import LthError

Picture = tuple[int, np.ndarray]  # label, pixels (H, W) or (H, W, 3)


def read(source: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[str, ...], list[str]]:
    """((images, labels) of train, the same of test, class names, remarks) of the directory or archive `source`.

    images: uint8 (N, C, H, W) in the order of class and file name, C = 1 where all images are grey, else 3;
    `lth.data.picture.decode` says how a file becomes bytes. labels: int64 (N,), the place of the class among the sorted
    names. remarks: sentences on what was left out, for the reader (see `lth.data.layout.arrange`).
    Raises LthError, naming the file or folder, for what is damaged or unreadable, images of several sizes, a split
    or class that is missing or empty, and fewer than two classes.
    """
    paths, content = _directory(source) if source.is_dir() else _archive(source)
    train, test, remarks = layout.arrange(paths, source)
    names = tuple(sorted(train))
    first, several = None, []
    pictures: list[list[Picture]] = [[], []]
    for part, classes in zip(pictures, (train, test), strict=True):
        for label, path in layout.labelled(classes, names):
            data = content(path)
            try:
                pixels, pages = picture.decode(data)
            except Exception as error:  # each of Pillow's decoders fails in its own way
                raise LthError(f"{path} in {source} is not a readable image: {error}") from error
            first = first or (path, pixels.shape)
            if pixels.shape[:2] != first[1][:2]:
                sizes = f"{first[0]} is {_size(first[1])}, {path} is {_size(pixels.shape)}"
                raise LthError(
                    f"images in {source} differ in size ({sizes}): scale them to one size first, as "
                    f"`lth data NAME --from {source} --side {min(first[1][:2])}` does"
                )
            if pages > 1:
                several.append(path)
            part.append((label, pixels))
    if several:
        remarks.append(f"{layout.some(several)} with several pages or frames: only the first is read")
    channels = 1 if all(pixels.ndim == 2 for part in pictures for _, pixels in part) else 3
    return *(_stack(part, channels) for part in pictures), names, remarks


def listing(source: Path) -> list[tuple[str, os.stat_result]]:
    """Every file and folder of a directory that is looked at, links followed: path inside it (a folder's ends in
    «/»), and what the system knows of it. LthError, naming it, for what cannot be read."""
    found: list[tuple[str, os.stat_result]] = []

    def walk(folder: Path, inside: str, above: tuple[tuple[int, int], ...]) -> None:
        for name in sorted(os.listdir(folder)):
            path = inside + name
            if not layout.matters(path):
                continue
            status = (folder / name).stat()
            if not stat.S_ISDIR(status.st_mode):
                found.append((path, status))
                continue
            found.append((f"{path}/", status))
            here = (status.st_dev, status.st_ino)
            if here in above:
                raise LthError(f"{path} in {source} is a link to a folder that it lies in: remove it")
            walk(folder / name, f"{path}/", (*above, here))

    try:
        status = source.stat()
        walk(source, "", ((status.st_dev, status.st_ino),))
    except OSError as error:
        raise LthError(f"{error.filename} cannot be read: {error.strerror}") from error
    return found


def _directory(source: Path) -> tuple[list[str], Callable[[str], bytes]]:
    """The paths in a directory, and what gives a file's content."""

    def content(path: str) -> bytes:
        try:
            return (source / path).read_bytes()
        except OSError as error:
            raise LthError(f"{path} in {source} cannot be read: {error.strerror}") from error

    return [path for path, _ in listing(source)], content


def _archive(source: Path) -> tuple[list[str], Callable[[str], bytes]]:
    """The paths in an archive, and what gives a file's content."""
    members = archive.members(source)
    paths = [path for path in members if layout.matters(path)]
    if links := [path for path in paths if members[path] is None]:
        raise LthError(f"{links[0]} in {source} is a symbolic link: pack what it points to (tar --dereference)")
    return paths, members.__getitem__


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}×{shape[0]}"


def _stack(pictures: list[Picture], channels: int) -> tuple[Tensor, Tensor]:
    images = torch.empty(len(pictures), channels, *pictures[0][1].shape[:2], dtype=torch.uint8)
    for image, (_, pixels) in zip(images, pictures, strict=True):
        # a grey image among coloured ones is the same in all channels
        image.copy_(torch.from_numpy(pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)))
    return images, torch.tensor([label for label, _ in pictures])
