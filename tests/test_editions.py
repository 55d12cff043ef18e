"""The published edition: whole, and its verdicts follow from the data published beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lth.book import CHAPTERS
from lth.book.claims import PUBLISHED, findings, ledger
from lth.book.site import check


@pytest.mark.parametrize("chapter, notebook", CHAPTERS.items())
def test_every_chapter_is_published_whole(chapter, notebook):
    check(PUBLISHED, chapter, Path(notebook).name)
    stamp = json.loads((PUBLISHED / chapter / "provenance.json").read_text())
    assert "uncommitted" not in stamp["commit"]
    found = [finding["id"] for finding in json.loads((PUBLISHED / chapter / "claims.json").read_text())]
    if any(findings(PUBLISHED)[claim_id].explored for claim_id in found if claim_id in ledger()):
        pytest.skip("the published edition is older than these claims")
    assert found == [claim.id for claim in ledger().values() if claim.chapter == chapter and not claim.needs]


def test_the_verdicts_of_the_basin_follow_from_its_tables():
    folder = PUBLISHED / "lt_basin"
    found = {finding["id"]: finding for finding in json.loads((folder / "claims.json").read_text())}
    table = pd.read_csv(folder / "data" / "distances.csv").pivot(index="seed", columns="method")
    paths = pd.read_csv(folder / "data" / "paths.csv")

    def barrier(method: str) -> list[float]:
        lines = paths[(paths.method == method) & (paths.path == "from the end") & paths.alpha.between(0, 1)]
        heights = []
        for _, line in lines.groupby("seed"):
            line = line.sort_values("alpha")
            chord = np.interp(line.alpha, [0, 1], [line.error.iloc[0], line.error.iloc[-1]])
            heights.append(100 * float((line.error - chord).max()))
        return heights

    scratch = "Scratch (diff. init.)"
    expected = {
        "E8.accuracy": table["accuracy"]["LT"] - table["accuracy"][scratch],
        "E8.d_init": table["d_init"][scratch] - table["d_init"]["LT"],
        "E8.d_final": table["d_final"][scratch] / table["d_final"]["LT"],
        "E8.lt_barrier": barrier("LT"),
        "E8.scratch_barrier": barrier(scratch),
    }
    for claim_id, samples in expected.items():
        interval = stats.ttest_1samp(samples, 0).confidence_interval(0.95)
        finding = found[claim_id]
        assert finding["n"] == len(samples)
        assert [finding["mean"], finding["low"], finding["high"]] == pytest.approx(
            [np.mean(samples), interval.low, interval.high]
        )
        least, most = ledger()[claim_id].accept
        inside = (least is None or interval.low > least) and (most is None or interval.high < most)
        assert (finding["verdict"] == "reproduced") == inside
