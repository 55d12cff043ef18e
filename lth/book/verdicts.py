"""What came out: the finding that a run has of a claim, and the words of the scorecard for it.

Confirmed and contradicted have two words each: at the paper's own settings a claim is *reproduced* or *not reproduced*;
in a smaller setting in which the statement makes sense it *holds here* or *does not hold here*. In a setting smaller
still it was *not run*.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, model_validator

from lth.book import CHAPTERS, estimates, power
from lth.book.claims import Claim, ledger
from lth.book.estimates import Estimate
from lth.book.text import Markup
from lth.files import ROOT

PUBLISHED = ROOT / "book" / "editions" / "published"
WORDS = {  # setting, whether the statement came out
    ("paper", "confirmed"): "reproduced",
    ("paper", "contradicted"): "not reproduced",
    ("smaller", "confirmed"): "holds here",
    ("smaller", "contradicted"): "does not hold here",
}
PLURALS = {
    "holds here": "hold here",
    "does not hold here": "do not hold here",
    "check passed": "checks passed",
    "check failed": "checks failed",
}


class Finding(BaseModel):
    """What a run says of a claim: its estimate (None: no limit), in which setting.

    With n = 0 there was nothing to test. left_out: units that failed. decides: how many units would decide in four
    cases of five if the truth is what was found here. test: the claim's `version` that was judged.
    """

    id: str
    n: int
    value: float | None
    low: float | None
    high: float | None
    words: str = ""
    outcome: Literal["confirmed", "contradicted", "open"]
    setting: Literal["paper", "smaller", "below"]
    left_out: int = 0
    decides: int | None = None
    test: str = ""

    @model_validator(mode="before")
    @classmethod
    def _of_older_editions(cls, told: dict) -> dict:
        if "at_scale" in told:
            outcomes = {"reproduced": "confirmed", "not reproduced": "contradicted", "inconclusive": "open"}
            setting = "paper" if told["at_scale"] else "below"
            kept = {name: told[name] for name in ("id", "n", "low", "high")}
            told = kept | {"value": told["mean"], "outcome": outcomes[told["verdict"]], "setting": setting}
        return told

    @property
    def verdict(self) -> str:
        """The word of the scorecard."""
        if not self.n:
            return "not run"
        claim = ledger().get(self.id)
        if claim is not None and claim.check and (self.setting != "below" or not claim.smallest):
            return {"confirmed": "check passed", "contradicted": "check failed"}.get(self.outcome, "open")
        if self.setting == "below":
            return "not run"
        return "open" if self.explored else WORDS.get((self.setting, self.outcome), "open")

    @property
    def explored(self) -> bool:
        """Whether it was found before the claim was changed, and so decides nothing."""
        claim = ledger().get(self.id)
        return claim is not None and claim.version != self.test


def judge(claim: Claim, samples: Any, values: Mapping[str, Any]) -> Finding:
    """The finding from one sample per unit, in a run with the parameters `values`.

    samples: numbers; of the kind `share` truth values, of `shares` two lists of them, of `ratio` and `bootstrap` an
    Estimate. NaN
    or None stands for a unit that failed: it is left out. With fewer than two units left nothing was tested.
    """
    groups, left_out = [samples], 0
    if not isinstance(samples, Estimate):
        groups = list(samples) if claim.kind == "shares" else [samples]
        kept = [[x for x in group if x is not None and math.isfinite(x)] for group in groups]
        left_out = sum(map(len, groups)) - sum(map(len, kept))
        groups = kept
    told = {"id": claim.id, "test": claim.version, "setting": claim.setting(values), "left_out": left_out}
    if not isinstance(samples, Estimate) and min(map(len, groups)) < 2:
        return Finding(**told, n=0, value=None, low=None, high=None, outcome="open")
    found = samples if isinstance(samples, Estimate) else getattr(estimates, claim.kind)(*groups)
    low, high = claim.limits
    outcome = "open"
    if found.p is not None:
        right, wrong = found.p if high == math.inf else found.p[::-1]
        outcome = "confirmed" if right <= estimates.TAIL else "contradicted" if wrong <= estimates.TAIL else "open"
    elif low < found.low and found.high < high:
        outcome = "confirmed"
    elif found.high < low or found.low > high:  # no difference at all, in any unit, decides nothing
        outcome = "contradicted"
    least, most = (claim.bounds[0], claim.bounds[1])
    ends = [max(found.low, -math.inf if least is None else least), min(found.high, math.inf if most is None else most)]
    ends = [end if math.isfinite(end) else None for end in ends]
    decides = _decides(claim, found, groups) if outcome == "open" else None
    return Finding(
        **told,
        n=found.n,
        value=found.value,
        low=ends[0],
        high=ends[1],
        words=found.words,
        outcome=outcome,
        decides=decides,
    )


def _decides(claim: Claim, found: Estimate, groups: Sequence[Sequence[float]]) -> int | None:
    """How many units would decide, confirming or contradicting, if the truth is what was found."""
    low, high = claim.limits
    if claim.kind == "shares":
        one, other = (100 * float(np.mean(group)) for group in groups)
        return power.enough(lambda n: power.of_shares(n, one > other, one, other)) if one != other else None
    inside = low < found.value < high
    ranges = [(low, high)] if inside else [(-math.inf, low), (high, math.inf)]
    if claim.kind == "share":
        return power.enough(lambda n: sum(power.of_share(n, *ends, found.value) for ends in ranges))
    if not math.isfinite(found.high - found.low) or found.n < 2:
        return None
    from scipy import stats

    sd = (found.high - found.low) / 2 * math.sqrt(found.n) / stats.t.ppf(1 - estimates.TAIL, found.n - 1)
    return power.enough(lambda n: sum(power.of_mean(n, *ends, found.value, sd) for ends in ranges))


def findings(edition: Path) -> dict[str, Finding]:
    """What the chapters of an edition found, by claim of the ledger."""
    found = {}
    for chapter in CHAPTERS:
        file = edition / chapter / "claims.json"
        if not file.exists():
            continue
        entries = json.loads(file.read_text(encoding="utf-8"))
        found |= {entry["id"]: Finding(**entry) for entry in entries if entry["id"] in ledger()}
    return found


def home(edition: Path, chapter: str) -> Path:
    """The edition that the chapter's page is made from: this one, or the published one where only others were run."""
    elsewhere = any((edition / other).is_dir() for other in CHAPTERS)
    return PUBLISHED if elsewhere and not (edition / chapter).is_dir() else edition


def stamp(chapter: Path) -> dict[str, Any]:
    """Where a chapter's results come from; {} where it was not run."""
    file = chapter / "provenance.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def number(value: float | None) -> str:
    """Three significant digits, without an exponent for the sizes met here."""
    if value is None:
        return "…"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def interval(finding: Finding) -> str:
    """«value [low, high], n», and the units that were left out."""
    if not finding.n:
        return "nothing to test"
    told = finding.words or f"{number(finding.value)} [{number(finding.low)}, {number(finding.high)}], n = {finding.n}"
    return told + (f", {finding.left_out} left out" if finding.left_out else "")


def verdict_words(finding: Finding | None) -> str:
    """The verdict of the scorecard, with what would decide where it is open."""
    if finding is None:
        return "not run"
    if finding.verdict == "not run" and finding.n:
        return "not run at this scale"
    if finding.explored:
        return "open: seen before the claim was changed"
    if finding.verdict == "open" and finding.decides:
        if finding.decides > finding.n:
            return f"open: n = {finding.decides} would decide"
        return f"open: a few more than n = {finding.n} would decide"  # so many usually do, and here did not
    return finding.verdict


def verdict_mark(words: str, count: int = 1) -> Markup:
    """A verdict in its colour (MyST); count: of how many claims it is."""
    kind = "not-run" if words.startswith("not run") else words.split(":")[0].replace(" ", "-")
    return Markup(f"[{agreeing(words, count)}]{{.verdict .{kind}}}")


def agreeing(verdict: str, count: int) -> str:
    """«holds here» of one claim, «hold here» of two."""
    return verdict if count == 1 else PLURALS.get(verdict, verdict)
