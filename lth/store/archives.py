"""Networks that travel with the book: what an edition used of a store, in archives that are added and never rewritten.

    book/editions/networks/<chapter>.zip, <chapter>-2.zip, …     runs/<key>/… and measures/<key>… as in a store

A store looks there for what it does not hold itself: whoever has the book re-executes a chapter without training.
What a seed gives again is in no archive: the first weights of a network are drawn by whoever asks for it. Nor are
networks in the middle of their training, but those that the chapter looks at.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from lth.errors import LthError, UsageError
from lth.files import ROOT

if TYPE_CHECKING:
    from lth.population import Population

SHIPPED = ROOT / "book" / "editions" / "networks"
LIMIT = 60e6  # bytes of all archives together: they are part of every clone
MOMENT = (1980, 1, 1, 0, 0, 0)  # of all files: the same networks make the same archive


FINAL = "final.safetensors"  # of a run: its trained weights
OLDER = dict.fromkeys(("Lottery", "LT", "LTH", "IMP"), "ticket")  # labels under which networks were packed at first


@dataclass(frozen=True)
class Archives:
    """The archives in a folder, which need not be there."""

    folder: Path = SHIPPED

    @cached_property
    def files(self) -> dict[str, dict[str, Path]]:
        """What is there, by its name in a store ("runs/KEY", "measures/KEY.safetensors"): files → their archives."""
        found: dict[str, dict[str, Path]] = {}
        for path in sorted(self.folder.glob("*.zip")):
            with self._opened(path) as archive:
                for file in archive.namelist():
                    found.setdefault("/".join(file.split("/")[:2]), {}).setdefault(file, path)
        return found

    def bring(self, name: str, root: Path) -> bool:
        """Puts `name` into the store at `root`, whole or not at all; False where no archive has it."""
        if name not in self.files:
            return False
        put(root, name, {file: self.read(file) for file in self.files[name]})
        return True

    def read(self, file: str) -> bytes:
        """The content of a file, by its name in a store."""
        with self._opened(self.files["/".join(file.split("/")[:2])][file]) as archive:
            return archive.read(file)

    def chapter(self, name: str) -> str:
        """The chapter that `name` was packed for first."""
        return next(iter(self.files[name].values())).stem.partition("-")[0]

    def _opened(self, path: Path) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise LthError(f"{path} is damaged ({error}): get it again with the book") from error


def published(chapter: str, archives: Archives | None = None, **labels: object) -> Population:
    """The trained networks that travel with a chapter: those that carry these labels, such as method="ticket".

    archives: those of the book if not given. The frame has the labels that the networks were trained under, and for how
    many `steps`, which can be asked for as well. LthError where no network of the chapter travels, UsageError where
    none has such labels or several architectures have them.
    """
    from lth.population import Population, concat

    archives, found, seen = archives or Archives(SHIPPED), [], {}
    for name in archives.files:
        whole = f"{name}/{FINAL}" in archives.files[name]
        if name.startswith("runs/") and whole and archives.chapter(name) == chapter:
            meta = json.loads(archives.read(f"{name}/meta.json"))
            row = {"steps": meta["recipe"]["steps"]}
            row |= {label: OLDER.get(value, value) for label, value in meta["replica"].items()}
            told = row | {"model": meta["model"]}
            for label, value in told.items():
                seen.setdefault(label, set()).add(value)
            if all(told.get(label) == value for label, value in labels.items()):
                found.append((name, row))
    if not seen:
        raise LthError(f"no networks of {chapter} travel with the book: `lth run {chapter}` trains some")
    if not found:
        known = "; ".join(f"{label}: {', '.join(map(str, sorted(seen.get(label, ['none']))[:9]))}" for label in labels)
        raise UsageError(f"no network of {chapter} has these labels. There are {known}")
    with tempfile.TemporaryDirectory() as folder:
        networks = []
        for name, row in sorted(found, key=lambda told: (told[1]["seed"], told[0])):
            file = Path(folder) / f"{len(networks)}.safetensors"  # which stays mapped to memory
            file.write_bytes(archives.read(f"{name}/{FINAL}"))
            networks.append(Population.load(file).label(**row))
    return concat(networks)


def put(root: Path, name: str, files: Mapping[str, bytes]) -> None:
    """Puts `name` ("runs/KEY", "measures/KEY.safetensors") into the store at `root`, whole or not at all, where it is
    not yet. files: those that it is made of, by their names in a store. LthError where it cannot be written."""
    partial = root / "partial" / uuid4().hex
    try:
        for file, content in files.items():
            target = partial / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        if name.startswith("runs/"):
            _tell_left_out(partial / name)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if without_weights(root / name) and f"{name}/{FINAL}" in files:
            shutil.rmtree(root / name)
        if not (root / name).exists():
            (partial / name).rename(root / name)
    except OSError as error:
        if not (root / name).exists():  # otherwise another process was first
            raise LthError(f"cannot write to the store: {error}. Set LTH_STORE to another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def without_weights(run: Path) -> bool:
    """Whether a run in a store came with the book, and its trained weights did not."""
    with contextlib.suppress(OSError, ValueError):  # a damaged run is told of when it is read
        if not (run / FINAL).exists():
            return FINAL in json.loads((run / "meta.json").read_text(encoding="utf-8")).get("left out", ())
    return False


def _tell_left_out(run: Path) -> None:
    """Notes in a run's meta data which weights did not travel with it, so that nobody takes them for lost."""
    meta = json.loads((run / "meta.json").read_text(encoding="utf-8"))
    gone = [name for name in meta["files"] if name.endswith(".safetensors") and not (run / name).exists()]
    if gone:
        meta["files"] = {name: told for name, told in meta["files"].items() if name not in gone}
        (run / "meta.json").write_text(json.dumps(meta | {"left out": gone}, indent=1), encoding="utf-8")


def used(chapter: Path) -> dict[str, list[int] | None]:
    """What an executed chapter, a folder of an edition, used of its store: names, and the kept steps of runs; None for
    a run of which the history was enough.

    UsageError where it does not say.
    """
    try:
        return dict(json.loads((chapter / "networks.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"{chapter} does not say which networks it used: execute it again with `lth run {chapter.name}`"
        ) from error


def add(
    chapter: str, names: Mapping[str, Iterable[int] | None], root: Path, folder: Path = SHIPPED
) -> tuple[Path | None, int, int]:
    """Packs what no archive in `folder` holds yet into a new one: its path, its parts and its bytes; None if nothing.

    names: of runs, with the kept steps that are to travel (None: not even the trained weights), and of measures in the
    store at `root`. Raises LthError where one is not there, and where all archives together would be larger than
    `LIMIT`.
    """
    held = {file for files in Archives(folder).files.values() for file in files}
    new = sorted({file for name, steps in names.items() for file in _files(root, name, steps)} - held)
    if not new:
        return None, 0, 0
    numbers = [chapter, *(f"{chapter}-{n}" for n in range(2, 1000))]
    archive = next(path for name in numbers if not (path := folder / f"{name}.zip").exists())
    there = sum(file.stat().st_size for file in folder.glob("*.zip"))
    parts = len({"/".join(file.split("/")[:2]) for file in new})
    return archive, parts, pack(new, root, archive, room=LIMIT - there)


def _files(root: Path, name: str, steps: Iterable[int] | None) -> list[str]:
    """The files of a run or a measure that are to travel; of kept steps that were the start there is none."""
    if not name.startswith("runs/"):
        return [name]
    if steps is None:
        return [f"{name}/history.csv", f"{name}/meta.json"]
    kept = [f"{name}/step_{step}.safetensors" for step in steps]
    whole = [f"{name}/{file}" for file in (FINAL, "history.csv", "meta.json")]
    return [*whole, *(file for file in kept if (root / file).exists())]


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
