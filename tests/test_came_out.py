"""The page "What came out": its counts are the verdicts', its words the notes', and it says when nothing is decided."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lth.book import CHAPTERS, came_out, notes, verdicts
from lth.book.claims import ledger


@pytest.fixture
def edition(tmp_path, monkeypatch):
    """An edition in which chapter 3 has two verdicts and a figure, with a note."""
    folder = tmp_path / "editions" / "published"
    chapter = folder / "lt_basin"
    (chapter / "figures").mkdir(parents=True)
    (chapter / "figures" / "paths.png").write_bytes(b"a picture")
    told = {"data": "a*b", "preset": "night", "parameters": {"dataset": "a*b", "seeds": 4}}
    (chapter / "provenance.json").write_text(json.dumps(told), encoding="utf-8")
    found = [
        {"id": claim.id, "n": 20, "value": 1, "low": 0.5, "high": 2, "outcome": outcome, "setting": setting,
         "test": claim.version}
        for claim, outcome, setting in (
            (ledger()["E8.lt_barrier"], "confirmed", "paper"), (ledger()["E8.accuracy"], "contradicted", "smaller")
        )
    ]  # fmt: skip
    (chapter / "claims.json").write_text(json.dumps(found), encoding="utf-8")
    cell = {
        "cell_type": "code",
        "source": 'chapter.save("paths", paths, fig)',
        "metadata": {"mystnb": {"figure": {"caption": "Lines. [Data](data/x.csv)."}, "image": {"alt": "Two lines."}}},
    }
    (chapter / Path(CHAPTERS["lt_basin"]).name).write_text(json.dumps({"cells": [cell]}), encoding="utf-8")
    monkeypatch.setattr(verdicts, "PUBLISHED", folder)
    (folder.with_name("notes")).mkdir()
    return folder


def test_a_page_counts_and_shows(edition, tmp_path):
    source = tmp_path / "source"
    (source / "book").mkdir(parents=True)
    came_out.write(edition, source)
    page = (source / "book" / "what_came_out.md").read_text(encoding="utf-8")
    told = page.split("{doc}`../notebooks/03_lt_basin`")[1].split("\n#")[0]
    assert "1 [reproduced]{.verdict .reproduced}, 1 [does not hold here]" in told
    assert r"[LeNet5 on a\*b]{.ran} [n = 4 pruning solutions]{.ran}" in told and "came_out/lt_basin.png" in told
    assert ":alt: Two lines." in told and "\nLines.\n" in told and "[Data]" not in told
    assert (source / "book" / "came_out" / "lt_basin.png").read_bytes() == b"a picture"
    main = ledger()["E8.lt_barrier"]
    number = f"({main.metric}: 1 [0.5, 2], n = 20)"
    assert f"- {main.statement.rstrip('.')}: [reproduced]{{.verdict .reproduced}} {number}" in page


def test_a_verdict_agrees_with_its_count():
    assert verdicts.verdict_mark("does not hold here", 2) == "[do not hold here]{.verdict .does-not-hold-here}"
    assert verdicts.verdict_mark("holds here") == "[holds here]{.verdict .holds-here}"
    assert verdicts.agreeing("open", 3) == "open" and verdicts.agreeing("check passed", 3) == "checks passed"


def test_every_claim_counts_once(edition):
    rows = re.findall(r"^  - (\d+ \[.*)$", came_out.page(edition), re.MULTILINE)
    assert len(rows) == len(came_out.PAPERS) == 4
    counted = sum(int(number) for row in rows for number in re.findall(r"(\d+) \[", row))
    assert counted == sum(not claim.check for claim in ledger().values())
    assert {claim.chapter for claim in ledger().values()} <= set().union(*(p.figures for p in came_out.PAPERS.values()))


def test_words_come_from_the_note_of_the_published_edition(edition):
    assert "2 of the chapter's" in came_out.page(edition)
    note = edition.with_name("notes") / "lt_basin.md"
    note.write_text("### What came out\n\nTickets return.\n\n### Where they differ\n\nNot here.\n", encoding="utf-8")
    page = came_out.page(edition)
    assert "Tickets return." in page and "Not here." not in page
    assert notes.words(edition.with_name("other"), "lt_basin") == ""


def test_a_page_says_when_nothing_is_decided(edition):
    page = came_out.page(edition)
    assert page.count("claims of the chapter is decided here: there is nothing") == len(CHAPTERS) - 1
    assert "Not run in this edition." in page
