"""A chapter's page: its answer on top, the ends of captions, links, the note, the citation; and the papers' figures."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from lth.book import CHAPTERS, badge, claims, finishing, gallery, verdicts, what_runs
from lth.book.claims import ledger, shown
from lth.book.presets import parameters
from lth.files import ROOT

TABLE = ":::{table} The verdicts.\n:name: tab-verdicts-of-x\n\n| claim |\n| --- |\n| E8.d\\_final: It ends. |\n:::"


def code(source: str, outputs: list[dict] = (), **metadata: object) -> dict:
    outputs = [{"output_type": "display_data", "metadata": {}, "data": data} for data in outputs]
    return {"cell_type": "code", "execution_count": 1, "metadata": metadata, "source": source, "outputs": outputs}


@pytest.fixture
def executed(tmp_path: Path) -> tuple[dict, Path]:
    """A chapter as the runner leaves it: a notebook and its folder."""
    folder = tmp_path / "lt_basin"
    (folder / "data").mkdir(parents=True)
    (folder / "figures").mkdir()
    (folder / "figures" / "paths.png").write_bytes(b"png")
    table = pd.DataFrame({"method": ["ticket", "ticket", "Scratch"], "solution": [3, 4, 5], "loss": [0.1, 0.2, 0.3]})
    table.to_csv(folder / "data" / "paths.csv", index=False)
    values = parameters("lt_basin", "quick", {"steps": 700}).model_dump()
    stamp = {"preset": "quick", "data": "digits", "commit": "abc (with changes)", "finished": "2031-01-01T00:00:00"}
    (folder / "provenance.json").write_text(json.dumps(stamp | {"parameters": values}), encoding="utf-8")
    figure = {"caption": "Loss. [Data](data/lt_basin/paths.csv).", "name": "fig-paths"}
    shown = {"figure": figure, "image": {"alt": "A line."}}
    markdown = {"cell_type": "markdown", "metadata": {}}
    cells = [
        markdown | {"source": "# The basin\n\nThe claim.\n\n## Parameters\n\nThese."},
        code("def curve(ax):\n    sns.lineplot(errorbar=figures.t_interval)\n\n\nx = 1"),
        code('curve(ax)\nchapter.save("r", r)\nchapter.save("paths", t, fig)', [{"image/png": "coarse"}], mystnb=shown),
        code("judge()", [{"text/markdown": TABLE}]),
        code("film()", [{"text/html": "<figure id='film-x'><figcaption>Moves.</figcaption></figure>"}]),
        markdown | {"source": "## Change this\n\n## Where these results come from"},
    ]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}, folder


def test_a_page_has_what_its_execution_says(executed):
    notebook, folder = executed
    finishing.finish(notebook, "lt_basin", folder, borrowed=False, url="https://example.org/x")
    first = notebook["cells"][0]["source"]
    assert first.startswith("# The basin\n\nThe claim.\n\n::::{div} opening")
    assert first.endswith("## Parameters\n\nThese.")
    badge = ("[LeNet5 on scikit-learn's digits]", "[n = 4 pruning solutions]", "[700 steps of 64 images]")
    assert "preset quick, but with steps 700 in place of 600]" in first
    assert all(words in first for words in (*badge, "[80 % sparse]", "#E8.d_final", "{numref}`fig-paths`"))
    caption = notebook["cells"][2]["metadata"]["mystnb"]["figure"]["caption"]
    assert "LeNet5 on scikit-learn's digits, n = 2 pruning solutions." in caption and "(Student's t)." in caption
    assert '#E8.accuracy"' in caption and '#E8.d_final"' in caption
    assert notebook["cells"][2]["outputs"][0]["data"]["image/png"] == base64.b64encode(b"png").decode()
    verdicts = notebook["cells"][3]["outputs"][0]["data"]["text/markdown"]
    assert verdicts.startswith("```{list-table} The verdicts.\n:name: tab-verdicts-of-x\n")
    own = [claim for claim in claims.ledger().values() if claim.chapter == "lt_basin"]
    for claim in own:  # as the ledger has them today, whatever was told when it was run
        assert f'<a href="../book/scorecard.html#{claim.id}">{claim.id}</a> {claim.statement}' in verdicts
    assert "It ends." not in verdicts and verdicts.count("<summary>") == len(own)
    assert "<b>Film 3.1.</b> Moves." in notebook["cells"][4]["outputs"][0]["data"]["text/html"]
    cite = notebook["cells"][-1]["source"]
    assert "title = {The basin}" in cite and "year = {2031}" in cite and "commit abc}" in cite and "example.org" in cite
    nbformat.validate(nbformat.from_dict(notebook))


def test_of_two_cells_of_parameters_the_usual_one_is_folded(executed):
    notebook, folder = executed
    notebook["cells"][1:1] = [code("seeds = 3", tags=["parameters"]), code("seeds = 4", tags=["injected-parameters"])]
    finishing.finish(notebook, "lt_basin", folder, borrowed=False)
    tags = [cell["metadata"].get("tags") for cell in notebook["cells"][1:4]]
    assert tags == [["parameters", "hide-input"], ["injected-parameters"], None]


def test_a_borrowed_page_and_one_without_a_stamp(executed):
    notebook, folder = executed
    (folder / "provenance.json").write_text("{}", encoding="utf-8")
    finishing.finish(notebook, "lt_basin", folder, borrowed=True)
    assert notebook["cells"][0]["source"].startswith("# The basin\n\n:::{note}")
    assert "{.ran}" in notebook["cells"][0]["source"]  # only that it is not known


def test_a_page_whose_run_is_older_than_its_tests_says_so(executed):
    notebook, folder = executed
    own = [claim for claim in claims.ledger().values() if claim.chapter == "lt_basin" and not claim.needs]
    changed = [claim for claim in own if claim.version]
    told = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    fresh = {claim.id: verdicts.judge(claim, [], told["parameters"]) for claim in own}
    assert finishing.older(own, told, fresh) == []
    old = fresh | {changed[0].id: fresh[changed[0].id].model_copy(update={"test": "2001-01-01"})}
    (words,) = finishing.older(own, told, old)
    assert f"are of 2031-01-01. 1 of its {len(own)} claims" in words and changed[0].version in words
    assert finishing.older(own, {}, old) == []  # nothing was run


def test_what_a_cell_says_of_its_networks_comes_first(executed):
    notebook, folder = executed
    cell, told = notebook["cells"][2], json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    for own, words in (({"model": "lenet_300_100"}, "LeNet 300-100 on "), ({"of": "noise alone"}, "Noise alone, n")):
        cell["metadata"]["lth"] = own
        assert words in finishing.ends(cell, notebook["cells"], folder, told, {})


def test_the_largest_group_is_counted(tmp_path):
    table = tmp_path / "t.csv"
    found = {"method": ["a", "a", "b"], "network": ["kind of a"] * 3, "seed": [1, 2, 9]}  # a name tells no units apart
    pd.DataFrame(found).to_csv(table, index=False)
    assert finishing.units(table) == "n = 2 networks"
    # a number that some units lack makes no groups of those that have as many
    lacking = {"method": ["None"] * 4 + ["b"], "mask": [0, 1, 2, 3, 0], "onset": [50, 100, None, None, 50]}
    pd.DataFrame(lacking).to_csv(table, index=False)
    assert finishing.units(table) == "n = 4 masks"
    pd.DataFrame({"method": ["", "", "b"], "mask": [0, 1, 0]}).to_csv(table, index=False)  # a name may be blank
    assert finishing.units(table) == "n = 2 masks"
    pd.DataFrame({"x": [0.5]}).to_csv(table, index=False)
    assert finishing.units(table) == ""


def test_a_note_stands_in_its_chapter(executed, monkeypatch):
    notebook, folder = executed
    beside = folder.parent.with_name("notes")
    beside.mkdir()
    text = "### What came out\n\nIt holds.\n\n### Where they differ\n\nHere.\n"
    (beside / "lt_basin.md").write_text(text, encoding="utf-8")
    monkeypatch.setattr(verdicts, "PUBLISHED", folder.parent)
    finishing.finish(notebook, "lt_basin", folder, borrowed=False)
    last = notebook["cells"][-2]["source"]
    assert "(differs-lt_basin)=\n## Where they differ\n\nHere.\n\n## Where these results come from" in last
    assert "**What came out.** It holds." in notebook["cells"][0]["source"]


def test_the_papers_figures_lead_to_ours():
    """Each name of ours is in a notebook, each row in the ledger, and each caption that names the paper's is listed."""
    captions, names = {}, set()
    for path in CHAPTERS.values():
        for cell in nbformat.read(ROOT / path, as_version=4).cells:
            if figure := cell.metadata.get("mystnb", {}).get("figure"):
                captions[figure["name"]] = figure["caption"]
            words = re.findall(r'"([a-z0-9-]+)"', cell.source)
            names |= {f"{kind}-{name}" for kind in ("tab", "film") for name in words}
    listed = {name for line in shown() for name in line.ours}
    assert listed <= names | set(captions)
    assert {row for line in shown() for row in line.rows} >= {claim.row for claim in ledger().values()}
    assert {name for name, caption in captions.items() if re.search(r"the paper's (Fig|Tab)", caption)} <= listed
    assert all(line.ours or line.why for line in shown())


def test_the_table_of_presets_tells_what_they_run():
    told = what_runs.table().splitlines()
    assert len(told) == 2 + len(CHAPTERS) and "`quick`" in told[0]
    assert told[4].count("LeNet5 on ") == 4 and "LeNet5 on MNIST, n = 20, 11,719 steps" in told[4]
    assert what_runs.MARK in (ROOT / "book" / "rerun.md").read_text(encoding="utf-8")


def test_the_gallery_shows_each_figure_once(executed, tmp_path, monkeypatch):
    notebook, folder = executed
    (folder / "03_lt_basin.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    monkeypatch.setattr("lth.book.verdicts.PUBLISHED", tmp_path)
    gallery.write(tmp_path, tmp_path / "source")
    text = (tmp_path / "source" / "book" / "figures.md").read_text(encoding="utf-8")
    assert text.count(":img-top: gallery/lt_basin/paths.png") == 1 and "notebooks/03_lt_basin.html#fig-paths" in text
    assert (tmp_path / "source" / "book" / "gallery" / "lt_basin" / "paths.png").is_file()
    assert "| Figure 5a to c, Table 3 | {numref}`fig-paths` |" in text
    assert gallery.where(tmp_path)["fig-paths"] == "{numref}`fig-paths`"


def test_a_badge_names_each_machine_once():
    machines = "CPU: A, 1 core, CPU: A, 1 cores, CPU: A, 2 cores, NVIDIA B"
    told = {"trained on": machines, "preset": "smoke", "data": "digits"}
    values = parameters("lt_basin", "smoke").model_dump()
    assert "[trained on CPU: A and NVIDIA B]{.ran}" in badge.badge("lt_basin", told | {"parameters": values})
