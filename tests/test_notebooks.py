"""The source notebooks: stripped, parameters as in the quick preset, nothing typed in."""

from __future__ import annotations

import ast
import re

import nbformat
import pytest

from lth.book import CHAPTERS
from lth.book.claims import ledger
from lth.book.presets import parameters
from lth.files import ROOT


@pytest.fixture(params=CHAPTERS.items(), ids=CHAPTERS.keys())
def chapter(request):
    name, path = request.param
    return name, nbformat.read(ROOT / path, as_version=4)


def test_outputs_are_stripped(chapter):
    _, notebook = chapter
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None


def test_parameters_are_those_of_the_quick_preset(chapter):
    name, notebook = chapter
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    told = {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(cell.source).body}
    assert told == parameters(name, "quick").model_dump()


def shows_a_figure(source: str) -> bool:
    """Whether a cell hands a figure on: to `chapter.save`, as its third argument, or to a film."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    saved = [call.args for call in calls if ast.unparse(call.func) == "chapter.save"]
    drawn = any(len(args) == 3 or any(isinstance(arg, ast.Starred) for arg in args) for args in saved)
    return drawn or any(ast.unparse(call.func) in ("film.Film", "film.Slides") for call in calls)


def test_every_figure_has_a_caption_and_alternative_text(chapter):
    _, notebook = chapter
    drawing = [cell for cell in notebook.cells if cell.cell_type == "code" and shows_a_figure(cell.source)]
    assert len(drawing) > 3
    for cell in drawing:
        if "film.Film(" in cell.source or "film.Slides(" in cell.source:  # which have words of their own
            assert "alt=" in cell.source and "caption=" in cell.source
            continue
        shown = cell.metadata["mystnb"]
        assert len(shown["image"]["alt"]) > 40 and len(shown["figure"]["caption"]) > 40
        assert ".csv)" in shown["figure"]["caption"]


def test_names_of_figures_and_tables_are_unique_in_the_book():
    """Sphinx takes a second figure of the same name for an error."""
    names = []
    for path in CHAPTERS.values():
        for cell in nbformat.read(ROOT / path, as_version=4).cells:
            names += [cell.metadata["mystnb"]["figure"]["name"]] if "figure" in cell.metadata.get("mystnb", {}) else []
    assert len(names) == len(set(names)) > 20


def test_every_recipe_is_told_the_precision(chapter):
    _, notebook = chapter
    source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    recipes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)
               and isinstance(node.func, ast.Name) and node.func.id == "Recipe"]  # fmt: skip
    told = [[word.arg for word in node.keywords] for node in recipes]
    shared = {key.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Dict) for key in node.keys
              if isinstance(key, ast.Constant)}  # fmt: skip
    assert recipes and all("precision" in words or (None in words and "precision" in shared) for words in told)


def test_what_is_in_sight_is_the_method(chapter):
    """Beside the parameters at most 120 lines, in cells that can be read like a sentence: at most 15 lines each."""
    _, notebook = chapter
    hidden = {"hide-input", "parameters"}
    cells = [c for c in notebook.cells if c.cell_type == "code" and not hidden & {*c.metadata.get("tags", ())}]
    lines = [len(cell.source.splitlines()) for cell in cells]
    assert sum(lines) <= 120 and max(lines) <= 15


def test_claims_that_a_chapter_names_are_in_the_ledger(chapter):
    name, notebook = chapter
    source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    named = set(re.findall(r'"([EMPJ]\d+\.\w+)"', source))
    own = {claim.id for claim in ledger().values() if claim.chapter == name and not claim.needs}
    assert named <= {*ledger()} and own <= named
