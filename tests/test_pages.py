"""One page at a time: a chapter by itself, and two executions of it side by side."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from lth.book import CHAPTERS, beside, pages, site, verdicts
from lth.book.came_out import told_of_figure
from lth.book.claims import ledger
from lth.errors import UsageError
from lth.files import ROOT

NAME, NOTEBOOK = "lt_basin", "03_lt_basin.ipynb"
IDS = [claim.id for claim in ledger().values() if claim.chapter == NAME and not claim.check][:4]


def finding(name: str, value: float, outcome: str) -> dict:
    told = {"id": name, "test": ledger()[name].version, "outcome": outcome, "setting": "smaller"}
    return told | {"n": 4, "value": value, "low": value - 1, "high": value + 1}


def execution(folder: Path, value: float, outcome: str, **changed: object) -> Path:
    """A chapter as `lth run` leaves it, with a figure, two parameters and two findings."""
    (folder / "figures").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "data" / "paths.csv").write_text("alpha,loss\n0,1\n", encoding="utf-8")
    Image.new("L", (2, 2)).save(folder / "figures" / "paths.png")
    caption = "Loss, see {numref}`fig-other`. [Data](data/lt_basin/paths.csv)."
    figure = {"figure": {"caption": caption, "name": "fig-paths"}, "image": {"alt": "A falling line."}}
    code = {"cell_type": "code", "execution_count": 1, "outputs": [], "source": 'chapter.save("paths", table, fig)'}
    text = "# The basin\n\nSee {doc}`the glossary <../book/glossary>`, {doc}`02_dst_updates` and {term}`ticket`."
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": text},
        code | {"metadata": {"mystnb": figure, "papermill": {"status": "completed"}}},
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "papermill": {"exception": None}}
    content = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}
    (folder / NOTEBOOK).write_text(json.dumps(content), encoding="utf-8")
    stamp = {"chapter": NAME, "preset": "quick", "data": "a $x$", "parameters": {"steps": 600, "lr": 0.1} | changed}
    (folder / "provenance.json").write_text(json.dumps(stamp), encoding="utf-8")
    found = [finding(IDS[0], value, outcome), finding(IDS[1], 5, "open"), finding(IDS[3], 1, "open")]
    found[2] |= {"n": 0} if changed else {}
    (folder / "claims.json").write_text(json.dumps(found), encoding="utf-8")
    return folder


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return execution(tmp_path / "edition" / NAME, 2, "confirmed")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return execution(tmp_path / "changed" / "quick,lr=0.2" / NAME, -2, "contradicted", lr=0.2)


def test_side_by_side_are_what_differs_and_what_came_out(one, other):
    text = beside.page(one, other)
    differs = text[text.index("## What differs") : text.index("## Claims")]
    assert "* - lr\n  - 0.1\n  - 0.2\n" in differs and "steps" not in differs
    apart, alike, once = text[text.index("came out differently") : text.index("## Figures")].split("## Claims that")
    assert IDS[0] in apart and "2 [1, 3], n = 4" in apart and "-2 [-3, -1], n = 4" in apart
    assert "holds here" in apart and "does not hold here" in apart
    assert IDS[1] in alike and IDS[0] not in alike + once and IDS[2] not in text
    assert IDS[3] in once and "nothing to test" in once and IDS[3] not in apart + alike
    assert r"a \$x\$" in text and "{image} A/paths.png" in text and "{image} B/paths.png" in text
    assert "Loss, see *fig-other*." in text and "data/lt_basin" not in text


def test_no_caption_leads_to_data_that_are_not_beside_the_page():
    """Nor leaves a link's comma or stop behind."""
    for chapter in CHAPTERS:
        notebook = json.loads((ROOT / CHAPTERS[chapter]).read_text(encoding="utf-8"))
        code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
        found = [told_of_figure(notebook, name)[0] for name in re.findall(r'chapter\.save\("(\w+)"', code)]
        captions = [caption for caption in found if caption]
        assert len(captions) >= 4
        for caption in captions:
            assert "](data/" not in caption and caption.rstrip()[-1] in ".?)!`", caption


def test_a_figure_that_only_one_has_is_said_to_be_missing(one, other):
    (other / "figures" / "paths.png").unlink()
    text = beside.page(one, other)
    assert "{image} A/paths.png" in text and "B/paths.png" not in text and "No such figure." in text


def test_what_a_smaller_run_saw_is_no_verdict(one):
    entries = json.loads((one / "claims.json").read_text(encoding="utf-8"))
    (one / "claims.json").write_text(json.dumps([entries[0] | {"setting": "below"}]), encoding="utf-8")
    (line,) = beside.told(one)
    assert line.startswith(f"{IDS[0]}: not run at this scale (seen in that run: confirmed): 2 [1, 3], n = 4")


def test_no_run_takes_the_page_of_another(tmp_path):
    edition = tmp_path / "build" / "edition"
    for folder in (edition, verdicts.PUBLISHED):
        assert pages.place(folder / "lt_basin", edition) == "lt_basin"
    assert pages.place(tmp_path / "quick,lr=1" / "lt_basin", edition) == "lt_basin-quick,lr=1"


def test_what_cannot_be_compared_is_refused(one, tmp_path):
    with pytest.raises(UsageError, match="name two executions"):
        beside.page(one, one)
    with pytest.raises(UsageError, match="name two of the same chapter"):
        beside.page(one, tmp_path / "tweaks")


def test_an_execution_is_a_chapter_of_an_edition_or_a_folder(one, other, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verdicts, "PUBLISHED", tmp_path / "published")
    assert pages.execution("3", one.parent) == pages.execution(NAME, one.parent) == one
    assert pages.execution(str(other), one.parent) == other
    assert pages.execution("edition/lt_basin", tmp_path / "nowhere") == one
    shutil.copytree(one, tmp_path / "published" / NAME)
    assert pages.execution("3", tmp_path / "nowhere") == tmp_path / "published" / NAME
    one.rename(renamed := one.with_name("mine"))
    for word, says in {
        "lt_basen": "did you mean lt_basin",
        "./lt_basin": "there is no folder",
        "tweaks": "is not in the edition",
        str(tmp_path): "is no execution of a chapter",
        str(renamed): "give the folder that name again",
    }.items():
        with pytest.raises(UsageError, match=says):
            pages.execution(word, tmp_path / "edition")


def test_links_to_pages_that_are_not_there_are_words():
    text = "{doc}`the glossary <../book/glossary>`, {doc}`ask`, {doc}`a way\\nto ask <ask>` {term}`ask`"
    assert pages.linked(text, {"glossary"}) == (
        "{doc}`the glossary <../book/glossary>`, *ask*, a way\\nto ask {term}`ask`"
    )


def test_a_page_takes_the_place_of_an_older_one_only(one, tmp_path, monkeypatch):
    def build(source: Path, folder: Path) -> None:
        shutil.copytree(source, folder / "_build" / "html")
        (folder / "_build" / "html" / "notebooks" / "03_lt_basin.html").touch()

    monkeypatch.setattr(site, "jupyter_book", build)
    out = tmp_path / "pages" / NAME
    page = pages.show(one, out)
    assert page == out / "notebooks" / "03_lt_basin.html" and page.is_file()
    assert (out / "notebooks" / "data" / NAME / "paths.csv").is_file()
    (out / "older").touch()
    assert pages.show(one, out) == page and not (out / "older").exists()
    assert [path.name for path in out.parent.iterdir()] == [NAME]
    page.unlink()
    with pytest.raises(UsageError, match="holds something that is not pages of this book"):
        pages.show(one, out)


@pytest.mark.thorough
def test_both_pages_are_built_without_a_warning(one, other, tmp_path):
    page = pages.show(one, tmp_path / "show").read_text(encoding="utf-8")
    assert "<h1>The basin" in page and "glossary.html" in page and "02_dst_updates" in page
    page = pages.compare(one, other, tmp_path / "compared").read_text(encoding="utf-8")
    assert page.count("<img alt=") >= 2 and IDS[0] in page
