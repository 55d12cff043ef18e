"""The scorecard: every claim, its test, what came out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lth.book import CHAPTERS
from lth.book.claims import Claim, ledger, shown
from lth.book.notes import differences
from lth.book.presets import nearest
from lth.book.text import escape
from lth.book.verdicts import Finding, agreeing, findings, interval, stamp, verdict_mark, verdict_words
from lth.files import ROOT

STAMPED = {"on": "trained on", "with preset": "preset", "at commit": "commit", "finished": "finished"}
DECIDED = ("reproduced", "holds here", "does not hold here", "not reproduced")
WIDE = ("---", "html_theme.sidebar_secondary.remove: true", "---", "")  # a table takes the room of the contents
OTHERS = ("open", "not run", "check passed", "check failed")


def page(edition: Path, places: Mapping[str, str] = MappingProxyType({})) -> str:
    """The scorecard of an edition, as Markdown; places: name of a figure, table or film of the book → a link to it."""
    found = findings(edition)
    lines = [
        *WIDE,
        "# Scorecard",
        "",
        "Every claim of the papers that this book puts to the test, with its test and what came out. "
        "{doc}`How to read the verdicts <reading>`. The first letter of a claim is its paper's: **E**vci, **M**aene, "
        "**P**aul, **J**aiswal. The squares lead to the claims.",
        "",
        *_counts(found),
        "",
        "## The main claims",
        "",
        "These few say what each paper is about. They were chosen before the networks that decide them were trained.",
        "",
        *_table([claim for claim in ledger().values() if claim.main], found),
    ]
    for chapter, notebook in CHAPTERS.items():
        claims = [claim for claim in ledger().values() if claim.chapter == chapter]
        own = f"../{notebook.removesuffix('.ipynb')}"
        lines += [f"## Chapter {number_of(chapter)}: {heading(chapter)}", "", strip(claims, found, ""), ""]
        lines += [f"{_run_line(edition / chapter)} {{doc}}`The chapter <{own}>`{_note(edition, chapter)}.", ""]
        lines += _table(claims, found, places)
    return "\n".join(lines)


def number_of(chapter: str) -> str:
    """«3»"""
    return Path(CHAPTERS[chapter]).stem[:2].lstrip("0")


def heading(chapter: str) -> str:
    """The title of a chapter, from its notebook."""
    return title(json.loads((ROOT / CHAPTERS[chapter]).read_text(encoding="utf-8")))


def title(notebook: dict[str, Any]) -> str:
    """A notebook's heading (nbformat's JSON)."""
    return "".join(notebook["cells"][0]["source"]).split("\n", 1)[0].removeprefix("#").strip()


def _note(edition: Path, chapter: str) -> str:
    """Where the chapter says how the published edition differs from the paper."""
    return f", with {{ref}}`its note <differs-{chapter}>`" * bool(differences(edition, chapter))


def _counts(found: dict[str, Finding]) -> list[str]:
    """How many claims have which verdict, and how many of the decided may be wrong by chance."""
    words = [found[claim_id].verdict if claim_id in found else "not run" for claim_id in ledger()]
    counts = _counted(word for kind in DECIDED + OTHERS for word in words if word == kind)
    decided = sum(words.count(word) for word in DECIDED)
    wrong = f"about {round(0.025 * decided)}" if decided >= 40 else "fewer than one"
    return [
        f"**{len(words)} claims: {counts}.**",
        "",
        "Checks are identities of the mathematics: they test the program and are no evidence about networks. Where the "
        "truth lies at the edge of a claim's range, its test confirms the claim with a probability of 2.5 % at most: "
        f"if all {decided} decided claims were such, {wrong} of them would be wrong.",
    ]


def of_chapter(chapter: str, found: dict[str, Finding], caption: str, name: str) -> str:
    """The table of verdicts on a chapter's page: all its claims, as they stand in the ledger when the page is made."""
    claims = [claim for claim in ledger().values() if claim.chapter == chapter]
    table = _table(claims, found, elsewhere="../book/scorecard.html")
    return "\n".join([f"{table[0]} {caption}", f":name: {name}", *table[1:]])


def _table(
    claims: Sequence[Claim], found: dict[str, Finding], places: Mapping[str, str] | None = None, elsewhere: str = ""
) -> list[str]:
    """places: as in `page`; None: the claims' own lines are elsewhere on the page, or on that page, and linked."""
    lines = ["```{list-table}", ":header-rows: 1", ":class: scorecard", ""]
    lines += _row("Claim", "The paper", "Here: value [95 % interval], n", "Verdict")
    for claim in claims:
        finding = found.get(claim.id)
        unit = f" ({claim.unit})" * (claim.kind not in ("share", "shares"))  # which say it themselves
        here = interval(finding) + unit if finding and finding.n else "–"
        if finding and finding.explored and finding.n:
            here = f"before the change: {interval(finding)}"  # of what may have been another quantity, in other units
        if places is None:
            statement = f'<a href="{elsewhere}#{claim.id}">{claim.id}</a> {claim.statement}'
            statement += _test(claim) if elsewhere else ""
        else:
            names = [name for line in shown() if claim.row in line.rows for name in line.ours if name in places]
            links = ", ".join(places[name] for name in dict.fromkeys(names))
            statement = f'<span id="{claim.id}">`{claim.id}`</span> {claim.statement}' + " *A check.*" * claim.check
            statement += f" Shown in {links}." if links else ""
            statement += _test(claim)
        lines += _row(statement, claim.paper, here, _verdict(claim, finding))
    return [*lines, "```", ""]


def _test(claim: Claim) -> str:
    """In a fold: the test, what n counts, the n that the power asks for, and when and why the claim was changed."""
    told = f"{claim.metric}: {claim.test} {claim.unit}. n counts {claim.replication}s"
    told += f", {claim.needed} needed." if claim.needed else "."
    told += f" *Changed on {claim.changed.date}: {claim.changed.reason}*" if claim.changed else ""
    title = "Test, changed" if claim.changed else "Test"
    return f"\n\n    <details><summary>{title}</summary>\n\n    {told}\n\n    </details>"


def _verdict(claim: Claim, finding: Finding | None) -> str:
    if claim.needs and not (finding and finding.n):
        return f"{verdict_mark('not run')}: {claim.needs}"
    verdict = verdict_mark(verdict_words(finding))
    if finding and finding.n and (finding.setting == "below" or finding.explored):
        verdict += f" (seen in that run: {finding.outcome})"
    return verdict


def _row(first: str, *others: str) -> list[str]:
    """One row of a list-table."""
    return [f"* - {first}", *(f"  - {other}" for other in others)]


def _run_line(chapter: Path) -> str:
    """When and on what a chapter's results were computed."""
    ran = stamp(chapter)
    if {"preset", "parameters"} <= set(ran):
        ran["preset"] = nearest(chapter.name, ran["preset"], ran["parameters"])
    told = [f"{word} {escape(ran[key])}" for word, key in STAMPED.items() if key in ran]
    return f"Computed {', '.join(told)}." if told else "Not run in this edition: its page shows the published one."


def verdict_of(claim: Claim, found: dict[str, Finding]) -> str:
    """The word of the scorecard for a claim."""
    return found[claim.id].verdict if claim.id in found and not claim.needs else "not run"


def counted(claims: list[Claim], found: dict[str, Finding]) -> str:
    """«12 reproduced, 3 open, 2 not run», in the colours of the verdicts."""
    words = Counter(verdict_of(claim, found) for claim in claims)
    order = [*DECIDED, *sorted(set(words) - set(DECIDED))]
    return ", ".join(f"{words[word]} {verdict_mark(word, words[word])}" for word in order if words[word]) or "none"


def strip(claims: Sequence[Claim], found: dict[str, Finding], page: str) -> str:
    """A row of squares, one for each claim in the colour of its verdict, each a link to its line on the scorecard.

    page: the way to the scorecard from where the squares stand.
    """
    squares = []
    for claim in claims:
        words = "not run" if claim.needs else verdict_words(found.get(claim.id))
        kind = "not-run" if words.startswith("not run") else words.split(":")[0].replace(" ", "-")
        label = f"{claim.id}: {words}"
        squares.append(f'<a class="square {kind}" href="{page}#{claim.id}" title="{label}" aria-label="{label}"></a>')
    return f'<span class="strip">{"".join(squares)}</span>'


def came_out(folder: Path) -> str:
    """The verdicts of an executed chapter, counted, in one line."""
    found = [finding for key, finding in findings(folder.parent).items() if ledger()[key].chapter == folder.name]
    told = _counted(finding.verdict for finding in found)
    smaller = [finding for finding in found if finding.setting == "below" and finding.n]
    if smaller:
        told += "; seen in this smaller run: " + _counted(finding.outcome for finding in smaller)
    return f"{len(found)} claims: {told}"


def _counted(words: Iterable[str]) -> str:
    """«3 reproduced, 1 open», in the order in which they come."""
    return ", ".join(f"{count} {agreeing(word, count)}" for word, count in Counter(words).items())
