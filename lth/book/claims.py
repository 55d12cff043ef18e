"""The claims ledger: what the papers say, the test that decides, fixed before the run, and what came out.

A claim is a statement about some number of independent units, for example "the scratch network ends further away than
the ticket: the mean difference over pruning solutions is above zero". It has an accepted range, and its units make an
interval (`lth.book.estimates`): inside the range the statement is confirmed, outside it is contradicted, across its
edge it is open. Confirmed and contradicted have two words each: at the paper's own settings a claim is *reproduced* or
*not reproduced*; in a smaller setting in which the statement makes sense it *holds here* or *does not hold here*. In a
setting smaller still it was *not run*.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from lth.book import CHAPTERS, estimates, power
from lth.book.estimates import Estimate
from lth.book.presets import parameters
from lth.book.text import Markup
from lth.errors import UsageError
from lth.files import ROOT

LEDGER = Path(__file__).parent / "ledger"
PUBLISHED = ROOT / "book" / "editions" / "published"
FREE = {"first_seed", "precision"}  # parameters that decide nothing about a setting
WORDS = {  # setting, whether the statement came out
    ("paper", "confirmed"): "reproduced",
    ("paper", "contradicted"): "not reproduced",
    ("smaller", "confirmed"): "holds here",
    ("smaller", "contradicted"): "does not hold here",
}


class Expected(BaseModel):
    """What the units are if the paper is right: mean and standard deviation, or the share in per cent, or two shares.

    nil: the mean or share if there were no effect; if not given, the edge of the accepted range. source: where these
    numbers are from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float | None = None
    sd: float | None = None
    share: float | None = None
    shares: tuple[float, float] | None = None
    nil: float | None = None
    source: str


class Changed(BaseModel):
    """That a claim, its test or its measure was changed after data had been seen: when, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: str
    reason: str


class Claim(BaseModel):
    """One row of the ledger.

    replication: what is drawn anew for each of the n units, in the singular. kind: of the quantity tested, see
    `lth.book.estimates`. accept: lowest and highest value that agree with the claim, None for no limit. bounds: which
    values are possible at all. paper_setting, smallest: parameters of a run at the paper's own settings, and of the
    smallest in which the statement makes sense: a number is the least, a list names the choices; without a
    paper_setting it is the preset `paper`. needs: what more than the preset `paper` it takes. main: one of the few that
    the book is about, chosen beforehand. check: an identity of the mathematics, no evidence about networks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    chapter: str
    statement: str
    paper: str
    metric: str
    unit: str
    replication: str
    kind: Literal["mean", "median", "share", "shares", "bootstrap"] = "mean"
    accept: tuple[float | None, float | None]
    bounds: tuple[float | None, float | None] = (None, None)
    paper_setting: dict[str, Any] | None = None
    smallest: dict[str, Any] = {}
    expected: Expected | None = None
    changed: Changed | None = None
    needs: str | None = None
    main: bool = False
    check: bool = False

    @property
    def row(self) -> str:
        """What of the paper it is about, a figure or table most often: «E8», see `shown`."""
        return self.id.split(".")[0]

    @property
    def version(self) -> str:
        """The date of the last change of the claim, its test or its measure; empty where there was none."""
        return self.changed.date if self.changed else ""

    @property
    def limits(self) -> tuple[float, float]:
        """The accepted range, ±∞ for no limit."""
        low, high = self.accept
        return -math.inf if low is None else low, math.inf if high is None else high

    @property
    def test(self) -> str:
        """The accepted range in words."""
        (low, high), what = self.accept, {"bootstrap": "value", "shares": "difference"}.get(self.kind, self.kind)
        if high is None:
            return f"{what} > {low:g}"
        return f"{what} < {high:g}" if low is None else f"{low:g} < {what} < {high:g}"

    def setting(self, values: Mapping[str, Any]) -> Literal["paper", "smaller", "below"]:
        """What a run with these parameters is to the claim: at the paper's settings, smaller, or below the smallest."""
        if self.paper_setting is None:
            needed = parameters(self.chapter, "paper").model_dump()
            free = FREE | {"seeds"} | {name for name in values if name.startswith("imagenet")}  # a section by itself
            same = {name: value for name, value in values.items() if name not in free}
            whole = all(needed[name] == value for name, value in same.items()) and values["seeds"] >= needed["seeds"]
        else:
            whole = _meets(values, self.paper_setting)
        if whole:
            return "paper"
        return "smaller" if self.smallest and _meets(values, self.smallest) else "below"

    def chance(self, n: int, nil: bool = False) -> float | None:
        """How likely n units confirm the claim if the paper is right, or if there is no effect; None: nothing is known.

        A bootstrap and a median are reckoned as if they were means of normal samples.
        """
        low, high = self.limits
        told = self.expected
        if told is None:
            return None
        if self.kind == "shares":
            one, other = told.shares
            return power.of_shares(n, high == math.inf, *((one, one) if nil else (one, other)))
        edge = told.nil if told.nil is not None else low if high == math.inf else high
        if self.kind == "share":
            return power.of_share(n, low, high, edge if nil else told.share)
        return power.of_mean(n, low, high, edge if nil else told.mean, told.sd)

    @property
    def needed(self) -> int | None:
        """The n with which the claim is confirmed in four cases of five if the paper is right."""
        return None if self.expected is None else power.enough(self.chance)

    @property
    def planned(self) -> str:
        """The power in words."""
        if self.expected is None:
            return "unknown: the paper gives no number and no spread"
        if (n := self.needed) is None:
            return f"more than {power.MOST} {self.replication}s needed"
        right, nil = (100 * self.chance(n, none) for none in (False, True))
        return (
            f"n = {n}: confirmed in {right:.0f} % of cases if the paper is right, in {nil:.1f} % if there is no effect "
            f"({self.expected.source})"
        )


def _meets(values: Mapping[str, Any], needed: Mapping[str, Any]) -> bool:
    """Whether parameters are at least the numbers needed, and among the choices."""
    return all(
        values[name] in least if isinstance(least, list) else values[name] >= least for name, least in needed.items()
    )


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


@cache
def ledger() -> dict[str, Claim]:
    """All claims by id, in the order of the papers."""
    claims = []
    for file in sorted(LEDGER.glob("*.json")):
        told = json.loads(file.read_text(encoding="utf-8"))
        for entry in told["claims"]:  # settings that many claims share have names
            shared = {
                field: told["settings"][entry[field]]
                for field in ("paper_setting", "smallest")
                if isinstance(entry.get(field), str)
            }
            claims.append(Claim(**entry | shared))
    return {claim.id: claim for claim in claims}


class Shown(NamedTuple):
    """A figure or table of a paper, and ours: names of figures, tables and films in the book, or why there is none.

    rows: what claims about it begin with.
    """

    paper: str
    theirs: str
    rows: list[str]
    ours: list[str]
    why: str


@cache
def shown() -> list[Shown]:
    """The papers' figures and tables, in their order."""
    with open(LEDGER / "figures.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    return [Shown(x["paper"], x["theirs"], x["rows"].split(), x["ours"].split(), x["why"]) for x in lines]


def judge(claim: Claim, samples: Any, values: Mapping[str, Any]) -> Finding:
    """The finding from one sample per unit, in a run with the parameters `values`.

    samples: numbers; of the kind `share` truth values, of `shares` two lists of them, of `bootstrap` an Estimate. NaN
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
    elif found.high <= low or found.low >= high:
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


def paper_numbers(row: str, measures: Sequence[str], methods: Sequence[str]) -> list[float]:
    """The paper's numbers of a row ("E8") from its table in the ledger, measure by measure, method by method."""
    with open(LEDGER / f"{row}_numbers.csv", newline="", encoding="utf-8") as file:
        told = {(line["measure"], line["method"]): float(line["paper"]) for line in csv.DictReader(file)}
    return [told[measure, method] for measure in measures for method in methods]


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


def check_ids(chapter: str, ids: Sequence[str]) -> None:
    """UsageError unless `ids` are exactly the chapter's claims, with or without those that need more."""
    own = {claim.id: claim for claim in ledger().values() if claim.chapter == chapter}
    always = {claim.id for claim in own.values() if not claim.needs}
    if wrong := sorted((always - set(ids)) | (set(ids) - own.keys())):
        raise UsageError(f"claims missing from the ledger or from the chapter {chapter}: {', '.join(wrong)}")


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
    return told + (f", {finding.left_out} failed and left out" if finding.left_out else "")


def verdict_words(finding: Finding | None) -> str:
    """The verdict of the scorecard, with what would decide where it is open."""
    if finding is None:
        return "not run"
    if finding.verdict == "not run" and finding.n:
        return "not run at this scale"
    if finding.explored:
        return "open: seen before the claim was changed"
    if finding.verdict == "open" and finding.decides:
        return f"open: n = {finding.decides} would decide"
    return finding.verdict


def verdict_mark(words: str) -> Markup:
    """A verdict in its colour (MyST)."""
    kind = "not-run" if words.startswith("not run") else words.split(":")[0].replace(" ", "-")
    return Markup(f"[{words}]{{.verdict .{kind}}}")
