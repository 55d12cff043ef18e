"""From an edition to a site: what is refused, what survives, what the pages hold."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pandas as pd
import pytest

from lth.book import CHAPTERS, scorecard, site, verdicts
from lth.book.figures import Table
from lth.errors import LthError, UsageError
from lth.files import ROOT

SCORECARD = "# Scorecard\n\n| Claim | Verdict |\n|---|---|\n| E8 | reproduced |\n"
TABLE = ":::{table} Paper and ours.\n:name: tab-NAME\n\n| method | accuracy |\n|:--|--:|\n| LT | 98 |\n:::\n"

BROKEN = re.compile(r" *```+[^`]+`")
ODD = "a $x$ *b* [l](m) {cite}`x` <i>_y_</i> & \\(z\\) `c`|~"


def png() -> str:
    """A grey 2 × 2 image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\x00\x80\x80" * 2))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")).decode()


def markdown(source: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code(source: str, data: dict[str, str] | None = None, **metadata: object) -> dict:
    outputs = [{"output_type": "display_data", "metadata": {}, "data": data}] if data else []
    metadata["papermill"] = {"exception": False, "status": "completed", "duration": 0.1}
    cell = {"cell_type": "code", "execution_count": 1, "metadata": metadata}
    return cell | {"source": source, "outputs": outputs}


@pytest.fixture
def edition(tmp_path: Path) -> Path:
    """An edition of all chapters as papermill leaves it: a figure, a table, mathematics, an exercise."""
    for chapter, notebook in CHAPTERS.items():
        folder = tmp_path / "edition" / chapter
        (folder / "data").mkdir(parents=True)
        (folder / "data" / "paths.csv").write_text("alpha,loss\n0,1\n", encoding="utf-8")
        (folder / "provenance.json").write_text("{}", encoding="utf-8")
        figure = {"caption": f"Loss. [Data](data/{chapter}/paths.csv).", "name": f"fig-{chapter}"}
        shown = {"figure": figure, "image": {"alt": "A falling line."}}
        cells = [
            markdown(f"# Chapter {chapter}\n\nA {{term}}`ticket` {{cite:p}}`evci2022gradient` and $x^2$."),
            code("sparsity = 0.9", tags=["parameters"]),
            code("sparsity = 0.95", tags=["injected-parameters"]),
            code("draw()", {"image/png": png()}, mystnb=shown),
            code("table()", {"text/html": "<p>html form</p>", "text/markdown": TABLE.replace("NAME", chapter)}),
            markdown(f"```{{exercise}}\n:label: ex-{chapter}\nPredict.\n```"),
            markdown(f"````{{solution}} ex-{chapter}\n:class: dropdown\nIt falls.\n````"),
        ]
        metadata = {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "papermill": {"exception": None, "parameters": {"sparsity": 0.95}, "version": "2.7.0"},
        }
        content = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}
        (folder / Path(notebook).name).write_text(json.dumps(content), encoding="utf-8")
    return tmp_path / "edition"


@pytest.fixture
def published(edition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A published edition that says so in every chapter."""
    folder = tmp_path / "published"
    shutil.copytree(edition, folder)
    for chapter, notebook in CHAPTERS.items():
        edit(folder / chapter / Path(notebook).name, lambda content: content["cells"].append(markdown("As published.")))
    monkeypatch.setattr(verdicts, "PUBLISHED", folder)
    return folder


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an older site; the scorecard is a stand-in."""
    monkeypatch.setattr("lth.book.scorecard.page", lambda *of: SCORECARD)
    folder = tmp_path / "build" / "site"
    (folder / "book").mkdir(parents=True)
    (folder / "book" / "intro.html").write_text("older", encoding="utf-8")
    return folder


def survives(out: Path) -> bool:
    """The older site is there as it was, and nothing half-made beside it."""
    return (out / "book" / "intro.html").read_text(encoding="utf-8") == "older" and [
        p.name for p in out.parent.iterdir()
    ] == ["site"]


def remove(path: Path) -> None:
    path.unlink()


def remove_provenance(path: Path) -> None:
    (path.parent / "provenance.json").unlink()


def truncate(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8")[:100], encoding="utf-8")


def edit(path: Path, change) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    change(notebook)
    path.write_text(json.dumps(notebook), encoding="utf-8")


def mark_failed(path: Path) -> None:
    edit(path, lambda notebook: notebook["metadata"]["papermill"].update(exception=True))


def raise_in_cell(path: Path) -> None:
    error = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}
    edit(path, lambda notebook: notebook["cells"][3]["outputs"].append(error))


def leave_cell_unrun(path: Path) -> None:
    edit(path, lambda notebook: notebook["cells"][3].update(execution_count=None))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (remove, "is not in the edition"),
        (truncate, "is not a notebook"),
        (mark_failed, "failed while it ran"),
        (raise_in_cell, "failed while it ran"),
        (leave_cell_unrun, "was not run to its end"),
        (remove_provenance, "has no provenance.json"),
    ],
)
def test_unfit_edition_is_refused_before_any_work(edition: Path, out: Path, monkeypatch, damage, says: str):
    monkeypatch.setattr(site, "jupyter_book", lambda source, folder: pytest.fail("work has started"))
    damage(edition / "lt_basin" / "03_lt_basin.ipynb")
    with pytest.raises(UsageError) as refusal:
        site.build(edition, out)
    message = str(refusal.value)
    assert "chapter lt_basin" in message and says in message and "\n" not in message
    assert f"lth run lt_basin --preset quick --out {edition}" in message
    assert survives(out)


def test_an_edition_without_any_chapter_is_refused(tmp_path: Path, out: Path):
    with pytest.raises(UsageError, match="chapter gradient_flow is not in the edition"):
        site.build(tmp_path / "nowhere", out)
    assert survives(out)


def test_a_chapter_that_is_nowhere_is_refused(edition: Path, published: Path, out: Path):
    for folder in (edition, published):
        shutil.rmtree(folder / "tweaks")
    with pytest.raises(UsageError, match=f"chapter tweaks is not in the edition {published}"):
        site.build(edition, out)
    assert survives(out)


def test_chapters_that_were_not_run_come_from_the_published_edition_and_say_so(
    edition: Path, published: Path, tmp_path
):
    for chapter in CHAPTERS.keys() - {"lt_basin"}:
        shutil.rmtree(edition / chapter)
    (published / "tweaks" / "data" / "paths.csv").write_text("published\n", encoding="utf-8")
    site.stage(edition, tmp_path / "source")
    for chapter, notebook in CHAPTERS.items():
        content = json.loads((tmp_path / "source" / notebook).read_text(encoding="utf-8"))
        told = "\n".join(content["cells"][0]["source"].splitlines()[:4])
        mark = ":::{note}\nThis chapter was not run in this edition: what you see is the published one."
        assert told == f"# Chapter {chapter}\n\n{mark}" or chapter == "lt_basin" and mark not in told
        assert (content["cells"][-2]["source"] == "As published.") == (chapter != "lt_basin")
    data = tmp_path / "source" / "notebooks" / "data"
    assert (data / "tweaks" / "paths.csv").read_text(encoding="utf-8") == "published\n"
    assert "Not run in this edition" in scorecard.page(edition)


def test_an_empty_code_cell_counts_as_run(edition: Path):
    path = edition / "lt_basin" / "03_lt_basin.ipynb"
    edit(path, lambda notebook: notebook["cells"][3].update(execution_count=None, source="", outputs=[]))
    assert site.check(edition, "lt_basin", "03_lt_basin.ipynb") is None


def test_a_folder_that_is_no_site_is_left_alone(edition: Path, out: Path):
    (out / "book" / "intro.html").rename(out / "book" / "index.html")
    with pytest.raises(UsageError, match="not pages of this book"):
        site.build(edition, out)
    assert (out / "book" / "index.html").read_text(encoding="utf-8") == "older"


def test_out_below_a_file_is_refused(edition: Path, out: Path):
    with pytest.raises(UsageError, match="cannot write pages to"):
        site.build(edition, out / "book" / "intro.html" / "site")
    assert survives(out)


@pytest.mark.thorough
def test_a_warning_fails_the_build_and_the_older_site_stays(edition: Path, out: Path):
    path = edition / "lt_basin" / "03_lt_basin.ipynb"
    edit(path, lambda notebook: notebook["cells"].append(markdown("See {term}`no such word`.")))
    with pytest.raises(LthError, match=r"03_lt_basin\.ipynb.*WARNING.*no such word") as failure:
        site.build(edition, out)
    assert not isinstance(failure.value, UsageError) and "\x1b" not in str(failure.value)
    assert survives(out)


@pytest.mark.thorough
def test_something_loaded_from_the_network_fails_the_build(edition: Path, out: Path):
    path = edition / "lt_basin" / "03_lt_basin.ipynb"
    script = code("plot()", {"text/html": "<script src='https://cdn.example.org/require.js'></script>"})
    edit(path, lambda notebook: notebook["cells"].append(script))
    with pytest.raises(LthError, match=r"03_lt_basin\.html loads https://cdn\.example\.org/require\.js"):
        site.build(edition, out)
    assert survives(out)


def test_the_site_holds_the_edition(edition: Path, published: Path, out: Path):
    table = Table(pd.DataFrame({"what": ["data"], "this": [ODD]}), "Provenance.", "odd")
    odd = code("stamp()", {"text/html": "", "text/markdown": table._repr_markdown_()})
    edit(edition / "lt_basin" / "03_lt_basin.ipynb", lambda notebook: notebook["cells"].append(odd))
    shutil.rmtree(edition / "tweaks")
    index = site.build(edition, out)
    assert index == out / "index.html" and "book/intro.html" in index.read_text(encoding="utf-8")
    assert [path.name for path in out.parent.iterdir()] == ["site"]
    for notebook in CHAPTERS.values():
        assert (out / notebook).with_suffix(".html").is_file()
    chapter = (out / "notebooks" / "03_lt_basin.html").read_text(encoding="utf-8")
    assert 'alt="A falling line."' in chapter and "<figcaption>" in chapter and "Loss." in chapter
    assert "Paper and ours." in chapter and 'id="tab-lt-basin"' in chapter and "html form" not in chapter
    assert "_static/mathjax/tex-mml-chtml.js" in chapter and "thebe" not in chapter
    assert f"<td><p>{ODD}</p></td>" in html.unescape(chapter)
    pages = {name: (out / page).with_suffix(".html").read_text(encoding="utf-8") for name, page in CHAPTERS.items()}
    assert [name for name, page in pages.items() if "This chapter was not run in this edition" in page] == ["tweaks"]
    assert "As published." in pages["tweaks"]
    assert [path.read_text(encoding="utf-8") for path in out.glob("_downloads/*/paths.csv")] == [
        "alpha,loss\n0,1\n"
    ] * len(CHAPTERS)
    for notebook in CHAPTERS.values():  # the download is the notebook as it was written
        assert (out / "_sources" / notebook).read_bytes() == (ROOT / notebook).read_bytes()
    assert "mybinder.org" not in chapter or site.repository()
    assert "reproduced" in (out / "book" / "scorecard.html").read_text(encoding="utf-8")


def test_table_of_contents_lists_the_chapters_in_order():
    listed = [
        line.split()[-1]
        for line in (ROOT / "_toc.yml").read_text(encoding="utf-8").splitlines()
        if "notebooks/" in line
    ]
    assert [f"{page}.ipynb" for page in listed] == list(CHAPTERS.values())


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.com/someone/tickets.git", "https://github.com/someone/tickets"),
        ("https://github.com/someone/tickets", "https://github.com/someone/tickets"),
        ("git@github.com:someone/tickets.git", "https://github.com/someone/tickets"),
        ("ssh://git@github.com/someone/tick.ets", "https://github.com/someone/tick.ets"),
        ("https://example.org/someone/tickets.git", None),
        ("/srv/git/tickets", None),
        (None, None),
    ],
)
def test_launch_buttons_only_on_github(edition: Path, tmp_path: Path, monkeypatch, remote, address):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    if remote:
        subprocess.run(["git", "-C", tmp_path, "remote", "add", "origin", remote], check=True)
    for name in ("_config.yml", "_toc.yml", "book"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setattr(site, "ROOT", tmp_path)
    assert site.repository() == address
    site.stage(edition, tmp_path / "source")
    config = (tmp_path / "source" / "_config.yml").read_text(encoding="utf-8")
    assert ("mybinder.org" in config) == (address is not None)
    assert f"url: {address or chr(39) * 2}\n" in config


@pytest.mark.parametrize(
    ("text", "css", "loads"),
    [
        ('<script src="https://a.org/x.js"></script>', False, ["https://a.org/x.js"]),
        ("<img alt='' src=//a.org/x.png>", False, ["//a.org/x.png"]),
        ('<link rel="stylesheet" href="http://a.org/x.css">', False, ["http://a.org/x.css"]),
        ('<link rel="canonical" href="https://a.org/page.html">', False, []),
        ('<a href="https://a.org">read</a><script src="../_static/x.js"></script>', False, []),
        ("@import 'https://a.org/x.css';", True, ["https://a.org/x.css"]),
        ("src: url(https://a.org/x.woff)", True, ["https://a.org/x.woff"]),
        ("background: url(data:image/svg+xml,http://www.w3.org)", True, []),
    ],
)
def test_what_a_page_would_load(monkeypatch: pytest.MonkeyPatch, text: str, css: bool, loads: list[str]):
    monkeypatch.syspath_prepend(ROOT / "book" / "_ext")
    from offline import remote_loads

    assert remote_loads(text, css) == loads


def test_every_fence_opens():
    """A fence of backticks with another backtick in its line is none to Markdown, and its page shows the raw text."""
    pages = {path: path.read_text(encoding="utf-8") for path in (ROOT / "book").rglob("*.md")}
    for path in [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("course/*.ipynb")]:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        pages[path] = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert len(pages) > 20
    wrong = [f"{path.name}: {line}" for path, text in pages.items() for line in text.splitlines() if BROKEN.match(line)]
    assert wrong == []
    assert BROKEN.match("```{csv-table} of `x`") and not BROKEN.match("````{note} of x") and not BROKEN.match("`x` ```")


def test_a_page_is_loaded_once_for_all_its_numbered_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from io import StringIO

    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

    figures = "\n".join(f".. _f{i}:\n\n.. figure:: f.svg\n\n   Figure {i}\n" for i in range(5))
    references = ":numref:`f4` :numref:`f2`\n" * 9
    (tmp_path / "index.rst").write_text(f"Home\n====\n\n.. toctree::\n\n   page\n\n{references}", encoding="utf-8")
    (tmp_path / "page.rst").write_text(f"Page\n====\n\n{figures}", encoding="utf-8")
    (tmp_path / "f.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>", encoding="utf-8")
    loads: list[str] = []
    load = BuildEnvironment.get_doctree
    monkeypatch.setattr(BuildEnvironment, "get_doctree", lambda env, name: loads.append(name) or load(env, name))
    monkeypatch.syspath_prepend(ROOT / "book" / "_ext")
    said = StringIO()
    settings = {"extensions": ["swift"], "numfig": True}
    Sphinx(tmp_path, None, tmp_path / "out", tmp_path / "trees", "html", settings, status=None, warning=said).build()
    assert not said.getvalue()
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert (page.count(">Fig. 5<"), page.count(">Fig. 3<")) == (9, 9)
    assert loads.count("page") < 5  # one more than a build without references; Sphinx alone takes one for each


def test_importing_the_builder_is_light():
    program = "import sys, lth.book.site; print({'torch', 'sphinx', 'yaml', 'pandas'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    assert said.stdout == b"set()\n"
