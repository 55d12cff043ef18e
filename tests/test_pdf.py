"""The book on paper: one page out of all, in the order of the contents; printed by a browser where there is one."""

from __future__ import annotations

import shutil

import pytest
from bs4 import BeautifulSoup

from lth.book import pdf
from lth.errors import UsageError

PAGE = """<html><body><nav class="bd-links"><a class="reference internal" href="#">Intro</a>
<a class="reference internal" href="../notebooks/b.html">B</a><a class="reference internal" href="a.html">A</a>
<a class="reference internal" href="course/c.html">C</a></nav>
<article class="bd-article"><h1>{0}</h1><img src="{1}_images/{0}.png" loading="lazy" alt="{0}">
<a href="#{0}">here</a><a href="https://example.org/{0}">there</a><img src="data:image/png;base64,AA"></article>
</body></html>"""


@pytest.fixture
def site(tmp_path):
    for path in ("book/intro", "book/a", "notebooks/b", "book/course/c"):
        file = tmp_path / f"{path}.html"
        file.parent.mkdir(exist_ok=True)
        file.write_text(PAGE.format(file.stem, "../" * path.count("/")), encoding="utf-8")
    return tmp_path


def test_all_pages_in_the_order_of_the_contents(site):
    whole = BeautifulSoup(pdf.one_page(site), "html.parser")
    assert [title.text for title in whole.select("article h1")] == ["intro", "b", "a", "c"]
    assert all(image["src"] == f"../_images/{image['alt']}.png" for image in whole.select("img[alt]"))
    assert [link["href"] for link in whole.select("article a")][-2:] == ["#c", "https://example.org/c"]
    assert all(image["src"].startswith("data:") for image in whole.select("img:not([alt])"))
    assert len(whole.select("article.printed")) == 3 and not whole.select("article.printed img[loading]")


def test_it_is_printed_and_leaves_nothing_behind(site, tmp_path):
    if not any(map(shutil.which, pdf.BROWSERS)):
        pytest.skip("no browser here to print with")
    before = sorted(site.rglob("*.html"))
    made = pdf.write(site, tmp_path / "out" / "book.pdf")
    assert made.read_bytes().startswith(b"%PDF") and sorted(site.rglob("*.html")) == before
    assert [file.name for file in made.parent.iterdir()] == ["book.pdf"]


def test_what_is_missing_is_said(site, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="is no site"):
        pdf.write(tmp_path / "nowhere", tmp_path / "book.pdf")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match="install chromium"):
        pdf.write(site, tmp_path / "book.pdf")
