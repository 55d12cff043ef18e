"""Images that fit no memory: decoded once into a file, which is mapped into memory and read where it is needed.

The file is a safetensors file like any other, sized before the first image is decoded; all images have one size and
three channels. Several processes decode; which blocks of images are on the disk is noted, so that the same command
goes on after whatever stopped it. Last of all the checksum is written, then the file gets its name.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps
from safetensors import safe_open

from lth.data import image_folder, layout, picture
from lth.data.sources import MAPPED, home, stem, writable
from lth.data.split import Split, fingerprint
from lth.errors import LthError, UsageError

FORMAT = "images 1"  # of the file; raise it when decoding changes
BLOCK = 256  # images that are written, and noted, together
UNKNOWN = "0" * 64  # in the place of the checksum until it is known


class Sheet(NamedTuple):
    """What a file will hold: its header, where each tensor begins, how many bytes it has in all."""

    header: bytes
    begins: dict[str, int]
    size: int


def decode(name: str, folder: Path, side: int, watch: Callable[[str], None] = lambda told: None) -> Path:
    """Makes NAME.map.safetensors under LTH_DATA of the image folder `folder`, unless it is there; returns its path.

    Each image is scaled until its shorter side is `side` pixels long, and the square in its middle is kept. Networks
    see seven eighths of that, 224 of 256 pixels, standardised. watch: is told how large it is, and how far.
    Raises UsageError where a file of that name has other images, and where another process makes it; LthError, naming
    the file, for what is damaged, and where there is no room for it.
    """
    if not folder.is_dir():
        raise UsageError(f"--from {folder}: no such folder; an archive must be unpacked first")
    if not 8 <= side <= 4096:
        raise UsageError(f"--side {side}: from 8 to 4096 pixels")
    found = image_folder.listing(folder)
    train, test, remarks = layout.arrange([path for path, _ in found], folder)
    names = sorted(train)
    parts = {"train": layout.labelled(train, names), "test": layout.labelled(test, names)}
    files = [(path, at.st_size, at.st_mtime_ns) for path, at in found if not path.endswith("/")]
    state = hashlib.sha256(repr((FORMAT, side, str(folder.resolve()), files)).encode()).hexdigest()[:16]
    target = writable(home()) / f"{name}{MAPPED}"
    if target.exists():
        if _metadata(target)["state"] != state:
            raise UsageError(f"{target} has other images, or another --side: remove it, or take another name")
        return target
    told = {"format": FORMAT, "name": name, "state": state, "side": str(side), "seen": str(side * 7 // 8)}
    told |= {"names": json.dumps(names), "remarks": json.dumps(remarks), "fingerprint": UNKNOWN}
    counts = {split: len(images) for split, images in parts.items()}
    sheet = _sheet(counts, side, told)
    watch(f"{counts['train']} training and {counts['test']} test images: {sheet.size / 2**30:.2f} GiB in {target}")
    partial, noted = (target.with_name(f".{name}-{state}.{what}") for what in ("partial", "noted"))
    try:
        for old in target.parent.glob(f".{glob.escape(name)}-*.*"):  # of another state of the folder
            if old.suffix in (".partial", ".noted") and old not in (partial, noted):
                old.unlink()
        with _alone(noted) as journal:
            _lay_out(partial, sheet, parts)
            _fill(partial, sheet, folder, parts, side, journal, watch)
            _finish(partial, sheet)
            os.replace(partial, target)
            noted.unlink()
    except OSError as error:
        raise LthError(f"cannot write {target}: {error.strerror}") from error
    return target


def read(path: Path) -> tuple[Split, Split, tuple[str, ...], str]:
    """(training images, test images, class names, fingerprint) of such a file; no image is read.

    Raises LthError, saying how to mend it, where the file is cut short or is that of another data set.
    """
    told = _metadata(path)
    return *_splits(path), tuple(json.loads(told["names"])), told["fingerprint"]


def verify(path: Path) -> None:
    """Reads all of it; LthError where that is not what was written."""
    train, test, _, told = read(path)
    if fingerprint(train, test) != told:
        raise _broken(path, "its content is not what was written")


def remarks(path: Path) -> list[str]:
    """What was left out when it was made."""
    return json.loads(_metadata(path)["remarks"])


def _splits(path: Path) -> tuple[Split, Split]:
    with safe_open(path, framework="pt") as file:
        look = {"mean": file.get_tensor("mean"), "std": file.get_tensor("std"), "seen": int(file.metadata()["seen"])}
        return tuple(
            Split(file.get_tensor(f"{split}.images"), file.get_tensor(f"{split}.labels"), **look, on_disk=True)
            for split in ("train", "test")
        )


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
    except Exception as error:  # cut short, or something else altogether
        raise _broken(path, str(error)) from error
    if told.get("format") != FORMAT or told["fingerprint"] == UNKNOWN:
        raise _broken(path, "it is not such a file, or one of another version")
    if told["name"] != stem(path.name):
        raise LthError(f"{path} holds the data set {told['name']}: give it that name again, or decode yours")
    return told


def _broken(path: Path, why: str) -> LthError:
    again = f"`lth data {stem(path.name)} --from FOLDER` makes it again"
    return LthError(f"{path} is damaged ({why}): remove it, then {again}")


# --- making it ------------------------------------------------------------------------------------------


def _sheet(counts: dict[str, int], side: int, told: dict[str, str]) -> Sheet:
    kinds: dict[str, tuple[str, list[int], int]] = {
        f"{split}.labels": ("I64", [count], 8 * count) for split, count in counts.items()
    }
    kinds |= {"mean": ("F32", [3], 12), "std": ("F32", [3], 12)}  # before the images, so that all numbers are aligned
    for split, count in counts.items():
        kinds[f"{split}.images"] = ("U8", [count, 3, side, side], count * 3 * side**2)
    entries, end = {}, 0
    for name, (dtype, shape, size) in kinds.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps({"__metadata__": told} | entries).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    begins = {name: len(header) + entry["data_offsets"][0] for name, entry in entries.items()}
    return Sheet(header, begins, len(header) + end)


@contextlib.contextmanager
def _alone(noted: Path) -> Iterator[int]:
    """The journal, one byte for each block, held by this process alone."""
    journal = os.open(noted, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another process is making {noted.stem}: wait for it") from None
        yield journal
    finally:
        os.close(journal)


def _lay_out(partial: Path, sheet: Sheet, parts: dict[str, list[tuple[int, str]]]) -> None:
    """Header and labels, and room for all images."""
    held = partial.stat().st_blocks * 512 if partial.exists() else 0
    free = shutil.disk_usage(partial.parent).free
    if sheet.size - held > free:
        raise LthError(
            f"{partial.parent} has {free / 2**30:.2f} GiB left, {(sheet.size - held) / 2**30:.2f} are needed: "
            "point LTH_DATA to another disk, or take a smaller --side"
        )
    file = os.open(partial, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.truncate(file, sheet.size)
        os.pwrite(file, sheet.header, 0)
        for split, images in parts.items():
            labels = np.array([label for label, _ in images], np.int64)
            os.pwrite(file, labels.tobytes(), sheet.begins[f"{split}.labels"])
    finally:
        os.close(file)


def _fill(
    partial: Path,
    sheet: Sheet,
    folder: Path,
    parts: dict[str, list[tuple[int, str]]],
    side: int,
    journal: int,
    watch: Callable[[str], None],
) -> None:
    """Decodes what is not noted yet, on all cores."""
    blocks = []
    for split, images in parts.items():
        for at in range(0, len(images), BLOCK):
            begin, paths = sheet.begins[f"{split}.images"] + at * 3 * side**2, [p for _, p in images[at : at + BLOCK]]
            blocks.append((partial, begin, folder, paths, side))
    known = os.pread(journal, len(blocks), 0).ljust(len(blocks), b"\0")
    missing = [number for number in range(len(blocks)) if not known[number]]
    done = len(blocks) - len(missing)
    for number in _each(missing, blocks):
        os.pwrite(journal, b"\1", number)
        done += 1
        if done * 20 // len(blocks) > (done - 1) * 20 // len(blocks):
            watch(f"{100 * done // len(blocks)} %")


def _each(missing: Sequence[int], blocks: Sequence[tuple[Any, ...]]) -> Iterator[int]:
    """The numbers of blocks, each as soon as it is written."""
    processes = min(len(os.sched_getaffinity(0)), len(missing))
    if processes < 2:
        for number in missing:
            _write(*blocks[number])
            yield number
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, initializer=_leave_with_parent) as pool:
        try:
            running = {pool.submit(_write, *blocks[number]): number for number in missing}
            for future in as_completed(running):
                future.result()
                yield running[future]
        except BrokenProcessPool as error:
            raise LthError("a process that decodes was killed: the same command goes on from there") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _leave_with_parent() -> None:
    """Lets a process that decodes end with the one that started it, however that ends."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _write(partial: Path, begin: int, folder: Path, paths: Sequence[str], side: int) -> None:
    """Decodes a block of images to its place in the file; when it returns they are on the disk."""
    data, written = memoryview(b"".join(_square(folder, path, side).tobytes() for path in paths)), 0
    file = os.open(partial, os.O_WRONLY)
    try:
        while written < len(data):
            written += os.pwrite(file, data[written:], begin + written)
        os.fdatasync(file)
    finally:
        os.close(file)


def _square(folder: Path, path: str, side: int) -> np.ndarray:
    """One image: (3, side, side) uint8."""
    try:
        pixels, _ = picture.decode((folder / path).read_bytes())
    except Exception as error:  # each of Pillow's decoders fails in its own way
        raise LthError(f"{path} in {folder} is not a readable image: {error}") from error
    fitted = ImageOps.fit(Image.fromarray(pixels).convert("RGB"), (side, side), Image.Resampling.BILINEAR)
    return np.asarray(fitted).transpose(2, 0, 1)


def _finish(partial: Path, sheet: Sheet) -> None:
    """Mean and standard deviation of each channel, and the checksum."""
    file = os.open(partial, os.O_RDWR)
    try:
        for name, values in zip(("mean", "std"), _splits(partial)[0].moments(), strict=True):
            os.pwrite(file, values.numpy().tobytes(), sheet.begins[name])
        os.pwrite(file, fingerprint(*_splits(partial)).encode(), sheet.header.index(UNKNOWN.encode()))
        os.fsync(file)
    finally:
        os.close(file)
