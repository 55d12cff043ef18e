"""Text from outside, put into a page and read back by the book's own Markdown parser."""

from __future__ import annotations

import html
import json
import re
import zipfile

import pandas as pd
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as some
from markdown_it.renderer import RendererHTML
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

from lth.book import figures, scorecard, speed, verdicts
from lth.book.text import Markup, escape, with_values
from lth.files import ROOT

EXTENSIONS = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["parse"]["myst_enable_extensions"]
NAME = "a $x$ *b* [l](m)"
NAMES = [
    NAME,
    "| a | b |",
    "`code` ``two``",
    "_a_ __b__ lenet_300_100",
    "{cite}`x` {{ sub }} [w]{.c}",
    "<b>bold</b> &amp; <https://a.org>",
    "~~gone~~ a^b [^1] #1",
    "back\\slash \\(x\\) \\*",
    "[x]: http://a.org",
    "$$y$$",
    "mäuse 猫",
]
SHOWN = some.text(some.characters(min_codepoint=33, max_codepoint=0x17F, exclude_categories=("Cc", "Cs", "Zs")))


def read(page: str) -> str:
    """What a reader sees of Markdown."""
    seen = create_md_parser(MdParserConfig(enable_extensions=set(EXTENSIONS)), RendererHTML).render(page)
    assert not re.search(r"<(?!/?(p|table|thead|tbody|tr|th|td)\b)", seen), seen  # no markup but the table's
    return html.unescape(re.sub(r"<[^>]*>|\n", "", seen))


@given(SHOWN)
@example("")
def test_a_sentence_shows_any_name_sign_by_sign(name):
    assert read(f"Trained on {escape(name)}, then.") == f"Trained on {name}, then."


@pytest.mark.parametrize("name", NAMES)
def test_a_table_shows_any_name_sign_by_sign(name):
    table = figures.Table(pd.DataFrame({"what": ["data"], "this": [name]}), "Caption.", "name")
    rows = table._repr_markdown_().splitlines()[3:-1]
    assert read("\n".join(rows)) == f"whatthisdata{name}"


def test_line_breaks_in_a_name_do_not_end_the_row():
    assert escape("a\nb\r\nc\u2028d") == "a b c d"
    assert escape("1\N{NO-BREAK SPACE}000") == "1\N{NO-BREAK SPACE}000"  # what shall stay together does


def test_what_is_markdown_already_stays():
    verdict = verdicts.verdict_mark("not reproduced")
    assert escape(verdict) == verdict == "[not reproduced]{.verdict .not-reproduced}"
    frame = pd.DataFrame([{"verdict": verdict, "z": Markup("**+4.0**")}], dtype=object)
    assert f"| {verdict} | **+4.0** |" in figures.Table(frame, "Caption.", "name")._repr_markdown_()


def test_jupyter_shows_no_mathematics_in_a_table():
    shown = figures.Table(pd.DataFrame({"data": [f"{NAME} <b>"]}), "Caption.", "name")._repr_html_()
    assert f"<td>{NAME} &lt;b&gt;</td>" in shown and "mathjax_ignore" in shown


def test_the_scorecard_and_the_page_on_speed_show_names_as_they_are(tmp_path):
    (tmp_path / "lt_basin").mkdir()
    (tmp_path / "lt_basin" / "provenance.json").write_text(f'{{"trained on": "{NAME}"}}', encoding="utf-8")
    assert f"Computed on {escape(NAME)}." in scorecard.page(tmp_path)
    assert escape(NAME) in speed.measured([{"device": NAME, "kind": "cpu"}])
    assert escape(NAME) in speed.notes(pd.DataFrame([{"model": "lenet5", "replicas": 1, "note": NAME}]))[0]


def test_the_page_on_speed_counts_the_published_networks(tmp_path):
    runs = [("lt_basin", 8, 2.0), ("lt_basin-2", 12, 3.0), ("tweaks", 5, 1.0)]
    for number, (archive, steps, seconds) in enumerate(runs):
        meta = {"model": "lenet5", "device": NAME, "seconds": seconds, "recipe": {"steps": steps, "first_step": 2}}
        with zipfile.ZipFile(tmp_path / f"{archive}.zip", "w") as file:
            file.writestr(f"runs/{number}/meta.json", json.dumps(meta))
    told = speed.spent(tmp_path)
    assert f"| 3 | {escape(NAME)} | lenet5 (128) | 2 | 3.2 | 0.00139 |" in told  # 6 and 10 steps in 5 s
    assert f"| 4 | {escape(NAME)} | lenet5 (128) | 1 | 3 | 0.000278 |" in told
    assert speed.spent(tmp_path / "nothing") == ""
    results = {"lenet5": "well", "vgg16": "wrong", "conv4": "not tried"}
    rows = [{"what": name, "result": result} for name, result in results.items()]
    machine = {"device": NAME, "measured": "2026-01-02T03:04:05", "rows": rows}
    (tmp_path / "one.json").write_text(json.dumps(machine), encoding="utf-8")
    assert speed.examined(tmp_path) == f"`lth doctor` on {escape(NAME)}, 2026-01-02: 2 checks (lenet5, vgg16), 1 wrong."


def test_a_caption_tells_the_values_of_its_parameters():
    values = {"images": 60_000, "share": 0.25, "levels": [1, 2], "augment": True}
    told = with_values("`images` training images, a share of `share`, `levels`, `augment`, `other`, images.", values)
    assert told == "60,000 training images, a share of 0.25, `levels`, `augment`, `other`, images."
