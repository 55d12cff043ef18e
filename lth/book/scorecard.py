"""The scorecard: every claim, its test, what came out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from lth.book import CHAPTERS
from lth.book.claims import (
    PUBLISHED,
    Claim,
    Finding,
    findings,
    interval,
    ledger,
    stamp,
    verdict_mark,
    verdict_words,
)
from lth.book.text import escape

STAMPED = {"on": "trained on", "with preset": "preset", "at commit": "commit", "finished": "finished"}
DECIDED = ("reproduced", "holds here", "does not hold here", "not reproduced")
OTHERS = ("open", "not run", "check passed", "check failed")


def page(edition: Path) -> str:
    """The scorecard of an edition, as Markdown."""
    found = findings(edition)
    lines = [
        "# Scorecard",
        "",
        "Every claim of the papers that this book puts to the test, with its test and what came out. "
        "{doc}`How to read the verdicts <reading>`.",
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
        lines += [f"## Chapter {Path(notebook).stem[:2].lstrip('0')}: {chapter}", ""]
        lines += [f"{_run_line(edition / chapter)} {{doc}}`The chapter <../{notebook.removesuffix('.ipynb')}>`.", ""]
        lines += _table(claims, found)
        notes = PUBLISHED.with_name("notes") / f"{chapter}.md"
        if edition == PUBLISHED and notes.exists():
            lines += [notes.read_text(encoding="utf-8"), ""]
    return "\n".join(lines)


def _counts(found: dict[str, Finding]) -> list[str]:
    """How many claims have which verdict, and how many of the decided may be wrong by chance."""
    words = [found[claim_id].verdict if claim_id in found else "not run" for claim_id in ledger()]
    counts = ", ".join(f"{words.count(word)} {word}" for word in DECIDED + OTHERS if word in words)
    decided = sum(words.count(word) for word in DECIDED)
    return [
        f"**{len(words)} claims: {counts}.**",
        "",
        "Checks are identities of the mathematics: they test the program and are no evidence about networks. Where the "
        "truth lies at the edge of a claim's range, its test confirms the claim with a probability of 2.5 % at most: "
        f"if all {decided} decided claims were such, about {round(0.025 * decided)} of them would be wrong.",
    ]


def _table(claims: Sequence[Claim], found: dict[str, Finding]) -> list[str]:
    if not claims:
        return []
    lines = ["```{list-table}", ":header-rows: 1", ":class: scorecard", ""]
    lines += _row("Claim", "The paper", "Test; n counts", "Here: value [95 % interval], n", "Verdict")
    for claim in claims:
        finding = found.get(claim.id)
        here = f"{interval(finding)} ({claim.unit})" if finding and finding.n else "–"
        if finding and finding.explored and finding.n:
            here = f"before the change: {interval(finding)}"  # of what may have been another quantity, in other units
        statement = f"`{claim.id}` {claim.statement}" + (" *A check.*" if claim.check else "")
        test = f"{claim.metric}: {claim.test} {claim.unit}; {claim.replication}s{_planned(claim)}"
        lines += _row(statement, claim.paper, test, here, _verdict(claim, finding))
    return [*lines, "```", ""]


def _planned(claim: Claim) -> str:
    """The n that the power asks for, and when the claim was changed."""
    needed = f", {claim.needed} needed" if claim.needed else ""
    changed = f". *Changed on {claim.changed.date}: {claim.changed.reason}*" if claim.changed else ""
    return needed + changed


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
    told = [f"{word} {escape(stamp(chapter)[key])}" for word, key in STAMPED.items() if key in stamp(chapter)]
    return f"Computed {', '.join(told)}." if told else "Not run in this edition: its page shows the published one."


def came_out(folder: Path) -> str:
    """The verdicts of an executed chapter, counted, in one line."""
    found = [finding for key, finding in findings(folder.parent).items() if ledger()[key].chapter == folder.name]
    told = _counted(finding.verdict for finding in found)
    smaller = [finding for finding in found if finding.setting == "below" and finding.n]
    if smaller:
        told += "; seen in this smaller run: " + _counted(finding.outcome for finding in smaller)
    return f"{len(found)} claims: {told}"


def _counted(words: Iterable[str]) -> str:
    """«3 reproduced, 1 open»"""
    return ", ".join(f"{count} {word}" for word, count in Counter(words).items())
