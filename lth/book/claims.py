"""The claims ledger: what the papers say, and the test that decides, fixed before the run.

A claim is a statement about some number of independent units, for example "the scratch network ends further away than
the ticket: the mean difference over pruning solutions is above zero". It has an accepted range, and its units make an
interval (`lth.book.estimates`): inside the range the statement is confirmed, outside it is contradicted, across its
edge it is open (`lth.book.verdicts`).
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from lth.book import power
from lth.book.presets import parameters
from lth.errors import UsageError

LEDGER = Path(__file__).parent / "ledger"
FREE = {"first_seed", "precision"}  # parameters that decide nothing about a setting


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
    kind: Literal["mean", "median", "share", "shares", "ratio", "bootstrap"] = "mean"
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

        A bootstrap, a ratio and a median are reckoned as if they were means of normal samples.
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


def paper_numbers(row: str, measures: Sequence[str], methods: Sequence[str]) -> list[float]:
    """The paper's numbers of a row ("E8") from its table in the ledger, measure by measure, method by method."""
    with open(LEDGER / f"{row}_numbers.csv", newline="", encoding="utf-8") as file:
        told = {(line["measure"], line["method"]): float(line["paper"]) for line in csv.DictReader(file)}
    return [told[measure, method] for measure in measures for method in methods]


def check_ids(chapter: str, ids: Sequence[str]) -> None:
    """UsageError unless `ids` are exactly the chapter's claims, with or without those that need more."""
    own = {claim.id: claim for claim in ledger().values() if claim.chapter == chapter}
    always = {claim.id for claim in own.values() if not claim.needs}
    if wrong := sorted((always - set(ids)) | (set(ids) - own.keys())):
        raise UsageError(f"claims missing from the ledger or from the chapter {chapter}: {', '.join(wrong)}")
