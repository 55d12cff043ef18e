"""Whether a figure has intervals, told from the code of its cell."""

from __future__ import annotations

import json

import pytest

from lth.book import CHAPTERS, drawn
from lth.files import ROOT

IMPORTS = "%matplotlib inline\nfrom lth.book import figures, basin as panels\nfrom lth.book.means import curves"


@pytest.mark.parametrize(
    ("source", "there"),
    [
        ("sns.lineplot(t, errorbar=figures.t_interval, ax=ax)", True),
        ("sns.lineplot(t, errorbar=None, ax=ax)", False),
        ("figures.lines(ax, t, 'x', 'y', 'hue')", True),
        ("panels.distances(ax, t, methods, 'E8')", True),  # of the library, under another name
        ("panels.maps(axes, t, d, 'ticket')", False),
        ("curves(ax, t, 'x', 'y', 'hue', ways)", True),
        ("mine(ax)", True),  # which calls a function that the notebook defines further down
        ("nothing(ax)", False),
        ("distances(ax)", False),  # of the notebook itself, and not that of the library
    ],
)
def test_names_are_followed_to_where_intervals_are_made(source, there):
    own = "def mine(ax):\n    other(ax)\n\ndef other(ax):\n    return figures.t_interval\n\ndef nothing(ax):\n    pass"
    more = "def distances(ax):\n    nothing(ax)"
    cells = [{"cell_type": "code", "source": text} for text in (IMPORTS, source, own, more)]
    assert drawn.intervals(cells[1], cells) == there


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_cell_of_the_chapters_can_be_read(chapter):
    cells = json.loads((ROOT / CHAPTERS[chapter]).read_text(encoding="utf-8"))["cells"]
    figures = [cell for cell in cells if "figure" in cell["metadata"].get("mystnb", {})]
    told = {cell["metadata"]["mystnb"]["figure"]["name"]: drawn.intervals(cell, cells) for cell in figures}
    assert any(told.values()) == (chapter != "rti_repulsion")  # there each network has its own line
