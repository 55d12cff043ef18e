"""Verdicts: intervals against scipy, the rule at its edges, the ledger itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lth.book import CHAPTERS, claims
from lth.book.presets import parameters
from lth.errors import LthError, UsageError

AT_SCALE = parameters("lt_basin", "paper").model_dump()


def claim(low: float | None, high: float | None) -> claims.Claim:
    return claims.Claim(
        id="X1.test",
        chapter="lt_basin",
        statement="…",
        paper="…",
        metric="…",
        unit="points",
        accept=(low, high),
        scale="paper",
    )


def test_the_interval_is_students(samples=(1.0, 2.0, 4.0, 3.5, 2.2)):
    finding = claims.judge(claim(0, None), samples, AT_SCALE)
    test = stats.ttest_1samp(samples, 0).confidence_interval(0.95)
    assert (finding.low, finding.high) == pytest.approx((test.low, test.high))
    assert finding.mean == pytest.approx(np.mean(samples)) and finding.n == 5


@pytest.mark.parametrize(
    "low, high, verdict",
    [
        (0, None, "reproduced"),
        (1, 4, "reproduced"),
        (2.5, None, "inconclusive"),
        (3.5, None, "not reproduced"),
        (None, 1.5, "not reproduced"),
        (None, 3.5, "reproduced"),
        (-1, 2.5, "inconclusive"),
    ],
)
def test_the_whole_interval_decides(low, high, verdict):
    samples = [2.4, 2.5, 2.6, 2.5, 2.5]
    assert claims.judge(claim(low, high), samples, AT_SCALE).verdict == verdict


@pytest.mark.parametrize("samples", [[5.0], [1.0, float("nan"), 2.0]])
def test_too_few_or_unusable_samples_are_refused(samples):
    with pytest.raises(LthError, match="X1.test needs two or more finite samples"):
        claims.judge(claim(0, None), samples, AT_SCALE)


def test_nothing_to_test_is_inconclusive():
    finding = claims.judge(claim(0, None), [], AT_SCALE)
    assert (finding.n, finding.mean, finding.verdict) == (0, None, "inconclusive")
    assert claims.interval(finding) == "nothing to test"


def test_only_the_papers_own_settings_decide():
    assert claim(0, None).at_scale(AT_SCALE) and claim(0, None).at_scale({**AT_SCALE, "seeds": 9})
    others = {"seeds": 4, "dataset": "digits", "steps": 20_000, "lr": 0.1, "rewind_step": 100, "batch_size": 64}
    others |= {"points": 8, "prune_every": 50, "weight_decay": 1e-4, "momentum": 0.8, "model": "lenet_300_100"}
    for name, value in others.items():
        assert not claim(0, None).at_scale({**AT_SCALE, name: value}), name
    finding = claims.judge(claim(0, None), [1, 2, 1, 2], {**AT_SCALE, "steps": 10_000})
    assert claims.verdict_words(finding) == "not run at this scale"
    assert claims.verdict_words(None) == "not run"


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9))
def test_pseudo_values_of_a_mean_are_the_samples(values):
    data = np.array(values)
    assert claims.pseudo_values(lambda some: data[some].mean(), len(data)) == pytest.approx(values, abs=1e-6)


def test_pseudo_values_estimate_the_error_of_a_mean_over_pairs():
    """Against simulation: the jackknife's standard error of Gini's mean difference of 30 normal numbers."""
    generator = np.random.default_rng(1)

    def gini(data: np.ndarray) -> float:
        return np.abs(data[:, None] - data).sum() / (len(data) * (len(data) - 1))

    many = generator.normal(size=(400, 30))
    truth = np.std([gini(data) for data in many])
    errors = [
        np.std(claims.pseudo_values(lambda some, d=data: gini(d[some]), 30), ddof=1) / np.sqrt(30) for data in many[:60]
    ]
    assert np.mean(errors) == pytest.approx(truth, rel=0.15)


def test_the_ledger_is_complete_and_consistent():
    for claim_id, entry in claims.ledger().items():
        assert claim_id == entry.id and entry.chapter in CHAPTERS
        low, high = entry.accept
        assert low is not None or high is not None
        assert "mean" in entry.test
    with pytest.raises(UsageError, match="E8.accuracy"):
        claims.check_ids("lt_basin", [i for i in claims.ledger() if i != "E8.accuracy"])


def test_paper_numbers():
    assert claims.paper_numbers("E8", ["d_init", "d_final"], ["LT"]) == [13.61, 8.03]


def test_the_scorecard_tells_what_was_found(tmp_path):
    chapter = tmp_path / "lt_basin"
    chapter.mkdir()
    good = claims.judge(claims.ledger()["E8.d_init"], [3.0, 3.1, 3.2], AT_SCALE)
    bad = claims.judge(claims.ledger()["E8.d_final"], [1.0, 1.1, 1.2], AT_SCALE)
    (chapter / "claims.json").write_text(json.dumps([good.model_dump(), bad.model_dump()]), encoding="utf-8")
    page = claims.scorecard(tmp_path)
    assert "1 reproduced" in page and "1 not reproduced" in page and f"{len(claims.ledger()) - 2} not run" in page
    assert "3.1 [2.85, 3.35], n = 3" in page
    assert "[not reproduced]{.verdict .not-reproduced}" in page
