"""Data sets: uint8 images and labels as two tensors each, in the memory of one device or in a file.

`digits` comes with scikit-learn; `mnist`, `fashion_mnist`, `cifar10` and `cifar100` come through torchvision
(`lth.data.official`); any other name is an image folder or archive (`lth.data.image_folder`), or the file made of a
folder that is too large for memory (`lth.data.mapped`). What was decoded once is kept as one safetensors file and read
from there ever after; `lth.data.sources` says where.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save

from lth.data import image_folder, mapped, official
from lth.data.sources import MAPPED, cache, find, home, stem, writable
from lth.data.split import Split, fingerprint
from lth.errors import LthError, UsageError

FORMAT = "2"  # of the kept files; a file of another one is written anew. Raise it when decoding changes


@dataclass(frozen=True, eq=False)
class Data:
    """A data set. `fingerprint` is the sha256 (hex) of the bytes and shapes of the training and test images."""

    name: str
    train: Split
    test: Split
    classes: int
    fingerprint: str
    names: tuple[str, ...] = ()  # of the classes
    validation: Split | None = None  # training images that were put aside

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.train.shape

    def to(self, device: str | torch.device) -> Data:
        aside = self.validation and self.validation.to(device)
        return replace(self, train=self.train.to(device), test=self.test.to(device), validation=aside)

    def hold_out(self, share: float = 0.1, seed: int = 0) -> Data:
        """The same data with a random `share` of the training images put aside for validation.

        The share is taken of each class, as far as whole images allow; every class stays in both parts.
        Raises UsageError where that cannot be.
        """
        if self.train.on_disk:
            raise UsageError(f"{self.name} lies in a file: nothing of it can be put aside in memory")
        labels = self.train.labels.cpu().numpy()
        count, sizes = round(share * len(labels)), np.bincount(labels, minlength=self.classes)
        present = np.flatnonzero(sizes)
        if not len(present) <= count <= len(labels) - len(present):
            parts = f"{count} of {len(labels)} training images aside"
            raise UsageError(f"a share of {share:g} puts {parts}: each part needs {len(present)}, one of each class")
        for label in np.flatnonzero(sizes == 1):
            name = self.names[label] if self.names else label
            raise UsageError(f"class {name} has one training image: to put some aside it takes two of each class")
        generator = np.random.default_rng(seed)
        order = _by_class(labels, generator)
        size = sizes[labels[order]]
        rank = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        # how far down its class an image stands; the first of a class goes aside whatever its size, the last stays
        place = np.select([rank == 0, rank == size - 1], [0.0, 1.0], (rank + 0.5) / size)
        chosen = order[np.lexsort((generator.permutation(len(labels)), place))]
        aside, rest = (
            torch.from_numpy(np.sort(part)).to(self.train.labels.device) for part in (chosen[:count], chosen[count:])
        )
        train, validation = self.train.take(rest), self.train.take(aside)
        return replace(self, train=train, fingerprint=fingerprint(train, self.test), validation=validation)

    def standardised(self) -> Data:
        """The same images, seen with mean 0 and variance 1 in each channel of the training images."""
        if self.train.on_disk:  # it has been made so
            return self
        mean, std = self.train.moments()
        own = {"mean": mean, "std": std}
        splits = {name: replace(getattr(self, name), **own) for name in ("train", "test")}
        aside = self.validation and replace(self.validation, **own)
        return replace(self, **splits, validation=aside, fingerprint=fingerprint(*splits.values()))


def load(name: str, device: str | torch.device = "cpu") -> Data:
    """The data set `name`, checked, on `device`; fetched and decoded first where that has not been done.

    Raises UsageError for an unknown name, LthError for data that are damaged or neither found nor fetched. What is
    noteworthy in an image folder is told in a warning, when it is decoded.
    """
    if name == "digits":
        find(name)  # refuses images of the user's own by that name
        train, test = _digits()
        names = tuple(map(str, range(10)))
        return Data(name, train, test, 10, fingerprint(train, test), names).to(device)
    path = _decoded(name)
    if path.name.endswith(MAPPED):
        train, test, names, known = mapped.read(path)
        return Data(stem(name), train, test, len(names), known, names).to(device)
    with _opened(path) as file:
        meta = file.metadata()
        train, test = (
            Split(file.get_tensor(f"{split}.images"), file.get_tensor(f"{split}.labels")) for split in ("train", "test")
        )
        if fingerprint(train, test) != meta["fingerprint"]:
            raise ValueError("its content is not what was written")
        names = tuple(json.loads(meta["names"]))
    return Data(stem(name), train, test, len(names), meta["fingerprint"], names).to(device)


def available(name: str) -> None:
    """Makes sure that `load(name)` will find its data, fetching and decoding them now if need be.

    Raises what `load` would raise, so that a command can call it before any work starts, and warns of what is
    noteworthy in an image folder each time.
    """
    if name == "digits":
        find(name)
        return
    path = _decoded(name)
    if path.name.endswith(MAPPED):
        _tell(name, mapped.remarks(path))
        return
    with _opened(path) as file:
        remarks = json.loads(file.metadata()["remarks"])
    _tell(name, remarks)


def _tell(name: str, remarks: Sequence[str]) -> None:
    for remark in remarks:
        warnings.warn(f"{stem(name)}: {remark}", stacklevel=1)  # from here: once, however often it is called


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    """A kept file; whichever way it is damaged, the way out is the same."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except Exception as error:
        raise LthError(f"{path} is damaged ({error}): delete it and run the same command again") from error


def _decoded(name: str) -> Path:
    """The safetensors file that holds data set `name`; made where there is none yet, or one of another format.

    A mapped file is one already.
    """
    source = find(name)
    if source is None:
        for folder in (home(), cache()):
            if _kept(folder / f"{name}.safetensors"):
                return folder / f"{name}.safetensors"
        path = writable(home(), cache()) / f"{name}.safetensors"
        train, test, names = official.read(name, home(), scratch=path.parent)
        _save(path, Split(*train), Split(*test), names, [])
        return path
    if source.name.endswith(MAPPED):
        return source
    found = image_folder.listing(source) if source.is_dir() else [("", source.stat())]
    # a folder is there or not: its own time changes with every hidden file
    files = [(path, *(() if path.endswith("/") else (at.st_size, at.st_mtime_ns))) for path, at in found]
    state = hashlib.sha256(repr((str(source.resolve()), files)).encode()).hexdigest()[:16]
    readable = os.fsencode(stem(name)).decode(errors="replace")  # a folder's name may hold bytes that are no text
    path = writable(cache(), home()) / f"{readable}-{state}.safetensors"
    if not _kept(path):
        train, test, names, remarks = image_folder.read(source)
        _save(path, Split(*train), Split(*test), names, remarks)
        _tell(name, remarks)
    return path


def _kept(path: Path) -> bool:
    """Whether there is a file of this format."""
    if not path.is_file():
        return False
    with _opened(path) as file:
        return (file.metadata() or {}).get("format") == FORMAT


@functools.lru_cache(maxsize=4)  # by identity: images do not change under a data set
def verify(data: Data) -> None:
    """UsageError where images were exchanged (`dataclasses.replace`) under a fingerprint that is that of others.

    A fingerprint that is no sha256, as a test's, is taken as it is, and so is that of a file, which `lth data` checks.
    """
    if data.train.on_disk:
        return
    if len(data.fingerprint) == 64 and fingerprint(data.train, data.test) != data.fingerprint:
        raise UsageError(
            f"the images of {data.name} are not those of its fingerprint, by which runs are named: give the changed "
            "data theirs, replace(data, fingerprint=lth.data.fingerprint(data.train, data.test))"
        )


def _save(path: Path, train: Split, test: Split, names: Sequence[str], remarks: Sequence[str]) -> None:
    """Writes both splits whole or not at all."""
    tensors = {"train.images": train.images, "train.labels": train.labels}
    tensors |= {"test.images": test.images, "test.labels": test.labels}
    meta = {"format": FORMAT, "names": json.dumps(names), "remarks": json.dumps(remarks)}
    meta["fingerprint"] = fingerprint(train, test)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(save(tensors, meta))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise LthError(f"cannot write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _digits() -> tuple[Split, Split]:
    """scikit-learn's 1,797 digits, values 0..16 at 8×8, made 28×28; a fifth of each class is for testing."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)
    images = torch.nn.functional.interpolate(small, size=(28, 28), mode="bilinear").round().to(torch.uint8)
    labels = torch.from_numpy(digits.target).long()
    testing = torch.zeros(len(labels), dtype=torch.bool)
    testing[_by_class(digits.target, np.random.default_rng(0))[::5]] = True
    return Split(images[~testing], labels[~testing]), Split(images[testing], labels[testing])


def _by_class(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The places of all labels, class after class, in random order within each."""
    shuffled = generator.permutation(len(labels))
    return shuffled[np.argsort(labels[shuffled], kind="stable")]
