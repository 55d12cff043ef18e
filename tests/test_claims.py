"""Verdicts: the rule at its edges, two scales, power, the ledger itself, the scorecard."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from lth.book import CHAPTERS, claims, estimates, scorecard, verdicts
from lth.book.presets import parameters
from lth.errors import UsageError

AT_SCALE = parameters("lt_basin", "paper").model_dump()


def claim(low: float | None, high: float | None, **more) -> claims.Claim:
    told = {"id": "X1.test", "chapter": "lt_basin", "statement": "…", "paper": "…", "metric": "…", "unit": "points"}
    return claims.Claim(**told, replication="network", accept=(low, high), **more)


@pytest.mark.parametrize(
    "low, high, outcome",
    [
        (0, None, "confirmed"),
        (1, 4, "confirmed"),
        (2.5, None, "open"),
        (3.5, None, "contradicted"),
        (None, 1.5, "contradicted"),
        (None, 3.5, "confirmed"),
        (-1, 2.5, "open"),
    ],
)
def test_the_whole_interval_decides(low, high, outcome):
    samples = [2.4, 2.5, 2.6, 2.5, 2.5]
    assert verdicts.judge(claim(low, high), samples, AT_SCALE).outcome == outcome


@pytest.mark.parametrize(
    "accept, ones, others, outcome",
    [
        ((0, None), [1] * 15, [1] * 6 + [0] * 9, "confirmed"),
        ((0, None), [1] * 5, [1] * 2 + [0] * 3, "open"),
        ((0, None), [0] * 15, [1] * 15, "contradicted"),
        ((None, 0), [0] * 15, [1] * 15, "confirmed"),
    ],
)
def test_two_shares_are_judged_by_fishers_test(accept, ones, others, outcome):
    finding = verdicts.judge(claim(*accept, kind="shares"), (ones, others), AT_SCALE)
    assert finding.outcome == outcome and (finding.low, finding.high) == (None, None)
    if outcome == "open":  # at 100 against 40 per cent
        assert 8 < finding.decides < 15


def test_a_share_of_none_is_not_certain():
    finding = verdicts.judge(claim(None, 50, kind="share"), [False] * 3, AT_SCALE)
    assert finding.outcome == "open" and finding.value == 0 and finding.high == pytest.approx(70.8, abs=0.1)


def test_no_difference_in_any_unit_decides_nothing():
    finding = verdicts.judge(claim(0, None), [0.0, 0.0, 0.0], AT_SCALE)
    assert (finding.outcome, finding.value, finding.high, finding.decides) == ("open", 0, 0, None)
    assert verdicts.judge(claim(0, None), [-1.0, -1.0], AT_SCALE).outcome == "contradicted"


def test_an_estimate_is_judged_as_it_is_and_stays_in_the_possible_range():
    found = estimates.bootstrap(lambda some: len(set(some)) / 4, 8)
    finding = verdicts.judge(claim(0, None, kind="bootstrap", bounds=(0, 1)), found, AT_SCALE)
    assert finding.value == 2 and finding.high == 1 and finding.outcome == "confirmed"
    above = verdicts.judge(claim(90, None, bounds=(0, 100)), [99.0, 99.9, 99.8], AT_SCALE)
    assert above.high == 100


def test_units_that_failed_are_left_out_and_told():
    finding = verdicts.judge(claim(0, None), [1.0, float("nan"), 2.0, None, -math.inf, 1.5], AT_SCALE)
    assert (finding.n, finding.left_out, finding.value) == (3, 3, 1.5)
    assert "3 left out" in verdicts.interval(finding)


@pytest.mark.parametrize("samples", [[], [5.0], [1.0, float("nan")]])
def test_fewer_than_two_units_are_nothing_to_test(samples):
    finding = verdicts.judge(claim(0, None), samples, AT_SCALE)
    assert (finding.n, finding.value, finding.verdict) == (0, None, "not run")
    assert verdicts.interval(finding) == "nothing to test"


def test_what_would_decide():
    """The n at which such a mean and spread decide in four cases of five, against simulation."""
    samples = [0.5, -0.4, 1.2, 0.1, 0.3]
    finding = verdicts.judge(claim(0, None), samples, AT_SCALE)
    assert finding.outcome == "open"
    draws = np.random.default_rng(0).normal(np.mean(samples), np.std(samples, ddof=1), (20_000, finding.decides))
    low = draws.mean(1) - stats.t.ppf(0.975, finding.decides - 1) * draws.std(1, ddof=1) / np.sqrt(finding.decides)
    assert (low > 0).mean() == pytest.approx(0.81, abs=0.03)
    assert verdicts.verdict_words(finding) == f"open: n = {finding.decides} would decide"


def test_two_scales_two_words():
    smaller = claim(0, None, smallest={"steps": 1000, "model": ["lenet5"]})
    assert smaller.setting(AT_SCALE) == "paper" == smaller.setting({**AT_SCALE, "seeds": 99})
    others = {"seeds": 4, "dataset": "digits", "steps": 20_000, "lr": 0.1, "rewind_step": 100, "batch_size": 64}
    others |= {"points": 8, "prune_every": 50, "weight_decay": 1e-4, "momentum": 0.8}
    for name, value in others.items():
        assert smaller.setting({**AT_SCALE, name: value}) == "smaller", name
        assert claim(0, None).setting({**AT_SCALE, name: value}) == "below", name
    words = {}
    for steps, model in ((11_719, "lenet5"), (1000, "lenet5"), (999, "lenet5"), (1000, "lenet_300_100")):
        finding = verdicts.judge(smaller, [1, 2, 1, 2], {**AT_SCALE, "steps": steps, "model": model})
        words[steps, model] = verdicts.verdict_words(finding)
    assert list(words.values()) == ["reproduced", "holds here", "not run at this scale", "not run at this scale"]
    against = verdicts.judge(smaller, [-1, -2, -1, -2], {**AT_SCALE, "steps": 1000})
    assert verdicts.verdict_words(against) == "does not hold here"
    assert verdicts.verdict_words(None) == "not run"


def test_a_setting_of_its_own_is_the_papers():
    own = claim(0, None, paper_setting={"model": ["lenet_300_100"], "steps": 500})
    assert own.setting({**AT_SCALE, "model": "lenet_300_100", "steps": 600}) == "paper"
    assert own.setting(AT_SCALE) == "below"


def test_what_was_found_before_a_claim_changed_decides_nothing(monkeypatch):
    before = claim(0, None)
    finding = verdicts.judge(before, [1, 2, 1, 2], AT_SCALE)
    after = claim(0, None, changed={"date": "2026-11-25", "reason": "…"})
    monkeypatch.setattr(verdicts, "ledger", lambda: {"X1.test": after})
    assert finding.explored and verdicts.verdict_words(finding) == "open: seen before the claim was changed"
    again = verdicts.judge(after, [1, 2, 1, 2], AT_SCALE)
    assert not again.explored and again.verdict == "reproduced"


@pytest.mark.parametrize(
    "kind, accept, expected",
    [
        ("mean", (0, None), {"mean": 1.0, "sd": 1.0}),
        ("share", (50, None), {"share": 95.0}),
        ("shares", (0, None), {"shares": (100.0, 40.0)}),
    ],
)
def test_the_power_is_known_beforehand(kind, accept, expected):
    one = claim(*accept, kind=kind, expected={**expected, "source": "Table 0"})
    assert one.chance(one.needed) >= 0.8 > one.chance(one.needed - 1)
    assert one.chance(one.needed, nil=True) <= 0.026
    assert f"n = {one.needed}" in one.planned and "Table 0" in one.planned
    assert "unknown" in claim(0, None).planned


def test_the_ledger_is_complete_and_consistent():
    for claim_id, entry in claims.ledger().items():
        assert claim_id == entry.id and entry.chapter in CHAPTERS
        low, high = entry.accept
        assert low is not None or high is not None
        if entry.expected:
            told = {"shares": entry.expected.shares, "share": entry.expected.share}.get(entry.kind, entry.expected.mean)
            assert told is not None, claim_id
            assert entry.needed is None or entry.chance(entry.needed) >= 0.8
    with pytest.raises(UsageError, match="E8.accuracy"):
        claims.check_ids("lt_basin", [i for i in claims.ledger() if i != "E8.accuracy"])


def test_paper_numbers():
    assert claims.paper_numbers("E8", ["d_init", "d_final"], ["ticket"]) == [13.61, 8.03]


def test_the_scorecard_tells_what_was_found(tmp_path):
    chapter = tmp_path / "lt_basin"
    chapter.mkdir()
    good = verdicts.judge(claims.ledger()["E8.d_init"], [3.0, 3.1, 3.2], AT_SCALE)
    bad = verdicts.judge(claims.ledger()["E8.d_final"], [1.0, 1.1, 1.2], AT_SCALE)
    (chapter / "claims.json").write_text(json.dumps([good.model_dump(), bad.model_dump()]), encoding="utf-8")
    page = scorecard.page(tmp_path)
    assert "1 reproduced" in page and "1 not reproduced" in page and f"{len(claims.ledger()) - 2} not run" in page
    assert "3.1 [2.85, 3.35], n = 3" in page
    assert "[not reproduced]{.verdict .not-reproduced}" in page
