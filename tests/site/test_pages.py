"""A built site in headless Chromium: every page, desktop and phone, light and dark, the network blocked.

Runs on the site whose folder is named by the environment variable LTH_SITE.
"""

from __future__ import annotations

import functools
import html.parser
import http.server
import os
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
SITE = Path(os.environ.get("LTH_SITE", ""))
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}

if "LTH_SITE" not in os.environ:
    pytest.skip("LTH_SITE does not name a built site", allow_module_level=True)
if not CHROMIUM.exists():
    pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium", allow_module_level=True)

PAGES = sorted(str(p.relative_to(SITE)) for p in SITE.rglob("*.html") if "_static" not in p.parts)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@dataclass
class Visit:
    """What went wrong while a page was open."""

    foreign: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, address):
    """open_page(path, size, theme) → (page, what went wrong so far); other hosts are blocked and recorded."""
    contexts = []

    def visit(path: str, size: str = "desktop", theme: str = "light"):
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        for key in ("mode", "theme"):
            context.add_init_script(f"localStorage.setItem('{key}', '{theme}')")
        seen = Visit()

        def route(route) -> None:
            if route.request.url.startswith((address, "data:", "blob:")):
                route.continue_()
            else:
                seen.foreign.append(route.request.url)
                route.abort()

        context.route("**/*", route)
        page = context.new_page()
        page.on("requestfailed", lambda request: seen.failed.append(request.url))
        page.on("response", lambda r: seen.failed.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        page.on("console", lambda m: seen.console.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: seen.console.append(str(error)))
        page.goto(f"{address}/{path}")
        return page, seen

    yield visit
    for context in contexts:
        context.close()


def test_site_has_pages():
    assert {"index.html", "search.html", "book/intro.html", "book/scorecard.html"} <= set(PAGES)
    assert any(page.startswith("notebooks/") for page in PAGES)


@pytest.mark.parametrize(("theme", "sizes"), [("light", ["desktop", "phone"]), ("dark", ["phone", "desktop"])])
@pytest.mark.parametrize("path", PAGES)
def test_page(open_page, path: str, theme: str, sizes: list[str]):
    """Opened in one size and turned into the other, in the light the one way round, in the dark the other."""
    page, seen = open_page(path, sizes[0], theme)
    if path == "index.html":  # sends the reader on to the first page
        page.wait_for_url("**/book/intro.html")
        page.wait_for_load_state()
    if page.locator(".math").count():
        page.wait_for_function("document.querySelectorAll('.math:not(:has(mjx-container))').length === 0")
        page.evaluate("MathJax.startup.promise")
        assert page.locator("mjx-merror").count() == 0
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.wait_for_load_state("networkidle")
    images = page.evaluate("""() => Promise.all(Array.from(document.images, async image => {
        image.loading = 'eager';
        await image.decode().catch(() => null);
        return [image.src, image.complete && image.naturalWidth > 0, image.alt.trim()];
    }))""")
    assert [src for src, loaded, _ in images if not loaded] == []
    assert [src for src, _, alt in images if not alt] == []
    root = "document.documentElement"
    for size in sizes:
        width, height = SIZES[size]
        page.set_viewport_size({"width": width, "height": height})
        wide, seen_of_it = page.evaluate(f"[{root}.scrollWidth, {root}.clientWidth]")
        assert wide <= seen_of_it <= width, f"the page scrolls sideways on a {size}"
    if "book/" in page.url or "notebooks/" in page.url:
        assert page.evaluate(f"{root}.dataset.theme") == theme
        assert page.locator("article h1").count() == 1
    assert seen == Visit()


def test_search_finds_a_term(open_page):
    page, seen = open_page("search.html?q=barrier")
    page.wait_for_selector("#search-results li a")
    found = page.locator("#search-results li a").all_inner_texts()
    assert "Glossary" in " ".join(found)
    assert seen == Visit()


def test_the_scorecard_shows_what_is_asked_for(open_page):
    page, seen = open_page("book/scorecard.html#P1.iff")
    rows = page.locator("table.scorecard tbody tr:has(span[id]):visible")
    page.wait_for_selector(".filter")
    everything = rows.count()
    assert page.locator("tr.shown span[id]").get_attribute("id") == "P1.iff"
    page.get_by_label("Paper").select_option("M")
    assert set(page.locator("tr:visible > td span[id]").evaluate_all("all => all.map(span => span.id[0])")) == {"M"}
    assert page.locator(".filter output").inner_text() == f"{rows.count()} of {everything} claims"
    page.get_by_label("With").fill("no such words")
    assert rows.count() == 0
    page.evaluate("location.hash = '#J1.skip'")  # a link shows its claim, whatever is filtered
    page.wait_for_selector("tr.shown:visible span[id='J1.skip']")
    assert seen == Visit()


def test_code_is_shown_as_one_wishes_and_figures_are_enlarged(open_page):
    page, seen = open_page("notebooks/03_lt_basin.html")
    code = page.locator(".bd-article div.cell_input:visible")
    page.wait_for_selector(".choice")
    method = code.count()
    page.get_by_role("button", name="all: to run").click()
    assert code.count() > method
    page.get_by_role("button", name="none: to read").click()
    assert code.count() == 0 and page.locator(".bd-article figure img").count()
    page.reload()
    page.wait_for_selector(".choice")
    assert code.count() == 0  # it is remembered
    page.locator("img.enlarges").first.click()
    assert page.locator("dialog.enlarged img").is_visible()
    page.keyboard.press("Escape")
    page.locator("dialog.enlarged").wait_for(state="hidden")
    assert seen == Visit()


def test_the_contents_follow_to_the_end(open_page):
    page, _ = open_page("notebooks/03_lt_basin.html")
    links = page.locator("#pst-page-toc-nav a.nav-link")
    here = page.locator("#pst-page-toc-nav a.here")
    page.wait_for_function("document.querySelector('#pst-page-toc-nav a.here')")
    assert here.inner_text() == links.first.inner_text()
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    page.wait_for_function("[...document.querySelectorAll('#pst-page-toc-nav a')].at(-1).classList.contains('here')")


def test_a_table_wider_than_a_phone_fades_until_its_end_is_reached(open_page):
    page, _ = open_page("notebooks/03_lt_basin.html", "phone")
    wide = page.locator(".pst-scrollable-table-container.goes-on").last
    wide.wait_for()
    wide.evaluate("box => { box.id = 'widest'; box.scrollLeft = box.scrollWidth; }")
    page.wait_for_function("!document.getElementById('widest').classList.contains('goes-on')")
    page.evaluate("document.getElementById('widest').scrollLeft = 0")
    page.wait_for_function("document.getElementById('widest').classList.contains('goes-on')")


class Links(html.parser.HTMLParser):
    """The address of every link on a page, and the places that a link can lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.places: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attributes if tag == "a" and name == "href"]
        self.places |= {value for name, value in attributes if name == "id" and value}


@functools.cache
def links_of(path: Path) -> Links:
    links = Links()
    links.feed(path.read_text(encoding="utf-8"))
    return links


@pytest.mark.parametrize("path", PAGES)
def test_local_links_lead_somewhere(path: str):
    links = links_of((SITE / path).resolve())
    assert links.found or path == "index.html"
    for link in links.found:
        target = urllib.parse.urlsplit(link)
        if target.scheme or target.netloc:
            continue
        own = (SITE / path).parent.joinpath(urllib.parse.unquote(target.path)) if target.path else SITE / path
        assert own.exists(), link
        if target.fragment and own.suffix == ".html":
            assert urllib.parse.unquote(target.fragment) in links_of(own.resolve()).places, link
