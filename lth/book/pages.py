"""One page without the rest of the book: a chapter as it was executed, or two executions of it side by side.

An execution is a folder that `lth run` has left: notebook, figures, data, verdicts and stamp of a chapter.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from lth.book import CHAPTERS
from lth.errors import UsageError
from lth.files import ROOT, absolute, write_text

LINK = re.compile(r"\{doc\}`(?:([^`<]*?)\s*<)?([^`<>]*)>?`")  # {doc}`words <page>` or {doc}`page`
BACK_MATTER = ("glossary", "references")  # pages that chapters refer to word by word


def execution(word: str, edition: Path) -> Path:
    """The folder of an execution: a path to it, or the name or number of a chapter.

    Of a chapter it is what `edition` holds, and the published one where that has none. UsageError where there is none.
    """
    from lth.book.runner import named
    from lth.book.site import check
    from lth.book.verdicts import PUBLISHED, stamp

    folder = absolute(word)
    if os.sep not in word and not (folder / "provenance.json").is_file():
        chapter = named(word)
        folder = next((home / chapter for home in (edition, PUBLISHED) if (home / chapter).is_dir()), edition / chapter)
    if not folder.is_dir() and os.sep in word:
        raise UsageError(f"there is no folder {folder}: name one that `lth run` has made")
    chapter = stamp(folder).get("chapter", folder.name)
    if chapter not in CHAPTERS:
        raise UsageError(f"{folder} is no execution of a chapter: name a folder that `lth run` has made")
    if folder.name != chapter:
        raise UsageError(f"{folder} is an execution of {chapter}: give the folder that name again")
    check(folder.parent, chapter, Path(CHAPTERS[chapter]).name)
    return folder


def place(folder: Path, edition: Path) -> str:
    """What the folder of a page is called: the chapter, and of an execution elsewhere which one."""
    from lth.book.verdicts import PUBLISHED

    return folder.name if folder.parent in (edition, PUBLISHED) else f"{folder.name}-{folder.parent.name}"


def show(folder: Path, out: Path) -> Path:
    """Makes the page of an execution in the folder `out`, and returns it."""
    chapter, notebook = folder.name, CHAPTERS[folder.name]

    def fill(source: Path) -> None:
        (source / "notebooks").mkdir()
        text = (folder / Path(notebook).name).read_text(encoding="utf-8")
        write_text(source / notebook, linked(text, {Path(notebook).stem, *BACK_MATTER}))
        shutil.copytree(folder / "data", source / "notebooks" / "data" / chapter)

    return _built(out, notebook.removesuffix(".ipynb"), fill)


def compare(one: Path, other: Path, out: Path) -> Path:
    """Makes the page of two executions side by side in the folder `out`, and returns it."""
    from lth.book import beside

    def fill(source: Path) -> None:
        for side, folder in zip("AB", (one, other), strict=True):
            if (folder / "figures").is_dir():
                shutil.copytree(folder / "figures", source / side)
        write_text(source / "beside.md", beside.page(one, other))

    return _built(out, "beside", fill)


def linked(text: str, here: set[str]) -> str:
    """Markdown in which only links to pages that are `here` are links; of the others the words stay."""

    def words(link: re.Match[str]) -> str:
        page = Path(link[2]).name
        return link[0] if page in here else link[1] or f"*{page}*"

    return LINK.sub(words, text)


def _built(out: Path, first: str, fill: Callable[[Path], None]) -> Path:
    """A small book in the folder `out`, whole or not at all; its first page, which `fill` makes, is returned."""
    import yaml

    from lth.book.site import replacing

    with replacing(out, f"{first}.html") as source:
        for part in ("_static", "_ext", "references.bib"):
            whole = ROOT / "book" / part
            target = source / "book" / part
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(whole, target) if whole.is_dir() else shutil.copy(whole, target)
        shutil.copy(ROOT / "_config.yml", source)
        for name in BACK_MATTER:
            text = (ROOT / "book" / f"{name}.md").read_text(encoding="utf-8")
            write_text(source / "book" / f"{name}.md", linked(text, {*BACK_MATTER}))
        toc = {"format": "jb-book", "root": first, "chapters": [{"file": f"book/{name}"} for name in BACK_MATTER]}
        write_text(source / "_toc.yml", yaml.safe_dump(toc))
        fill(source)
    return out / f"{first}.html"
