"""Films: a figure whose lines move, or a stack of figures, with a slider and a play button, in one piece of HTML.

The page needs no network. Without JavaScript it shows one frame as a still.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

Curve = tuple[np.ndarray, np.ndarray]  # x, y

PAGE = """<figure id="{film}" style="margin: 1.5rem auto">
<div style="overflow-x: auto; background: #fff; border-radius: 0.4rem">{picture}</div>
<div style="display: flex; gap: 0.8rem; align-items: center; flex-wrap: wrap; margin-top: 0.5rem">
<button type="button" hidden style="min-width: 6rem; padding: 0.3rem 0.6rem; font: inherit; cursor: pointer"></button>
<input type="range" min="0" max="{last}" value="{at}" hidden aria-label="Frame" style="flex: 1; min-width: 10rem">
<output style="min-width: 15rem">{words}</output></div>
<noscript>Without JavaScript this is a still.</noscript>
<figcaption>{caption}</figcaption>
<script type="application/json">{frames}</script>
</figure>
<script>
(() => {{
  const film = document.getElementById("{film}"), find = what => film.querySelector(what);
  const frames = JSON.parse(find("script").textContent);
  const button = find("button"), slider = find("input"), words = find("output");
  const line = (_, i) => document.getElementById("{film}-line-" + i).querySelector("path");
  const lines = frames[0].paths.map(line), image = find("img");
  let timer = null;
  function show() {{
    const frame = frames[slider.value];
    frame.paths.forEach((path, i) => lines[i].setAttribute("d", path));
    if (image) image.src = frame.image;
    words.textContent = frame.words;
    slider.setAttribute("aria-valuetext", frame.words);
  }}
  function pause() {{
    clearInterval(timer);
    timer = null;
    button.textContent = "\\u25b6 Play";
  }}
  function next() {{
    slider.value = +slider.value + 1;
    show();
    if (+slider.value === frames.length - 1) pause();
  }}
  function play() {{
    if (+slider.value === frames.length - 1) slider.value = 0;
    show();
    timer = setInterval(next, 900);
    button.textContent = "\\u23f8 Pause";
  }}
  button.addEventListener("click", () => timer === null ? play() : pause());
  slider.addEventListener("input", () => {{ pause(); show(); }});
  button.hidden = slider.hidden = false;
  pause();
  show();
}})();
</script>"""


def moments(steps: int, every: int) -> list[int]:
    """Optimiser steps at which a run with mask updates every `every` steps is worth looking at.

    A quarter, half and three quarters of the way to the first update, then one step before the updates number 1, 2, 3,
    4, 6, 8, 12, 16, 24, …: there the next update is still to come, and can be applied in different ways. All lie
    inside the run; its start and its end are not among them.
    """
    doubled = [number * 2**power for power in range(steps.bit_length()) for number in (2, 3)]
    before = [number * every - 1 for number in [1, *doubled] if number * every < steps]
    return sorted(({every * quarter // 4 for quarter in (1, 2, 3)} | set(before)) - {0})


class Film:
    """The lines of a figure's first axes, frame by frame; shows itself in Jupyter and in the book."""

    def __init__(
        self, figure: Figure, frames: Mapping[str, Sequence[Curve]], still: str, name: str, alt: str, caption: str
    ) -> None:
        """frames: its words → one curve for each of the lines, in their order. still: the frame shown at first.

        The figure is used up. `name` tells the film from others on the page, `alt` says what is seen, `caption` is
        HTML.
        """
        ax, film = figure.axes[0], f"film-{name}"
        for i, (line, (x, y)) in enumerate(zip(ax.lines, frames[still], strict=True)):
            line.set(data=(x, y), gid=f"{film}-line-{i}")
        figure.set_dpi(72)  # a pixel is then a point, the unit of SVG
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # everything stays where it is now
        buffer = io.StringIO()
        with mpl.rc_context({"svg.hashsalt": film, "path.simplify": False}):
            figure.savefig(buffer, format="svg", bbox_inches=None)
        height = figure.bbox.height
        drawn = [
            {"words": words, "paths": [path(ax.transData.transform(np.c_[x, y]), height) for x, y in curves]}
            for words, curves in frames.items()
        ]
        plt.close(figure)
        self.html = _page(film, _inline(buffer.getvalue(), film, alt), drawn, still, caption)

    def _repr_html_(self) -> str:
        return self.html


class Slides:
    """Figures of one size, one at a time, with the same slider; shows itself in Jupyter and in the book."""

    def __init__(self, figures: Mapping[str, Figure], still: str, name: str, alt: str, caption: str) -> None:
        """figures: its words → the figure, which is used up. The rest as in `Film`."""
        drawn = []
        for words, figure in figures.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=100)
            plt.close(figure)
            picture = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
            drawn.append({"words": words, "paths": [], "image": picture})
        first = drawn[list(figures).index(still)]["image"]
        style = "display: block; margin: auto; width: 100%; min-width: 24rem; max-width: 44rem; height: auto"
        image = f'<img src="{first}" alt="{html.escape(alt)}" style="{style}">'
        self.html = _page(f"film-{name}", image, drawn, still, caption)

    def _repr_html_(self) -> str:
        return self.html


def _page(film: str, picture: str, frames: list[dict], still: str, caption: str) -> str:
    """The film as HTML: what is seen at first, and what replaces it."""
    return PAGE.format(
        film=film,
        picture=picture,
        last=len(frames) - 1,
        at=[frame["words"] for frame in frames].index(still),
        words=html.escape(still),
        caption=caption,
        frames=json.dumps(frames).replace("</", "<\\/"),
    )


def path(points: np.ndarray, height: float) -> str:
    """Points (n, 2) in pixels, y upwards, as an SVG path in an image `height` high; far outside they are cut off."""
    x, y = points.T
    y = np.clip(height - y, -height, 2 * height)
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))


def _inline(svg: str, film: str, alt: str) -> str:
    """matplotlib's SVG file as a part of a page: as wide as its column, its style for itself, without meta data."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = svg.replace("*{", f"#{film} svg *{{")
    fit = "display: block; margin: auto; width: 100%; min-width: 30rem; max-width: 48rem; height: auto"
    return re.sub(
        r'width="[^"]*" height="[^"]*"', f'role="img" aria-label="{html.escape(alt)}" style="{fit}"', svg, count=1
    )
