"""Networks that travel with the book: what an edition used of a store, in archives that are added and never rewritten.

    book/editions/networks/<chapter>.zip, <chapter>-2.zip, …     runs/<key>/… and measures/<key>… as in a store

A store looks there for what it does not hold itself: whoever has the book re-executes a chapter without training.
What a seed gives again is in no archive: the first weights of a network are drawn by whoever asks for it.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from uuid import uuid4

from lth.book import ROOT
from lth.errors import LthError, UsageError

SHIPPED = ROOT / "book" / "editions" / "networks"
LIMIT = 60e6  # bytes of all archives together: they are part of every clone
MOMENT = (1980, 1, 1, 0, 0, 0)  # of all files: the same networks make the same archive


@dataclass(frozen=True)
class Archives:
    """The archives in a folder, which need not be there."""

    folder: Path = SHIPPED

    @cached_property
    def files(self) -> dict[str, tuple[Path, list[str]]]:
        """What is there, by its name in a store ("runs/KEY", "measures/KEY.safetensors"): its archive, its files."""
        found: dict[str, tuple[Path, list[str]]] = {}
        for path in sorted(self.folder.glob("*.zip")):
            with self._opened(path) as archive:
                for file in archive.namelist():
                    name = "/".join(file.split("/")[:2])
                    found.setdefault(name, (path, []))[1].append(file)
        return found

    def bring(self, name: str, root: Path) -> bool:
        """Puts `name` into the store at `root`, whole or not at all; False where no archive has it."""
        if name not in self.files:
            return False
        path, files = self.files[name]
        partial = root / "partial" / uuid4().hex
        try:
            with self._opened(path) as archive:
                for file in files:
                    target = partial / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archive.read(file))
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            if not (root / name).exists():
                (partial / name).rename(root / name)
        except OSError as error:
            if not (root / name).exists():  # otherwise another process was first
                raise LthError(f"cannot write to the store: {error}. Set LTH_STORE to another folder") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return True

    def chapter(self, name: str) -> str:
        """The chapter that `name` was packed for first."""
        return self.files[name][0].stem.partition("-")[0]

    def _opened(self, path: Path) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise LthError(f"{path} is damaged ({error}): get it again with the book") from error


def used(chapter: Path) -> list[str]:
    """The names of all that an executed chapter, a folder of an edition, used of its store; UsageError if unknown."""
    try:
        return json.loads((chapter / "networks.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{chapter} does not say which networks it used: execute it again with `lth run {chapter.name}`"
        ) from error


def add(chapter: str, names: Iterable[str], root: Path, folder: Path = SHIPPED) -> tuple[Path | None, int, int]:
    """Packs what no archive in `folder` holds yet into a new one: its path, its parts and its bytes; None if nothing.

    names: of runs and measures in the store at `root`. Raises LthError where one is not there, and where all archives
    together would be larger than `LIMIT`.
    """
    new = sorted(set(names) - set(Archives(folder).files))
    if not new:
        return None, 0, 0
    numbers = [chapter, *(f"{chapter}-{n}" for n in range(2, 1000))]
    archive = next(path for name in numbers if not (path := folder / f"{name}.zip").exists())
    there = sum(file.stat().st_size for file in folder.glob("*.zip"))
    return archive, len(new), pack(new, root, archive, room=LIMIT - there)


def pack(names: Iterable[str], root: Path, archive: Path, room: float = LIMIT) -> int:
    """Writes these parts of the store at `root` into a new archive, whole or not at all; returns its size in bytes.

    Raises LthError where a part is not in the store, where the archive is there already, for it is never rewritten, and
    where it is larger than `room` bytes.
    """
    if archive.exists():
        raise LthError(f"{archive} is there already, and archives are never rewritten: name another file")
    files = []
    for name in sorted(set(names)):
        parts = [root / name] if (root / name).is_file() else sorted(p for p in (root / name).rglob("*") if p.is_file())
        if not parts:
            raise LthError(f"{name} is not in the store {root}: run the chapter first")
        files += parts
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_name(f".{archive.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
            for file in files:
                told = zipfile.ZipInfo(file.relative_to(root).as_posix(), MOMENT)
                told.compress_type = zipfile.ZIP_DEFLATED
                target.writestr(told, file.read_bytes())
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
        if (size := partial.stat().st_size) > room:
            raise LthError(
                f"{archive.name} would have {size / 1e6:.1f} MB, and there is room for {room / 1e6:.1f} MB of the "
                f"{LIMIT / 1e6:.0f} MB of all archives: leave out a chapter, or train fewer `seeds` of it"
            )
        os.replace(partial, archive)
    except OSError as error:
        raise LthError(f"cannot write {archive}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return archive.stat().st_size
