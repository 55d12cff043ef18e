"""The files of a tar archive, read in memory: nothing is written to the disk, whatever the archive says."""

from __future__ import annotations

import lzma
import posixpath
import tarfile
import zlib
from pathlib import Path
from typing import BinaryIO

from lth.errors import LthError

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.xz")


def members(source: Path) -> dict[str, bytes | None]:
    """Content of every file in the archive, by its path; None for a symbolic link. Folders end in «/».

    What comes later in the archive takes the place of what came before, as in unpacking. A path means a place
    inside the archive: /pets/train and ../pets/train are pets/train. A hard link has the content it points to.
    Raises LthError where the archive cannot be read, is damaged, or ends before its end.
    """
    found: dict[str, bytes | None] = {}
    try:
        with source.open("rb") as file:
            try:
                _fill(found, file)
            except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
                raise LthError(f"{source} is damaged ({error}): fetch it again") from error
    except OSError as error:
        raise LthError(f"{source} cannot be read: {error.strerror}") from error
    return found


def _fill(found: dict[str, bytes | None], file: BinaryIO) -> None:
    with tarfile.open(fileobj=file) as archive:
        for member in archive:
            path = _inside(member.name)
            if member.isdir():
                found[f"{path}/"] = b""
            elif member.islnk():
                if (target := _inside(member.linkname)) not in found:
                    raise tarfile.ReadError(f"{path} is a hard link to {target}, which is not in it")
                found[path] = found[target]
            elif member.isfile():
                found[path] = archive.extractfile(member).read()
            elif member.issym():
                found[path] = None
        # tarfile takes a header it cannot read for the end; the true end is a block of zeros
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("its end is missing")


def _inside(path: str) -> str:
    """The path with its way from the top of the archive made plain: no «.», no «..», no «/» before it."""
    return posixpath.normpath(f"/{path}").lstrip("/")
