"""Where things are kept, and files that are there whole or not at all. Imports nothing heavy."""

from __future__ import annotations

import os
from pathlib import Path

from lth.book import ROOT


def default_root() -> Path:
    """`LTH_STORE` where it is set, else `.lth/store` in the checkout."""
    return Path(os.environ.get("LTH_STORE", ROOT / ".lth" / "store"))


def write_text(path: Path, text: str) -> None:
    """A text file, synced, then renamed into place: whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with open(partial, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
