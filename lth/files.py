"""Where things are kept, and files that are there whole or not at all. Imports nothing heavy."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lth.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]  # the checkout: notebooks, book, _config.yml
FOLDERS = ("LTH_STORE", "LTH_DATA", "XDG_CACHE_HOME")  # what the environment may name
ABANDONED = 86_400.0  # seconds after which what nobody has touched was left by a process that died


def absolute(path: str | Path) -> Path:
    """A path as a user gives it, from the root on and with ~ expanded: a notebook runs in another folder than its user.

    UsageError for an empty one, and for the home of a user that does not exist.
    """
    if not str(path):
        raise UsageError("a path is empty: name a folder, or leave it out")
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:  # no such user
        raise UsageError(f"{path}: {error}") from error


def data_set(name: str) -> str:
    """The name of a data set; where it is a path, that of a folder or archive, made absolute."""
    return str(absolute(name)) if os.sep in name else name


def shown(name: str) -> str:
    """What a page calls a data set: its name, not the folders before it; a byte that is no text is a �."""
    return os.fsencode(Path(name).name).decode(errors="replace") if not name.isprintable() else Path(name).name


def settle_environment() -> None:
    """Makes the folders that the environment names absolute, and forgets those that it leaves empty."""
    for name in FOLDERS:
        if folder := os.environ.pop(name, ""):
            os.environ[name] = str(absolute(folder))


def default_root() -> Path:
    """`LTH_STORE` where it is set, else `.lth/store` in the checkout."""
    return Path(os.environ.get("LTH_STORE") or ROOT / ".lth" / "store")


def write_text(path: Path, text: str) -> None:
    """A text file in UTF-8, synced, then renamed into place: whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """A file, synced, then renamed into place: whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def file_name(device: str) -> str:
    """A short name of the machine: «CPU: Intel(R) Xeon(R), 2 cores» → cpu-intel-xeon-2-cores.json"""
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", device.lower())).strip("-") + ".json"


def seconds(text: str) -> float:
    """«9m», «90s», «1h30m», «120» (seconds) in seconds."""
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text)
    if not match or not text:
        raise UsageError(f"--time-limit {text}: write for example 90s, 9m or 1h30m")
    hours, minutes, rest = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + rest
