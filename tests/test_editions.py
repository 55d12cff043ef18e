"""The published edition: whole, and its verdicts follow from the data published beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lth.book import CHAPTERS, claims
from lth.book.claims import PUBLISHED, ledger
from lth.book.site import check


@pytest.mark.parametrize("chapter, notebook", CHAPTERS.items())
def test_every_chapter_is_published_whole(chapter, notebook):
    check(PUBLISHED, chapter, Path(notebook).name)
    stamp = json.loads((PUBLISHED / chapter / "provenance.json").read_text(encoding="utf-8"))
    assert "uncommitted" not in stamp["commit"]
    found = [finding["id"] for finding in json.loads((PUBLISHED / chapter / "claims.json").read_text(encoding="utf-8"))]
    if any(claims.findings(PUBLISHED)[claim_id].explored for claim_id in found if claim_id in ledger()):
        pytest.skip("the published edition is older than these claims")
    assert found == [claim.id for claim in ledger().values() if claim.chapter == chapter and not claim.needs]


def test_the_verdicts_of_the_basin_follow_from_its_tables():
    findings = claims.findings(PUBLISHED)
    if findings["E8.lt_barrier"].explored:
        pytest.skip("the published edition is older than these claims")
    folder = PUBLISHED / "lt_basin" / "data"
    networks = pd.read_csv(folder / "distances.csv").query("accuracy > 20")  # those that learned, of ten classes
    networks = networks.groupby(["method", "solution"])[["accuracy", "d_init", "d_final"]]
    ticket, scratch = (networks.mean().loc[method] for method in ("LT", "Scratch (diff. init.)"))
    expected = {
        "E8.accuracy": ticket.accuracy - scratch.accuracy,
        "E8.d_init": scratch.d_init - ticket.d_init,
        "E8.d_final": scratch.d_final / ticket.d_final,
    }
    for claim_id, samples in expected.items():
        samples, finding = samples.dropna(), findings[claim_id]
        interval = stats.ttest_1samp(samples, 0).confidence_interval(0.95)
        assert finding.n == len(samples)
        assert [finding.value, finding.low, finding.high] == pytest.approx(
            [np.mean(samples), interval.low, interval.high]
        )
        least, _ = ledger()[claim_id].accept
        outcome = "confirmed" if interval.low > least else "contradicted" if interval.high <= least else "open"
        assert finding.outcome == outcome

    paths = pd.read_csv(folder / "paths.csv")
    lines = paths[(paths.method == "LT") & (paths.path == "from the end") & paths.alpha.between(0, 1)]
    connected = []
    for _, line in lines.sort_values("alpha").groupby("solution"):
        chord = np.interp(line.alpha, [0, 1], [line.error.iloc[0], line.error.iloc[-1]])
        connected.append(100 * (line.error - chord).max() < 2)
    finding, told = findings["E8.lt_barrier"], stats.binomtest(sum(connected), len(connected)).proportion_ci(0.95)
    assert finding.n == len(connected) and finding.value == pytest.approx(100 * np.mean(connected))
    assert [finding.low, finding.high] == pytest.approx([100 * told.low, 100 * told.high])
