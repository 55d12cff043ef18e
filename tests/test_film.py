"""Films: their steps, its paths against matplotlib's own, and how they play in a browser without a network."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from PIL import Image

from lth.book.figures import house_style
from lth.book.film import Film, Slides, moments

CHROMIUM = Path("/usr/bin/chromium")
X = np.linspace(-3, 30, 40)
FRAMES = {f"step {k}": [(X, np.exp(-((X - k) ** 2))), (X, 1 / (1 + k + X**2))] for k in range(4)}


@pytest.fixture(scope="module")
def page() -> str:
    house_style()
    figure, ax = plt.subplots()
    for name in ("one", "two"):
        ax.plot([], [], label=name)
    ax.set(xscale="symlog", yscale="log", xlim=(-3, 30), ylim=(1e-4, 10))
    ax.legend()
    film = Film(figure, FRAMES, "step 2", "hills", "Two hills <that> move", 'A film of <b>"hills"</b>.')
    assert not plt.get_fignums()  # nothing is left for Jupyter to show besides
    return "<!doctype html><meta charset='utf-8'>" + film._repr_html_()


def numbers(path: str) -> np.ndarray:
    return np.array(re.findall(r"-?[\d.]+", path), dtype=float).reshape(-1, 2)


def test_steps_of_the_paper():
    assert moments(11_719, 500) == [125, 250, 375, 499, 999, 1499, 1999, 2999, 3999, 5999, 7999]


@given(steps=st.integers(2, 20_000), every=st.integers(1, 600))
def test_moments_lie_inside_the_run_and_before_updates(steps: int, every: int):
    every = min(every, steps - 1)
    found = moments(steps, every)
    assert found == sorted(set(found)) and all(0 < step < steps for step in found)
    before = [step for step in found if step >= every - 1 and (step + 1) % every == 0]
    assert {step for step in found if step >= every} <= set(before)
    counts = [(step + 1) // every for step in before]
    assert all((count & (count - 1) == 0) or (count % 3 == 0 and (third := count // 3) & (third - 1) == 0)
               for count in counts)  # fmt: skip


def test_paths_are_those_that_matplotlib_draws(page: str):
    frames = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)[1])
    assert [frame["words"] for frame in frames] == list(FRAMES)
    for i in range(2):
        drawn = numbers(re.search(rf'id="film-hills-line-{i}">\s*<path d="([^"]*)"', page)[1])
        drawn = drawn[(drawn[:, 1] > 1) & (drawn[:, 1] < 300)]  # matplotlib cuts off what lies outside the image
        away = np.linalg.norm(drawn[:, None] - numbers(frames[2]["paths"][i]), axis=2).min(1)
        assert len(drawn) > 5 and away.max() < 0.08  # one decimal
    assert len({frame["paths"][0] for frame in frames}) == len(FRAMES)


def test_it_brings_everything_along(page: str):
    assert (
        not re.search(r"""(?:src|href)\s*=\s*["'](?!#)""", page) and "@import" not in page and "<metadata" not in page
    )
    assert "Two hills &lt;that&gt; move" in page and "<noscript>" in page


@pytest.fixture
def browser_page(page: str):
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox"])

        def open_page(javascript: bool = True):
            context = browser.new_context(offline=True, java_script_enabled=javascript)
            tab = context.new_page()
            tab.errors = []
            tab.on("pageerror", lambda error: tab.errors.append(str(error)))
            tab.on("request", lambda request: tab.errors.append(request.url))
            tab.set_content(page)
            return tab

        yield open_page
        browser.close()


def test_plays_and_is_scrubbed_by_keyboard_with_no_network(browser_page):
    tab = browser_page()
    line, slider, words = tab.locator("#film-hills-line-0 path"), tab.locator("input"), tab.locator("output")
    shown = lambda: line.get_attribute("d")  # noqa: E731
    still = shown()
    slider.focus()
    tab.keyboard.press("ArrowRight")
    assert words.text_content() == slider.get_attribute("aria-valuetext") == "step 3" and shown() != still
    tab.keyboard.press("Home")
    assert words.text_content() == "step 0"
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert words.text_content() == "step 2" and shown() == still
    tab.keyboard.press("Shift+Tab")  # from the slider to the button
    tab.keyboard.press("Enter")
    assert "Pause" in tab.locator("button").text_content()
    tab.wait_for_function("document.querySelector('button').textContent.includes('Play')")  # it ends by itself
    assert words.text_content() == "step 3"
    assert not tab.errors


def test_without_javascript_it_is_a_still(browser_page):
    tab = browser_page(javascript=False)
    assert tab.locator("svg").is_visible() and tab.locator("output").text_content() == "step 2"
    assert tab.locator("noscript").is_visible()
    assert not tab.locator("button").is_visible() and not tab.locator("input").is_visible()


def test_slides_are_pictures_that_come_along():
    figures = {}
    for i in range(3):
        figures[f"level {i}"], ax = plt.subplots(figsize=(3, 2))
        ax.plot([0, 1], [0, i])
    slides = Slides(figures, still="level 1", name="planes", alt="A <plane>", caption="Slices.")
    page = slides._repr_html_()
    frames = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page)[1])
    assert [frame["words"] for frame in frames] == list(figures) and not plt.get_fignums()
    assert len({frame["image"] for frame in frames}) == 3 and f'<img src="{frames[1]["image"]}"' in page
    assert 'alt="A &lt;plane&gt;"' in page and 'value="1"' in page
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#|data:)""", page)
    picture = Image.open(io.BytesIO(base64.b64decode(frames[2]["image"].partition(",")[2])))
    assert picture.size == (300, 200)
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox"])
        tab = browser.new_context(offline=True).new_page()
        tab.set_content(page)
        tab.locator("input").focus()
        tab.keyboard.press("ArrowRight")
        assert tab.locator("output").text_content() == "level 2"
        assert tab.locator("img").get_attribute("src") == frames[2]["image"]
        browser.close()
