"""Data sets: uint8 images and labels as two tensors each, in the memory of one device.

`digits` comes with scikit-learn; `mnist`, `fashion_mnist`, `cifar10` and `cifar100` come through torchvision
(`lth.official`); any other name is an image folder or archive (`lth.image_folder`). Files are looked for in
the folder LTH_DATA, or lth/data in the user's cache where that is not set. What was decoded once is kept
as one safetensors file and read from there ever after.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from lth import image_folder, official
from lth.errors import LthError, UsageError


@dataclass(frozen=True, eq=False)
class Split:
    """N images with their labels: `images` uint8 (N, C, H, W), `labels` int64 (N,).

    mean, std: of the brightness of each channel, (C,), by which networks see the images standardised; None: as it is.
    """

    images: Tensor
    labels: Tensor
    mean: Tensor | None = None
    std: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, index: Tensor) -> Tensor:
        """Images `index` (int64, any shape) as a network sees them: float32, index.shape + (C, H, W)."""
        rows = self.images.index_select(0, index.reshape(-1))  # gathered as bytes: a quarter of the traffic
        return self.scaled(rows).view(*index.shape, *self.images.shape[1:])

    def scaled(self, images: Tensor) -> Tensor:
        """Bytes of images as a network sees them: float32, brightness in [0, 1], standardised where that is asked."""
        seen = images.float().div_(255)
        if self.mean is None:
            return seen
        return seen.sub_(self.mean.view(-1, 1, 1)).div_(self.std.view(-1, 1, 1))

    def take(self, rows: Tensor | Sequence[int]) -> Split:
        """Some of the images."""
        rows = torch.as_tensor(rows, device=self.labels.device)
        return replace(self, images=self.images[rows], labels=self.labels[rows])

    def evenly(self, count: int, first: bool = False) -> Split:
        """`count` of the images, at most all, spread evenly: of data sorted by class they show each class.

        They begin half a step behind the first image, or with it. So there are two such blocks that have no image in
        common, where half of the images are enough for both.
        """
        count = min(count, len(self))
        places = 2 * torch.arange(count, device=self.labels.device) + (not first)
        rows = places * len(self) // (2 * count)
        return self.take(rows)

    def pieces(self, most: int) -> tuple[Tensor, ...]:
        """Places 0 … N−1, cut into the fewest pieces of at most `most`, of the same size give or take one.

        No piece is a leftover of one image, for which batch norm has no variance.
        """
        return torch.arange(len(self), device=self.labels.device).tensor_split(-(-len(self) // most))

    def to(self, device: str | torch.device) -> Split:
        move = lambda tensor: None if tensor is None else tensor.to(device)  # noqa: E731
        return Split(*map(move, (self.images, self.labels, self.mean, self.std)))


@dataclass(frozen=True, eq=False)
class Data:
    """A data set. `fingerprint` is the sha256 (hex) of the bytes and shapes of the training and test images."""

    name: str
    train: Split
    test: Split
    classes: int
    fingerprint: str
    validation: Split | None = None  # training images that were put aside

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return tuple(self.train.images.shape[1:])

    def to(self, device: str | torch.device) -> Data:
        aside = self.validation and self.validation.to(device)
        return Data(self.name, self.train.to(device), self.test.to(device), self.classes, self.fingerprint, aside)

    def hold_out(self, share: float = 0.1, seed: int = 0) -> Data:
        """The same data with a random `share` of the training images put aside for validation."""
        count = round(share * len(self.train))
        if not 0 < count < len(self.train):
            raise UsageError(f"a share of {share:g} puts {count} of {len(self.train)} training images aside")
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(self.train))).to(self.train.labels.device)
        aside, rest = order[:count].sort().values, order[count:].sort().values
        train, validation = self.train.take(rest), self.train.take(aside)
        fingerprint = _fingerprint(train.to("cpu"), self.test.to("cpu"))
        return Data(self.name, train, self.test, self.classes, fingerprint, validation)

    def standardised(self) -> Data:
        """The same images, seen with mean 0 and variance 1 in each channel of the training images."""
        values = torch.arange(256, dtype=torch.float64) / 255
        channels = self.train.images.transpose(0, 1).flatten(1).cpu()
        shares = torch.stack([torch.bincount(c, minlength=256).double() / c.numel() for c in channels])
        mean = shares @ values
        std = (shares @ values.square() - mean.square()).clamp_min(1e-12).sqrt()
        own = {"mean": mean.float().to(self.train.images.device), "std": std.float().to(self.train.images.device)}
        splits = {name: replace(getattr(self, name), **own) for name in ("train", "test")}
        aside = self.validation and replace(self.validation, **own)
        fingerprint = _fingerprint(*(split.to("cpu") for split in splits.values()))
        return replace(self, **splits, validation=aside, fingerprint=fingerprint)


KNOWN = ("digits", *official.SETS)


def load(name: str, device: str | torch.device = "cpu") -> Data:
    """The data set `name`, checked, on `device`; fetched and decoded first where that has not been done.

    Raises UsageError for an unknown name, LthError for data that are damaged or neither found nor fetched.
    """
    if name == "digits":
        train, test = _digits()
        return Data(name, train, test, 10, _fingerprint(train, test)).to(device)
    path = _decoded(name)
    try:
        with safe_open(path, framework="pt") as file:
            meta = file.metadata()
            train, test = (
                Split(file.get_tensor(f"{split}.images"), file.get_tensor(f"{split}.labels"))
                for split in ("train", "test")
            )
        if _fingerprint(train, test) != meta["fingerprint"]:
            raise ValueError("its content is not what was written")
    except Exception as error:  # whichever way it is damaged, the way out is the same
        raise LthError(f"{path} is damaged ({error}): delete it and run the same command again") from error
    return Data(_stem(name), train, test, int(meta["classes"]), meta["fingerprint"]).to(device)


def available(name: str) -> None:
    """Makes sure that `load(name)` will find its data, fetching and decoding them now if need be.

    Raises what `load` would raise, so that a command can call it before any work starts.
    """
    if name != "digits":
        _decoded(name)


def home() -> Path:
    """The folder data sets are looked for in: LTH_DATA, else lth/data in the user's cache."""
    return Path(os.environ.get("LTH_DATA") or _cache()).expanduser()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lth" / "data"


def _writable(*folders: Path) -> Path:
    """The first of the folders that can be written to."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
    raise LthError(f"cannot write to {' or '.join(map(str, folders))}: point LTH_DATA elsewhere")


def _stem(name: str) -> str:
    """The name without the folders before it and the ending of an archive behind it."""
    name = Path(name).name
    return next((name.removesuffix(end) for end in image_folder.ARCHIVES if name.endswith(end)), name)


def _decoded(name: str) -> Path:
    """The safetensors file that holds data set `name`; made where there is none yet."""
    if name in official.SETS:
        for folder in (home(), _cache()):
            if (folder / f"{name}.safetensors").is_file():
                return folder / f"{name}.safetensors"
        path = _writable(home(), _cache()) / f"{name}.safetensors"
        train, test, classes = official.read(name, home(), scratch=path.parent)
        _save(path, Split(*train), Split(*test), classes)
    else:
        source = _image_source(name)
        files = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
        listing = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
        state = hashlib.sha256(repr(listing).encode()).hexdigest()[:16]
        path = _writable(_cache(), home()) / f"{_stem(name)}-{state}.safetensors"
        if not path.is_file():
            train, test, classes = image_folder.read(source)
            _save(path, Split(*train), Split(*test), classes)
    return path


def _image_source(name: str) -> Path:
    """The directory or archive `name` means: a path, or something in `home()`, with or without its ending."""
    endings = image_folder.ARCHIVES
    is_path = os.sep in name
    for path in [Path(name).expanduser()] if is_path else [home() / (name + end) for end in ("", *endings)]:
        if path.is_dir() or (path.is_file() and path.name.endswith(endings)):
            return path
    if is_path:
        raise UsageError(f"no image folder and no archive ({', '.join(endings)}) at {name}")
    here = [_stem(path.name) for path in home().glob("*") if path.is_dir() or path.name.endswith(endings)]
    near = difflib.get_close_matches(name, [*KNOWN, *here], n=1, cutoff=0.5)
    raise UsageError(
        f"unknown data set '{name}'{f' (did you mean {near[0]}?)' if near else ''}; "
        f"known: {', '.join(KNOWN)}, and image folders or archives under {home()} (LTH_DATA)"
    )


def _fingerprint(train: Split, test: Split) -> str:
    digest = hashlib.sha256()
    for tensor in (train.images, train.labels, test.images, test.labels):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy())
    for tensor in (train.mean, train.std):
        if tensor is not None:
            digest.update(tensor.numpy())
    return digest.hexdigest()


def _save(path: Path, train: Split, test: Split, classes: int) -> None:
    """Writes both splits whole or not at all."""
    tensors = {"train.images": train.images, "train.labels": train.labels}
    tensors |= {"test.images": test.images, "test.labels": test.labels}
    meta = {"classes": str(classes), "fingerprint": _fingerprint(train, test)}
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
    shuffled = np.random.default_rng(0).permutation(len(labels))
    by_class = shuffled[np.argsort(digits.target[shuffled], kind="stable")]
    testing = torch.zeros(len(labels), dtype=torch.bool)
    testing[by_class[::5]] = True
    return Split(images[~testing], labels[~testing]), Split(images[testing], labels[testing])
