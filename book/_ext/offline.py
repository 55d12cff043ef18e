"""Fail the build if a finished page would load anything from the network: it reads the same without.

Links a reader may follow are fine; scripts, styles, images, frames and fonts from another host are not.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

TAG = re.compile(r"<(?:script|link|img|iframe|source|video|audio|embed|object)\b[^>]*>", re.IGNORECASE)
REMOTE = re.compile(r"""\b(?:src|href|data)\s*=\s*["']?((?:https?:)?//[^"'\s>]+)""", re.IGNORECASE)
CANONICAL = re.compile(r"""\brel\s*=\s*["']?canonical""", re.IGNORECASE)
IN_CSS = re.compile(r"""(?:@import\s+|url\()\s*(?:url\()?["']?((?:https?:)?//[^"'\s)]+)""", re.IGNORECASE)


def remote_loads(text: str, css: bool = False) -> list[str]:
    """The addresses that a browser would fetch from another host on opening this page (or style sheet)."""
    if css:
        return IN_CSS.findall(text)
    tags = (tag for tag in TAG.findall(text) if not CANONICAL.search(tag))
    return [match[1] for tag in tags if (match := REMOTE.search(tag))]


def check(app: Sphinx, exception: Exception | None) -> None:
    """Raise ExtensionError that names every page and the addresses it would load."""
    if exception is not None or app.builder.format != "html":
        return
    found = []
    for path in sorted(Path(app.outdir).rglob("*")):
        if path.suffix in {".html", ".css"}:
            loads = remote_loads(path.read_text(encoding="utf-8"), css=path.suffix == ".css")
            found += [f"{path.relative_to(app.outdir)} loads {address}" for address in loads]
    if found:
        raise ExtensionError("the book must work with no network, but " + "; ".join(found))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
