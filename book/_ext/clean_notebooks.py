"""The download button of a page gives the notebook as it was written, not with all that an execution left in it."""

from __future__ import annotations

import shutil
from pathlib import Path

from sphinx.application import Sphinx

from lth.files import ROOT


def as_written(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        for download in Path(app.outdir, "_sources").rglob("*.ipynb"):
            if (written := ROOT / "notebooks" / download.name).is_file():
                shutil.copyfile(written, download)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", as_written)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
