"""The whole book as one PDF: the pages of a built site, one after another, printed by a browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from lth.errors import LthError, UsageError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
PATIENCE = 120_000  # milliseconds that the page may take to set its formulas, in the browser's own time


def browser() -> str:
    """The path of a browser that can print; UsageError where there is none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise UsageError("there is no browser to print with: install chromium")
    return found

ELSEWHERE = re.compile(r"#|/|[a-z][a-z0-9+.-]*:")  # on the same page, or no relative address


def write(site: Path, out: Path) -> Path:
    """Prints a site to the file `out`. UsageError where there is no site or no browser, LthError where it fails."""
    site, out = Path(site).resolve(), Path(out).resolve()
    if not (site / "book" / "intro.html").is_file():
        raise UsageError(f"{site} is no site of this book: `lth book --out {site}` makes it")
    out.parent.mkdir(parents=True, exist_ok=True)
    page = site / "book" / "all.html"
    page.write_text(one_page(site), encoding="utf-8")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
            made = Path(folder, "book.pdf")
            command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
            command += [f"--virtual-time-budget={PATIENCE}", f"--print-to-pdf={made}", page.as_uri()]
            how = {"encoding": "utf-8", "errors": "replace"}
            result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **how)
            if result.returncode or not made.is_file():
                raise LthError("the browser could not print the book:\n" + "\n".join(result.stdout.splitlines()[-10:]))
            os.replace(made, out)
    finally:
        page.unlink()
    return out


def one_page(site: Path) -> str:
    """All pages of a site in the order of its contents, as one: it belongs into the folder book/ of the site."""
    from bs4 import BeautifulSoup

    def read(path: Path) -> BeautifulSoup:
        return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")

    whole = read(site / "book" / "intro.html")
    first = whole.select_one("article.bd-article")
    for link in whole.select("nav.bd-links a.reference.internal"):
        path = (site / "book" / link["href"].split("#")[0]).resolve()
        if link["href"] == "#" or not path.is_file():
            continue
        article = read(path).select_one("article.bd-article")
        for tag in article.select("[src], [href]"):
            name = "src" if tag.has_attr("src") else "href"
            if not ELSEWHERE.match(tag[name]):  # pages lie in folders of their own depth
                tag[name] = os.path.relpath(path.parent / tag[name], site / "book")
        article["class"] = [*article["class"], "printed"]
        for image in article.select("img[loading]"):
            del image["loading"]  # all are printed, seen or not
        first.append(article)
    return str(whole)
