"""The claims ledger: what the papers say, the test that decides, fixed before the run, and what came out.

Every claim is a statement about the mean of some number over seeds, for example "the scratch network ends
further away than the ticket: the difference of distances is above zero". It has an accepted range. From n
samples comes a 95 % interval of the mean (Student's t): inside the range the claim is reproduced, outside it is
not reproduced, across its edge it is inconclusive. A run below the scale at which the claim should show
decides nothing.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from lth.book import CHAPTERS, ROOT
from lth.book.presets import parameters
from lth.book.text import Markup, escape
from lth.errors import LthError, UsageError

Verdict = Literal["reproduced", "not reproduced", "inconclusive"]
LEDGER = Path(__file__).parent / "ledger"
STAMPED = {"on": "trained on", "with preset": "preset", "at commit": "commit", "finished": "finished"}
PUBLISHED = ROOT / "book" / "editions" / "published"


class Claim(BaseModel):
    """One row of the ledger.

    accept: lowest and highest mean that agree with the claim, None for no limit. scale: the preset whose run can
    decide it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    chapter: str
    statement: str
    paper: str
    metric: str
    unit: str
    accept: tuple[float | None, float | None]
    scale: Literal["paper", "gpu"]

    @property
    def test(self) -> str:
        """The accepted range in words."""
        low, high = self.accept
        if high is None:
            return f"mean > {low:g}"
        return f"mean < {high:g}" if low is None else f"{low:g} < mean < {high:g}"

    def at_scale(self, values: Mapping[str, Any]) -> bool:
        """Whether a run with these parameters can decide: those of the preset, or the same with more seeds."""
        needed = parameters(self.chapter, self.scale).model_dump()
        return dict(values) == {**needed, "seeds": values["seeds"]} and values["seeds"] >= needed["seeds"]


class Finding(BaseModel):
    """What a run says of a claim: n samples, their mean with its 95 % interval, the verdict at its scale.

    With n = 0 there was nothing to test.
    """

    id: str
    n: int
    mean: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    at_scale: bool


@cache
def ledger() -> dict[str, Claim]:
    """All claims by id, in the order of the papers."""
    files = sorted(LEDGER.glob("*.json"))
    claims = [Claim(**entry) for file in files for entry in json.loads(file.read_text(encoding="utf-8"))]
    return {claim.id: claim for claim in claims}


def judge(claim: Claim, samples: Sequence[float], values: Mapping[str, Any]) -> Finding:
    """The finding from independent samples of the claim's metric, in a run with the parameters `values`.

    No samples at all leave the claim inconclusive.
    """
    import numpy as np
    from scipy import stats

    x = np.asarray(samples, dtype=float).reshape(-1)
    at_scale = claim.at_scale(values)
    if not len(x):
        return Finding(id=claim.id, n=0, mean=None, low=None, high=None, verdict="inconclusive", at_scale=at_scale)
    if len(x) < 2 or not np.isfinite(x).all():
        raise LthError(f"claim {claim.id} needs two or more finite samples, not {x.tolist()}")
    mean, n = float(x.mean()), len(x)
    spread = stats.t.ppf(0.975, n - 1) * x.std(ddof=1) / math.sqrt(n)
    low, high = mean - spread, mean + spread
    least = -math.inf if claim.accept[0] is None else claim.accept[0]
    most = math.inf if claim.accept[1] is None else claim.accept[1]
    verdict: Verdict = "inconclusive"
    if least < low and high < most:
        verdict = "reproduced"
    elif high <= least or low >= most:
        verdict = "not reproduced"
    return Finding(id=claim.id, n=n, mean=mean, low=low, high=high, verdict=verdict, at_scale=at_scale)


def pseudo_values(statistic: Callable[[list[int]], float], n: int) -> list[float]:
    """The jackknife's n pseudo-values n·T − (n − 1)·T₋ᵢ of a statistic of networks 0 … n−1 taken together.

    They stand in for independent samples where a number (a mean over pairs, an ensemble's accuracy) belongs to
    all networks at once. For a plain mean they are the samples themselves.
    """
    everyone = list(range(n))
    whole = statistic(everyone)
    return [n * whole - (n - 1) * statistic([j for j in everyone if j != i]) for i in everyone]


def paper_numbers(row: str, measures: Sequence[str], methods: Sequence[str]) -> list[float]:
    """The paper's numbers of a row ("E8") from its table in the ledger, measure by measure, method by method."""
    with open(LEDGER / f"{row}_numbers.csv", newline="", encoding="utf-8") as file:
        told = {(line["measure"], line["method"]): float(line["paper"]) for line in csv.DictReader(file)}
    return [told[measure, method] for measure in measures for method in methods]


def findings(edition: Path) -> dict[str, Finding]:
    """What the chapters of an edition found, by claim."""
    found = {}
    for chapter in CHAPTERS:
        file = edition / chapter / "claims.json"
        if file.exists():
            found |= {entry["id"]: Finding(**entry) for entry in json.loads(file.read_text(encoding="utf-8"))}
    return found


def check_ids(chapter: str, ids: Sequence[str]) -> None:
    """UsageError unless `ids` are exactly the chapter's claims."""
    expected = {claim.id for claim in ledger().values() if claim.chapter == chapter}
    if wrong := sorted(expected ^ set(ids)):
        raise UsageError(f"claims missing from the ledger or from the chapter {chapter}: {', '.join(wrong)}")


def number(value: float) -> str:
    """Three significant digits, without an exponent for the sizes met here."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def interval(finding: Finding) -> str:
    """«mean [low, high], n»"""
    if not finding.n:
        return "nothing to test"
    return f"{number(finding.mean)} [{number(finding.low)}, {number(finding.high)}], n = {finding.n}"


def verdict_words(finding: Finding | None) -> str:
    """The verdict of the scorecard."""
    if finding is None:
        return "not run"
    return finding.verdict if finding.at_scale else "not run at this scale"


def scorecard(edition: Path) -> str:
    """The scorecard page of an edition, as Markdown."""
    found = findings(edition)
    words = [verdict_words(found.get(claim_id)) for claim_id in ledger()]
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    lines = [
        "# Scorecard",
        "",
        "Every claim of the papers that this book puts to the test, with its test, fixed before the run "
        "where no note says otherwise, "
        "and what came out. {doc}`How to read the verdicts <reading>`.",
        "",
        f"**{len(words)} claims: {counts}.**",
        "",
    ]
    for chapter, notebook in CHAPTERS.items():
        claims = [claim for claim in ledger().values() if claim.chapter == chapter]
        lines += [f"## Chapter {Path(notebook).stem[:2].lstrip('0')}: {chapter}", ""]
        lines += [f"{_run_line(edition / chapter)} {{doc}}`The chapter <../{notebook.removesuffix('.ipynb')}>`.", ""]
        lines += ["```{list-table}", ":header-rows: 1", ":class: scorecard", ""]
        lines += _row("Claim", "The paper", "Test", "Here: mean [95 % interval], n", "Verdict")
        for claim in claims:
            finding = found.get(claim.id)
            here = f"{interval(finding)} ({claim.unit})" if finding and finding.n else "–"
            verdict = verdict_mark(verdict_words(finding))
            if finding and not finding.at_scale:
                verdict += f" (in this smaller run: {finding.verdict})"
            statement = f"`{claim.id}` {claim.statement}"
            lines += _row(statement, claim.paper, f"{claim.metric}: {claim.test} {claim.unit}", here, verdict)
        lines += ["```", ""]
        notes = PUBLISHED.with_name("notes") / f"{chapter}.md"
        if edition == PUBLISHED and notes.exists():
            lines += [notes.read_text(encoding="utf-8"), ""]
    return "\n".join(lines)


def _row(first: str, *others: str) -> list[str]:
    """One row of a list-table."""
    return [f"* - {first}", *(f"  - {other}" for other in others)]


def _run_line(chapter: Path) -> str:
    """When and on what a chapter's results were computed."""
    file = chapter / "provenance.json"
    if not file.exists():
        return "Not run in this edition: its page shows the published one."
    stamp = json.loads(file.read_text(encoding="utf-8"))
    told = [f"{word} {escape(stamp[key])}" for word, key in STAMPED.items() if key in stamp]
    return f"Computed {', '.join(told)}."


def verdict_mark(words: str) -> Markup:
    """A verdict in its colour (MyST)."""
    kind = "not-run" if words.startswith("not run") else words.replace(" ", "-")
    return Markup(f"[{words}]{{.verdict .{kind}}}")
