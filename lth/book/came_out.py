"""The page "What came out": paper by paper, in plain words, made from an edition's verdicts and the chapters' notes.

The words are a chapter's own: what stands under the heading `### What came out` in book/editions/notes/<chapter>.md.
Where a note has none, the page says what is decided and what is not, and no more.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from lth.book import CHAPTERS
from lth.book.badge import badge
from lth.book.claims import Claim, ledger
from lth.book.notes import words
from lth.book.scorecard import DECIDED, counted, number_of, strip, verdict_of
from lth.book.text import with_values
from lth.book.verdicts import Finding, findings, home, interval, stamp, verdict_mark, verdict_words


class Paper(NamedTuple):
    """A paper: what it asks, and of each of its chapters the figure that says most."""

    name: str
    cite: str
    asks: str
    figures: dict[str, str]


PAPERS = {  # by the letter that its claims begin with
    "E": Paper(
        "Evci et al.: gradient flow",
        "evci2022gradient",
        "Do sparse networks train badly because little gradient reaches their weights, and does a ticket mend this, or "
        "does it find its way back to the pruned network it came from?",
        {"gradient_flow": "errors", "dst_updates": "changes", "lt_basin": "paths"},
    ),
    "M": Paper(
        "Maene et al.: returning to an old solution",
        "maene2021towards",
        "If tickets return to an earlier solution, what happens when this is forbidden?",
        {"rti_repulsion": "forced"},
    ),
    "P": Paper(
        "Paul et al.: the shape of the loss",
        "paul2023unmasking",
        "What does a mask tell the weights, seen from the shape of the loss around them?",
        {"lcs_geometry": "errors"},
    ),
    "J": Paper(
        "Jaiswal et al.: spending a ticket",
        "jaiswal2023spending",
        "Must a ticket be trained the way its dense parent was?",
        {"tweaks": "equal"},
    ),
}


def write(edition: Path, source: Path) -> None:
    """Puts the page, and the figures on it and on the chapters' pages, where the book is staged."""
    folder = source / "book" / "came_out"
    folder.mkdir()
    for paper in PAPERS.values():
        for chapter, name in paper.figures.items():
            if (figure := home(edition, chapter) / chapter / "figures" / f"{name}.png").is_file():
                shutil.copy(figure, folder / f"{chapter}.png")
    (source / "book" / "what_came_out.md").write_text(page(edition), encoding="utf-8")


def page(edition: Path) -> str:
    """The page, as Markdown."""
    found = findings(edition)
    lines = [
        "# What came out",
        "",
        "For a reader who reads nothing else: a paper, its question, how many of its claims came out how, and what to "
        "take from it. {doc}`How to read the verdicts <reading>`; every claim with its test is in the "
        "{doc}`scorecard`.",
        "",
        "```{list-table}",
        ":header-rows: 1",
        "",
        "* - Paper",
        "  - Its question",
        "  - Its claims",
    ]
    for letter, paper in PAPERS.items():
        claims = claims_of(letter)
        lines += [f"* - {{cite:t}}`{paper.cite}`", f"  - {paper.asks}"]
        lines += [f"  - {counted(claims, found)} {strip(claims, found, 'scorecard.html')}"]
    lines += ["```", ""]
    for letter, paper in PAPERS.items():
        lines += [f"## {paper.name}", "", f"*{paper.asks}*", ""]
        lines += _main(letter, found)
        for chapter, name in paper.figures.items():
            lines += _chapter(edition, chapter, name, found)
    return "\n".join(lines)


def claims_of(letter: str) -> list[Claim]:
    """A paper's claims, without checks, which are no evidence about networks."""
    return [claim for claim in ledger().values() if claim.id.startswith(letter) and not claim.check]


def _main(letter: str, found: dict[str, Finding]) -> list[str]:
    """The claims that the paper is about, chosen beforehand, one line each."""
    lines = []
    for claim in claims_of(letter):
        if claim.main:
            finding = found.get(claim.id)
            told = finding.n and finding.setting != "below" and not finding.explored if finding else False
            number = f" ({claim.metric}: {interval(finding)})" if told else ""
            verdict = verdict_mark(verdict_words(finding))
            lines.append(f"- {claim.statement.rstrip('.')}: {verdict}{number} `{claim.id}`")
    return [*lines, ""]


def _chapter(edition: Path, chapter: str, name: str, found: dict[str, Finding]) -> list[str]:
    notebook = CHAPTERS[chapter].removesuffix(".ipynb")
    claims = [claim for claim in ledger().values() if claim.chapter == chapter and not claim.check]
    told = f"{{doc}}`../{notebook}`: {counted(claims, found)}."
    lines = [f"### Chapter {number_of(chapter)}", "", told, "", _ran(edition / chapter), ""]
    lines += [words(edition, chapter) or _no_words(claims, found), ""]
    if (edition / chapter / "figures" / f"{name}.png").is_file():
        file = edition / chapter / Path(CHAPTERS[chapter]).name
        caption, alt, _ = told_of_figure(json.loads(file.read_text(encoding="utf-8")), name)
        lines += [f"```{{image}} came_out/{chapter}.png", f":alt: {alt}", ":width: 640px", "```", "", caption, ""]
    return lines


def _no_words(claims: list[Claim], found: dict[str, Finding]) -> str:
    decided = sum(verdict_of(claim, found) in DECIDED for claim in claims)
    if not decided:
        return f"None of the {len(claims)} claims of the chapter is decided here: there is nothing to take from it yet."
    return f"{decided} of the chapter's {len(claims)} claims are decided; the scorecard says which."


def _ran(folder: Path) -> str:
    """What was run, in a few words."""
    told = stamp(folder)
    if not told:
        return "Not run in this edition."
    return badge(folder.name, told)


DATA = re.compile(r"(?:(?:,| and)?\s*\[[^\]]*\]\(data/[^)]*\)\.?)+")  # links to data, at the end of captions


def told_of_figure(notebook: dict[str, Any], name: str) -> tuple[str, str, str]:
    """Caption, alternative text and label of the figure that a notebook saves under a name."""
    for cell in notebook["cells"]:
        about = cell["metadata"].get("mystnb", {})
        if f'chapter.save("{name}"' in "".join(cell["source"]) and "figure" in about:
            caption = DATA.sub("", about["figure"]["caption"])
            caption = with_values(caption, notebook.get("metadata", {}).get("papermill", {}).get("parameters", {}))
            return caption, about.get("image", {}).get("alt", caption), about["figure"].get("name", "")
    return "", "", ""
