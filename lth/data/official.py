"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100 through torchvision, from files at hand or downloaded."""

from __future__ import annotations

import contextlib
import gzip
import io
import queue
import shutil
import tempfile
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lth.errors import LthError


@dataclass(frozen=True)
class Official:
    """What torchvision calls a data set, and how many images it must have."""

    torchvision: str
    train: int
    test: int


SETS = {
    "mnist": Official("MNIST", 60_000, 10_000),
    "fashion_mnist": Official("FashionMNIST", 60_000, 10_000),
    "cifar10": Official("CIFAR10", 50_000, 10_000),
    "cifar100": Official("CIFAR100", 50_000, 10_000),
}
ANSWER_SECONDS = 5  # a server that has not answered by then counts as out of reach


def read(
    name: str, folder: Path, scratch: Path
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[str, ...]]:
    """((images, labels) of train, the same of test, class names) of the data set `name`.

    images: uint8 (N, C, H, W); labels: int64 (N,). Taken from its files in `folder`, packed or unpacked, else
    downloaded. torchvision works on a copy inside `scratch`: what it unpacks or leaves half done stays
    out of the reader's folder. Raises LthError where the files are damaged or cannot be had.
    """
    from torchvision import datasets

    official = SETS[name]
    kind = getattr(datasets, official.torchvision)
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".fetching-") as copy:
        try:
            if issubclass(kind, datasets.MNIST):
                raw = f"{kind.__name__}/raw"
                parts = [f"{raw}/{file.removesuffix('.gz')}" for file, _ in kind.resources]
                whole = all([_copy(part, folder, copy) for part in parts])
                looked_for = f"{raw}/*-ubyte[.gz]"
                urls = [mirror + kind.resources[0][0] for mirror in kind.mirrors]
            else:
                files = [file for file, _ in kind.train_list + kind.test_list] + [kind.meta["filename"]]
                parts = [f"{kind.base_folder}/{file}" for file in files]
                whole = _copy(kind.filename, folder, copy)
                whole = whole or all([_copy(part, folder, copy) for part in parts])
                looked_for = f"{kind.filename} or {kind.base_folder}/"
                urls = [kind.url]
        except (OSError, EOFError) as error:
            raise LthError(f"a file of {name} in {folder} is damaged or unreadable: {error}") from error
        try:
            if not whole:
                _knock(urls)
            with contextlib.redirect_stdout(io.StringIO()):  # torchvision's own remarks on each mirror
                splits = [kind(copy, train=train, download=True) for train in (True, False)]
        except (RuntimeError, OSError) as error:
            raise LthError(
                f"{name} is not at hand: no {name}.safetensors of this version and no (whole) {looked_for} in {folder} "
                f"(LTH_DATA), and the download failed ({' '.join(str(error).split())}). Ways out: run "
                f"`lth data {name}` on a machine with a network and copy its {name}.safetensors to {folder}; "
                "point LTH_DATA at a folder that has it; or take `-p dataset=digits`, which needs no download"
            ) from error
        except Exception as error:  # torchvision asserts where a file is not what its name says
            raise LthError(f"a file of {name} in {folder} is damaged: {error!r}") from error
    train, test = (_tensors(split.data, split.targets) for split in splits)
    found, expected = (len(train[0]), len(test[0])), (official.train, official.test)
    if found != expected:
        raise LthError(f"{name} in {folder} is damaged: {found} images (train, test), not {expected}")
    return train, test, tuple(splits[0].classes)


def _copy(part: str, folder: Path, copy: str) -> bool:
    """Copies file `part` of `folder`, or unpacks `part`.gz, into `copy`; False where neither exists."""
    for path, opened in ((folder / part, open), (folder / f"{part}.gz", gzip.open)):
        if path.is_file():
            target = Path(copy) / part
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened(path, "rb") as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            return True
    return False


def _knock(urls: list[str]) -> None:
    """Returns as soon as one of the servers answers; raises OSError where none does within ANSWER_SECONDS."""
    answers: queue.SimpleQueue[OSError | None] = queue.SimpleQueue()

    def knock(url: str) -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=ANSWER_SECONDS).close()
            answers.put(None)
        except urllib.error.HTTPError:
            answers.put(None)  # an answer too
        except OSError as error:
            answers.put(error)

    for url in urls:
        threading.Thread(target=knock, args=(url,), daemon=True).start()
    for _ in urls:
        try:
            answer = answers.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            raise OSError(f"no answer within {ANSWER_SECONDS} s") from None
        if answer is None:
            return
    raise answer


def _tensors(images, labels) -> tuple[Tensor, Tensor]:
    """torchvision's (N, H, W) or (N, H, W, 3) bytes and its labels as (N, C, H, W) and (N,)."""
    images = torch.as_tensor(images)
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return images.contiguous(), torch.as_tensor(labels).long()
