"""What the name of a data set means, and where its files are: no name means two things."""

from __future__ import annotations

import contextlib
import difflib
import os
import tempfile
from pathlib import Path

from lth.data.archive import ENDINGS
from lth.data.official import SETS
from lth.errors import LthError, UsageError

KNOWN = ("digits", *SETS)
MAPPED = ".map.safetensors"  # how files end that are made by `lth.data.mapped`


def find(name: str) -> Path | None:
    """The user's directory, archive or mapped file that `name` means; None for a data set that lth knows, `KNOWN`.

    `name` is a path, or something in `home()`, with or without its ending; a mapped file comes before the folder that
    it was made of.
    Raises UsageError where there is nothing by that name, and for images of the user's own, by path or in
    `home()`, that have the name of a known data set.
    """
    if stem(name) in ("", ".."):  # "." has no stem
        raise UsageError(f"'{name}' is no name of a data set: write the path with its folder's own name, as in ../pets")
    if name in KNOWN:
        own = _at_home(name)
        if own and (own.is_file() or (own / "train").is_dir() or any(own.glob("*/train"))):
            raise _taken(own)
        return None
    if os.sep in name:
        found = _source(Path(name).expanduser())
        if found is None:
            raise UsageError(f"no image folder and no archive ({', '.join(ENDINGS)}) at {name}")
    elif (found := _at_home(name)) is None:
        here = [stem(path.name) for path in home().glob("*") if _source(path)]
        near = difflib.get_close_matches(name, [*KNOWN, *here], n=1, cutoff=0.5)
        raise UsageError(
            f"unknown data set '{name}'{f' (did you mean {near[0]}?)' if near else ''}; "
            f"known: {', '.join(KNOWN)}, and image folders or archives under {home()} (LTH_DATA)"
        )
    if stem(name) in KNOWN:
        raise _taken(found)
    return found


def stem(name: str) -> str:
    """The name without the folders before it and the ending of an archive or mapped file behind it."""
    name = Path(os.path.abspath(Path(name).expanduser()) if os.sep in name else name).name
    return next((name.removesuffix(end) for end in (MAPPED, *ENDINGS) if name.endswith(end)), name)


def home() -> Path:
    """The folder data sets are looked for in: LTH_DATA, else lth/data in the user's cache."""
    return Path(os.environ.get("LTH_DATA") or cache()).expanduser()


def cache() -> Path:
    """lth/data in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lth" / "data"


def writable(*folders: Path) -> Path:
    """The first of the folders that can be written to; LthError where none can."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
    raise LthError(f"cannot write to {' or '.join(map(str, folders))}: point LTH_DATA elsewhere")


def _source(path: Path) -> Path | None:
    """The path, if it is a directory or, by its ending, an archive or a mapped file."""
    return path if path.is_dir() or (path.is_file() and path.name.endswith((MAPPED, *ENDINGS))) else None


def _at_home(name: str) -> Path | None:
    return next(filter(None, (_source(home() / (name + ending)) for ending in (MAPPED, "", *ENDINGS))), None)


def _taken(own: Path) -> UsageError:
    return UsageError(f"{own} has the name of a data set that lth knows: rename it, or link to it by another name")
