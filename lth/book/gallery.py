"""The page "Figures, theirs and ours": what of the papers stands where in the book, and all figures to look through."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from lth.book import CHAPTERS
from lth.book.came_out import PAPERS
from lth.book.claims import shown
from lth.book.drawn import picture
from lth.book.scorecard import heading, number_of
from lth.book.verdicts import home

NAMED = re.compile(r":name: (tab-[\w-]+)|<figure id=\"(film-[\w-]+)\"")


def write(edition: Path, source: Path) -> None:
    """Puts the page, and the figures on it, where the book is staged."""
    for chapter in CHAPTERS:
        folder = source / "book" / "gallery" / chapter
        folder.mkdir(parents=True)
        for figure in (home(edition, chapter) / chapter / "figures").glob("*.png"):
            shutil.copy(figure, folder)
    (source / "book" / "figures.md").write_text(page(edition), encoding="utf-8")


def page(edition: Path) -> str:
    """The page, as Markdown."""
    places = where(edition)
    lines = [
        "# Figures, theirs and ours",
        "",
        "Where each figure and table of the papers is repeated, and all figures of ours. A number leads to where it is "
        "explained.",
        "",
    ]
    for letter, paper in PAPERS.items():
        lines += [f"## {paper.name}", "", "| the paper's | ours | |", "|---|---|---|"]
        for line in (line for line in shown() if line.paper == letter):
            ours = ", ".join(places[name] for name in line.ours if name in places)
            why = line.why or ("" if ours else "not in this edition")
            lines.append(f"| {line.theirs} | {ours or '–'} | {why} |")
        lines.append("")
    theirs: dict[str, str] = {}
    for line in shown():
        for name in line.ours:
            theirs[name] = f"{theirs[name]}; {line.theirs}" if name in theirs else f"{line.paper}, {line.theirs}"
    for chapter, notebook in CHAPTERS.items():
        cards = []
        for file, label, alt in _figures(edition, chapter):
            cards += ["```{grid-item-card}", f":link: {_address(notebook, label)}", ":link-type: url"]
            cards += [f":img-top: gallery/{chapter}/{file}", f":img-alt: {alt}", ""]
            cards += [theirs.get(label, "ours alone"), "```", ""]
        if cards:
            lines += [f"## Chapter {number_of(chapter)}: {heading(chapter)}", ""]
            lines += ["````{grid} 1 2 3 3", ":gutter: 2", "", *cards, "````", ""]
    return "\n".join(lines)


def where(edition: Path) -> dict[str, str]:
    """The name of each figure, table and film of the book → a link to it, with its number where it has one."""
    places = {}
    for chapter, notebook in CHAPTERS.items():
        for cell in _cells(edition, chapter):
            if name := cell["metadata"].get("mystnb", {}).get("figure", {}).get("name"):
                places[name] = f"{{numref}}`{name}`"
            for output in cell.get("outputs", ()):
                data = output.get("data", {})
                for table, film in NAMED.findall("".join(data.get("text/markdown", data.get("text/html", "")))):
                    places |= {table: f"{{numref}}`{table}`"} if table else {}
                    places |= {film: f'<a href="{_address(notebook, film)}">a film</a>'} if film else {}
    return places


def _figures(edition: Path, chapter: str) -> list[tuple[str, str, str]]:
    """File, label and alternative text of a chapter's figures."""
    found, folder = [], home(edition, chapter) / chapter
    for cell in _cells(edition, chapter):
        about = cell["metadata"].get("mystnb", {})
        if "figure" in about and (file := picture(cell, folder)):
            found.append((file.name, about["figure"]["name"], about.get("image", {}).get("alt", "")))
    return found


def _cells(edition: Path, chapter: str) -> list[dict]:
    file = home(edition, chapter) / chapter / Path(CHAPTERS[chapter]).name
    return json.loads(file.read_text(encoding="utf-8"))["cells"] if file.is_file() else []


def _address(notebook: str, label: str) -> str:
    return f"../{notebook.removesuffix('.ipynb')}.html#{label}"
