"""Which images belong to which class of which split, from the paths of an image folder alone."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from lth.data import picture
from lth.errors import LthError

SPLITS = ("train", "test", "val")
TOOLS = ("__MACOSX", "__pycache__", "@eaDir", "lost+found")  # left behind by archivers, Python, storage, file systems
ENDINGS = ", ".join(picture.ENDINGS)
Classes = dict[str, list[str]]  # the paths of the images of each class, by its name


def matters(path: str) -> bool:
    """Whether a file or folder is looked at: neither it nor what it lies in is hidden or a tool's, and it lies in a
    split, or so high up that a split may lie in it."""
    parts = path.split("/")
    if any(part.startswith(".") or part in TOOLS for part in parts):
        return False
    return len(parts) == 1 or not {*parts[:2]}.isdisjoint(SPLITS)


def arrange(paths: Sequence[str], source: object) -> tuple[Classes, Classes, list[str]]:
    """(training images, test images, remarks on what was left out) from paths inside `source`; folders end in «/».

    Two spellings of a class name that Unicode holds to be the same (NFC, NFD) are one class. Where no folder in
    test/ has the name of a training class, its images have no labels, and val/ takes its place.
    Raises LthError where a split is missing, a class is empty or in test only, and for fewer than two classes.
    """
    root = _root(paths, source)
    splits: dict[str, Classes] = {split: {} for split in SPLITS}
    loose: list[str] = []  # images in no class
    foreign: list[str] = []  # files in a class that are no images by their ending
    for path in sorted(path for path in paths if path.startswith(root)):
        split, *inner = path.removeprefix(root).rstrip("/").split("/")
        if split not in SPLITS or not inner:
            continue
        is_image = path.lower().endswith(picture.ENDINGS)
        if len(inner) > 1 or path.endswith("/"):
            images = splits[split].setdefault(unicodedata.normalize("NFC", inner[0]), [])
            if not path.endswith("/"):
                (images if is_image else foreign).append(path)
        elif is_image:
            loose.append(path)
    train, test, val = splits.values()
    remarks = []
    used = "test/"
    if val and not test.keys() & train.keys():
        if test or any(path.startswith(f"{root}test/") for path in paths):
            remarks.append("test/ has no folder of a training class: val/ is used for testing")
        test, used = val, "val/"
    elif val:
        remarks.append("val/ is left out: test/ is used for testing")
    _check(train, test, used, source)
    if unmeasured := sorted(train.keys() - test.keys()):
        remarks.append(f"{used} has no images of {', '.join(unmeasured)}")
    here = (f"{root}train/", root + used)
    if files := [path for path in loose if path.startswith(here)]:
        remarks.append(f"{some(files)} in no class folder: left out")
    if files := [path for path in foreign if path.startswith(here)]:
        remarks.append(f"{some(files)} not ending in {ENDINGS}: left out")
    return train, test, remarks


def labelled(classes: Classes, names: Sequence[str]) -> list[tuple[int, str]]:
    """(label, path) of all images, class by class: a label is the place of its class among `names`."""
    return [(label, path) for label, name in enumerate(names) for path in classes.get(name, ())]


def some(files: Sequence[str]) -> str:
    """«train/cat/1.txt», or, where there are more, «3 files (train/cat/1.txt first)»"""
    return files[0] if len(files) == 1 else f"{len(files)} files ({files[0]} first)"


def _root(paths: Sequence[str], source: object) -> str:
    """The folder that holds train/: "" for the source itself, else a folder in it, with its «/»."""
    parts = [path.split("/") for path in paths]
    if any(part[0] == "train" and len(part) > 1 for part in parts):
        return ""
    roots = sorted({part[0] for part in parts if len(part) > 2 and part[1] == "train"})
    if not roots:
        raise LthError(f"{source} holds no images in train/<class>/")
    if len(roots) > 1:
        raise LthError(f"{source} holds several data sets ({', '.join(roots)}): name one of them")
    return f"{roots[0]}/"


def _check(train: Classes, test: Classes, used: str, source: object) -> None:
    if not train:
        raise LthError(f"{source} holds no images in train/<class>/")
    if not test:
        raise LthError(f"{source} holds no images in test/<class>/ (or val/<class>/)")
    for split, classes in (("train/", train), (used, test)):
        for name, images in classes.items():
            if not images:
                raise LthError(f"{split}{name} in {source} holds no images ({ENDINGS}): add some or remove the folder")
    if strange := sorted(test.keys() - train.keys()):
        raise LthError(f"{source} has test images of classes without training images: {', '.join(strange)}")
    if len(train) < 2:
        raise LthError(f"{source} has one class only, {', '.join(train)}: networks need two to tell apart")
