"""Two executions of a chapter side by side: which parameters differ, what each says of every claim, the figures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lth.book import CHAPTERS
from lth.book.came_out import told_of_figure
from lth.book.claims import ledger
from lth.book.scorecard import title
from lth.book.text import Markup, escape
from lth.book.verdicts import Finding, interval, stamp, verdict_mark, verdict_words
from lth.errors import UsageError

STAMPED = ("preset", "data", "device", "networks trained", "training time", "commit", "finished")
SIDES = ("A", "B")


def page(one: Path, other: Path) -> str:
    """The page, as Markdown; it shows the figures A/NAME.png and B/NAME.png.

    UsageError where the two are of different chapters, or the same.
    """
    if one.name != other.name:
        raise UsageError(f"{one} is chapter {one.name}, {other} is chapter {other.name}: name two of the same chapter")
    if one.resolve() == other.resolve():
        raise UsageError(f"{one} twice: name two executions, for example what `lth run {one.name} -p …` has made")
    both = (one, other)
    stamps = [stamp(folder) for folder in both]
    lines = [f"# {title(_notebook(one))}: A and B", "", *_what(both, stamps), "## What differs", ""]
    lines += _parameters([told.get("parameters", {}) for told in stamps])
    lines += _claims(one.name, [found(folder) for folder in both])
    return "\n".join([*lines, *_figures(both)])


def found(folder: Path) -> dict[str, Finding]:
    """What an execution says of the claims, by their ids."""
    file = folder / "claims.json"
    entries = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    return {entry["id"]: Finding(**entry) for entry in entries if entry["id"] in ledger()}


def told(folder: Path) -> list[str]:
    """«E8.closer: holds here: 2.1 [1.7, 2.6], n = 4 (times)», claim by claim."""
    lines = []
    for name, finding in found(folder).items():
        lines.append(f"{name}: {verdict_words(finding)}{_seen(finding)}: {interval(finding)} ({ledger()[name].unit})")
    return lines


def _seen(finding: Finding) -> str:
    """What was seen where a run is too small for a verdict."""
    return f" (seen in that run: {finding.outcome})" if finding.n and finding.setting == "below" else ""


def _notebook(folder: Path) -> dict[str, Any]:
    return json.loads((folder / Path(CHAPTERS[folder.name]).name).read_text(encoding="utf-8"))


def _table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> list[str]:
    """A table in MyST; cells are escaped, Markup stays."""
    lines = ["```{list-table}", ":header-rows: 1", ":class: beside", ""]
    for row in (head, *rows):
        first, *rest = (escape(cell) for cell in row)
        lines += [f"* - {first}", *(f"  - {cell}" for cell in rest)]
    return [*lines, "```", ""]


def _what(both: Iterable[Path], stamps: list[dict[str, Any]]) -> list[str]:
    rows = [[name, *(told.get(name, "–") for told in stamps)] for name in STAMPED]
    return _table(["", *SIDES], [["folder", *(f"{folder.parent.name}/{folder.name}" for folder in both)], *rows])


def _parameters(values: list[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for side in values for name in side))
    rows = [[name, *(side.get(name, "–") for side in values)] for name in names]
    rows = [row for row in rows if row[1] != row[2]]
    return _table(["Parameter", *SIDES], rows) if rows else ["No parameter.", ""]


def _claims(chapter: str, sides: list[dict[str, Finding]]) -> list[str]:
    """Every claim with both findings; what came out differently first, what only one has tested last."""
    titles = ("Claims that came out differently", "Claims that came out alike", "Claims that only one has tested")
    rows: dict[str, list[list[object]]] = {title: [] for title in titles}
    for claim in ledger().values():
        pair = [side.get(claim.id) for side in sides]
        outcomes = {finding.outcome for finding in pair if finding and finding.n}
        if claim.chapter == chapter and outcomes:
            both = all(finding and finding.n for finding in pair)
            title = titles[len(outcomes) == 1] if both else titles[2]
            rows[title].append([Markup(f"`{claim.id}` {claim.statement} ({claim.unit})"), *map(_cell, pair)])
    lines = []
    for title, some in rows.items():
        lines += [f"## {title}", "", *(_table(["Claim", *SIDES], some) if some else ["None.", ""])]
    return lines


def _cell(finding: Finding | None) -> str:
    if finding is None:
        return "–"
    return Markup(f"{interval(finding)}. {verdict_mark(verdict_words(finding))}{_seen(finding)}")


def _figures(both: tuple[Path, Path]) -> list[str]:
    names = list(dict.fromkeys(file.stem for folder in both for file in sorted((folder / "figures").glob("*.png"))))
    lines = ["## Figures", ""] if names else []
    for name in names:
        captions = (told_of_figure(_notebook(folder), name) for folder in both)
        caption, alt, _ = next(filter(any, captions), ("", "", ""))
        lines += [f"### {name.replace('_', ' ')}", "", "::::{grid} 1 1 2 2", ""]
        for side, folder in zip(SIDES, both, strict=True):
            there = (folder / "figures" / f"{name}.png").is_file()
            image = [f"```{{image}} {side}/{name}.png", f":alt: {side}. {alt}", "```"] if there else ["No such figure."]
            lines += [":::{grid-item}", f"**{side}**", "", *image, ":::"]
        lines += ["::::", "", re.sub(r"\{(?:numref|ref|doc)\}`([^`<]*?)\s*(?:<[^`]*>)?`", r"*\1*", caption), ""]
    return lines
