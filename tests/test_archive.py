"""lth.data.archive against archives written member by member."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
from pathlib import Path

import pytest

from lth.data import archive
from lth.errors import LthError

FILE, FOLDER, HARD, SYMBOLIC = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE


def write(path: Path, *members: tuple[str, bytes, bytes | str], mode: str = "w") -> Path:
    """An archive of (path, type, content or target)."""
    with tarfile.open(path, mode) as tar:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if isinstance(content, str):
                info.linkname, content = content, b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_folders_and_files_by_their_paths(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", ("pets", FOLDER, b""), ("pets/1.png", FILE, b"one"), ("pets/l", SYMBOLIC, "1.png"))
    assert archive.members(path) == {"pets/": b"", "pets/1.png": b"one", "pets/l": None}


def test_hard_links_have_the_content_they_had_when_made(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", ("./a", FILE, b"old"), ("b", HARD, "a"), ("c", HARD, "./b"), ("a", FILE, b"new"))
    assert archive.members(path) == {"a": b"new", "b": b"old", "c": b"old"}
    write(tmp_path / "b.tar", ("b", HARD, "a"))
    with pytest.raises(LthError, match=r"b\.tar is damaged \(b is a hard link to a, which is not in it"):
        archive.members(tmp_path / "b.tar")


def test_the_later_of_two_members_wins(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", ("a", FILE, b"old"), ("link", SYMBOLIC, "a"))
    write(path, ("a", FILE, b"new"), ("link", FILE, b"no longer"), mode="a")
    assert archive.members(path) == {"a": b"new", "link": b"no longer"}


@pytest.mark.parametrize("before", ["/", "../", "./../../", "//"])
def test_paths_stay_inside_and_nothing_is_written(tmp_path: Path, before: str) -> None:
    path = write(tmp_path / "a.tar", (f"{before}pets/1", FILE, b"one"), (f"{before}pets/2", HARD, f"{before}pets/1"))
    assert archive.members(path) == {"pets/1": b"one", "pets/2": b"one"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("packed", [bytes, gzip.compress, lzma.compress])
@pytest.mark.parametrize("harm", ["header", "end"])
def test_an_archive_that_stops_early_is_damaged(tmp_path: Path, packed, harm: str) -> None:
    whole = write(tmp_path / "whole.tar", *((str(i), FILE, b"content") for i in range(3))).read_bytes()
    # each member is a header and one block; tarfile would take either fault for the end
    content = whole[:2048] if harm == "end" else whole[:2100] + b"\xff" + whole[2101:]
    (tmp_path / "harmed.tar").write_bytes(packed(content))
    with pytest.raises(LthError, match=r"harmed\.tar is damaged \(its end is missing\): fetch it again"):
        archive.members(tmp_path / "harmed.tar")


def test_an_archive_that_is_away_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LthError, match=r"away\.tar cannot be read: No such file"):
        archive.members(tmp_path / "away.tar")
