"""What the page of a chapter is given when the book is made, from the files of its execution: nothing of it is typed.

Its answer under its title; at the end of each caption what the figure is of; links from figures and verdicts to the
scorecard; where the edition and the paper differ; how to cite it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from lth.book import came_out, drawn, notes
from lth.book.badge import badge, setting, unit
from lth.book.claims import Claim, ledger, shown
from lth.book.scorecard import counted, number_of, of_chapter, strip, title
from lth.book.text import with_values
from lth.book.verdicts import Finding, findings, stamp

UNITS = {"solution": "pruning solutions", "mask": "masks", "network": "networks", "seed": "networks"}
T_INTERVAL = "Bands and bars: 95 % intervals of the mean (Student's t{of_logarithms})."
KIND = re.compile(r"Student|Clopper|prediction interval|of logarithms|Fieller|bootstrap")  # a caption says which itself
ONE = re.compile(r"\b(network 0|of (the first|one) network|the first mask)\b(?!')", re.IGNORECASE)  # or shows one
VERDICTS = re.compile(r":::\{table\} (.*)\n:name: (tab-verdicts(?:-[\w-]+)?)\n")  # of the run
PROVENANCE = "## Where these results come from"
BORROWED = (":::{note}", "This chapter was not run in this edition: what you see is the published one.", ":::")


def finish(notebook: dict[str, Any], chapter: str, folder: Path, *, borrowed: bool, url: str | None = None) -> None:
    """Gives an executed notebook (nbformat's JSON), whose execution lies in `folder`, what its page has beside it.

    borrowed: the rest of the book is of another edition, and the page says so. url: where the repository is, to cite.
    """
    cells, told, found = notebook["cells"], stamp(folder), findings(folder.parent)
    key = key_figure(notebook, chapter, folder)
    head, parameters_, rest = _text(cells[0]).partition("\n## Parameters")
    if borrowed:
        name, _, body = head.partition("\n")
        head = "\n".join([name, "", *BORROWED, body])
    cells[0]["source"] = f"{head.rstrip()}\n\n{opening(chapter, folder, told, found, key)}\n{parameters_}{rest}"
    for usual, own in pairwise(cells):  # of two cells of parameters the second one counts
        if "injected-parameters" in own["metadata"].get("tags", ()):
            usual["metadata"]["tags"] = [*usual["metadata"].get("tags", ()), "hide-input"]
    films = 0
    for cell in cells[1:]:
        if "figure" in (about := cell["metadata"].get("mystnb", {})):
            cell["metadata"]["mystnb"] = about | {
                "figure": about["figure"] | {"caption": ends(cell, cells, folder, told, found)}
            }
            sharpen(cell, folder)
        for data in [output["data"] for output in cell.get("outputs", ()) if "data" in output]:
            if judged := VERDICTS.match("".join(data.get("text/markdown", ""))):
                data["text/markdown"] = of_chapter(chapter, found, *judged.groups())
            if "<figcaption>" in (film := "".join(data.get("text/html", ""))):
                films += 1
                words, _, rest = film.partition("<figcaption>")[2].partition("</figcaption>")
                of = ", ".join(filter(None, (setting(chapter, told), "one network" * bool(ONE.search(words)))))
                whole = f"<b>Film {number_of(chapter)}.{films}.</b> {words.strip()}{f' {of}.' if of else ''}"
                data["text/html"] = f"{film.partition('<figcaption>')[0]}<figcaption>{whole}</figcaption>{rest}"
        if (
            cell["cell_type"] == "markdown"
            and PROVENANCE in _text(cell)
            and (words := notes.differences(folder.parent, chapter))
        ):
            cell["source"] = _text(cell).replace(PROVENANCE, f"{words}\n\n{PROVENANCE}")
    cells.append({"cell_type": "markdown", "metadata": {}, "source": citation(title(notebook), chapter, told, url)})
    if notebook["nbformat_minor"] >= 5:
        cells[-1]["id"] = "cite"


def opening(chapter: str, folder: Path, told: dict[str, Any], found: dict[str, Finding], key: str) -> str:
    """The box under a chapter's title: what was run, what came out, claim by claim, and the figure that says most."""
    claims = [claim for claim in ledger().values() if claim.chapter == chapter]
    words = notes.words(folder.parent, chapter)
    lines = ["::::{div} opening", badge(chapter, told), "", *older(claims, told, found), ""]
    lines += [f"**What came out.** {words}" if words else "", ""]
    lines += [f"{counted([claim for claim in claims if not claim.check], found)}; a mark for each claim:", ""]
    return "\n".join([*lines, strip(claims, found, "../book/scorecard.html"), "", key, "::::"])


def older(claims: Sequence[Claim], told: dict[str, Any], found: dict[str, Finding]) -> list[str]:
    """What a reader must know of a page whose run is older than tests of its claims; nothing where it is not."""
    judged = {finding.id: finding.test for finding in found.values()}
    claims = [claim for claim in claims if not claim.needs]
    since = [claim for claim in claims if claim.version != judged.get(claim.id, "")]
    if not since or "finished" not in told:
        return []
    day = told["finished"].partition("T")[0]
    return [
        f"**An older run.** Code, figures and numbers on this page are of {day}. {len(since)} of its "
        f"{len(claims)} claims were added or are tested otherwise since then, the last on "
        f"{max(claim.version for claim in since)}: they stay open until the chapter is run again. The squares, the "
        "table of verdicts, the scorecard and the section on what differs go by the tests of today."
    ]


def key_figure(notebook: dict[str, Any], chapter: str, folder: Path) -> str:
    """The figure that says most, as an image that leads to where the chapter explains it; "" where it is not there."""
    name = next(paper.figures[chapter] for paper in came_out.PAPERS.values() if chapter in paper.figures)
    caption, alt, label = came_out.told_of_figure(notebook, name)
    if not label or not (folder / "figures" / f"{name}.png").is_file():
        return ""
    lines = [f"```{{image}} ../book/came_out/{chapter}.png", f":alt: {alt}", ":width: 560px", f':target: "#{label}"']
    first = re.split(r"(?<=\.) ", caption.strip(), maxsplit=1)[0]
    return "\n".join([*lines, "```", "", f"{first} {{numref}}`{label}` tells more."])


def ends(
    cell: dict[str, Any], cells: list[dict[str, Any]], folder: Path, told: dict[str, Any], found: dict[str, Finding]
) -> str:
    """A figure's caption with what it is of, how many units, what intervals mean, and the claims that it is about, each
    a square in the colour of its verdict.

    What was trained on what is the chapter's; a cell whose networks are others says so in its metadata: `lth.model`, or
    in words `lth.of`.
    """
    about, own = cell["metadata"]["mystnb"]["figure"], cell["metadata"].get("lth", {})
    caption, of = about["caption"], own.get("of") or setting(folder.name, told, own.get("model", ""))
    tables = [folder / "data" / name for name in re.findall(r"data/\w+/([\w-]+\.csv)", caption)]
    words = ", ".join(part for part in (of, _count(caption, tables[:1], folder, told)) if part)
    parts = [f"{words[0].upper()}{words[1:]}." if words else ""]
    if drawn.intervals(cell, cells) and not KIND.search(caption):
        parts.append(T_INTERVAL.format(of_logarithms=", of logarithms" if "geometric" in caption.lower() else ""))
    rows = [row for line in shown() if about["name"] in line.ours for row in line.rows]
    judged = {row: [claim for claim in ledger().values() if claim.row == row] for row in rows}
    strips = [f"{row} {strip(claims, found, '../book/scorecard.html')}" for row, claims in judged.items() if claims]
    parts += [f"Claims: {', '.join(strips)}"] if strips else []
    return " ".join([with_values(caption.rstrip(), told.get("parameters", {})), *filter(None, parts)])


def _count(caption: str, tables: Sequence[Path], folder: Path, told: dict[str, Any]) -> str:
    """How many units a figure shows: what its caption says, else what its data tell apart, else those of the run."""
    if ONE.search(caption):
        return "one network"
    if count := "".join(units(table) for table in tables if table.is_file()):
        return count
    if "mean over" in caption.lower() and "n = " not in caption and "seeds" in told.get("parameters", {}):
        return f"n = {told['parameters']['seeds']} {unit(folder.name)}s"
    return ""


def sharpen(cell: dict[str, Any], folder: Path) -> None:
    """Puts the figure that the chapter saved, drawn for paper, in place of the coarser one that a notebook shows."""
    pictures = [output["data"] for output in cell["outputs"] if "image/png" in output.get("data", {})]
    if len(pictures) == 1 and (file := drawn.picture(cell, folder)):
        pictures[0]["image/png"] = base64.b64encode(file.read_bytes()).decode()


def units(table: Path) -> str:
    """«n = 16 masks»: how many units the largest group of a figure's data has; "" where no column tells units apart."""
    data = pd.read_csv(table, keep_default_na=False, na_values=[""])  # a number may be missing; «None» is a name
    groups = [name for name in data.columns if not pd.api.types.is_numeric_dtype(data[name])]
    for name, words in UNITS.items():
        if name in data.columns and pd.api.types.is_integer_dtype(data[name]):
            n = data.groupby(groups, dropna=False)[name].nunique().max() if groups else data[name].nunique()
            return f"n = {n} {words}" if n > 1 else ""
    return ""


def citation(heading: str, chapter: str, told: dict[str, Any], url: str | None) -> str:
    """«Cite this chapter», as BibTeX in a fold."""
    commit = str(told.get("commit", "")).split(" ")[0]
    entry = {
        "author": "{the lth authors}",
        "title": heading,
        "booktitle": "Lottery Tickets, Rerun",
        "chapter": number_of(chapter),
        "year": str(told.get("finished", ""))[:4],
        "note": f"commit {commit}" if commit else "",
        "url": url or "",
    }
    fields = ",\n".join(f"  {name} = {{{value}}}" for name, value in entry.items() if value)
    return f"````{{dropdown}} Cite this chapter\n```bibtex\n@incollection{{lth_{chapter},\n{fields}\n}}\n```\n````"


def _text(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])
