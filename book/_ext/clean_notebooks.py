"""The notebook that the download button of a page gives: as it was written, without what an execution left in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx


def clean(notebook: dict[str, Any]) -> dict[str, Any]:
    """Without outputs, counts, the parameters that papermill put in, and its notes."""

    def bare(told: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in told.items() if name not in ("papermill", "execution")}

    cells = []
    for cell in notebook["cells"]:
        if "injected-parameters" not in cell["metadata"].get("tags", ()):
            empty = {"execution_count": None, "outputs": []} if cell["cell_type"] == "code" else {}
            cells.append(cell | empty | {"metadata": bare(cell["metadata"])})
    return notebook | {"cells": cells, "metadata": bare(notebook["metadata"])}


def clean_all(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        for path in Path(app.outdir, "_sources").rglob("*.ipynb"):
            notebook = clean(json.loads(path.read_text(encoding="utf-8")))
            path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", clean_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
