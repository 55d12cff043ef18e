"""What of a notebook its training needs: all that trains, and nothing that only measures or draws."""

from __future__ import annotations

import ast

import pytest

from lth.book import CHAPTERS
from lth.book.training import reduced, training_cells


@pytest.mark.parametrize(
    ("cells", "left"),
    [
        (["x = 1", "y = 2", "chapter.train(x)"], ["x = 1", "chapter.train(x)"]),
        (["x = 1\nx = 2", "chapter.train(x)"], ["x = 2", "chapter.train(x)"]),
        (["x = 1\nx += 2", "chapter.train(x)"], ["x = 1\nx += 2", "chapter.train(x)"]),
        (["x = []\nx.append(1)\ny.append(1)", "chapter.train(x)"], ["x = []\nx.append(1)", "chapter.train(x)"]),
        (["x = {}\nx['a'] = 1", "chapter.train(x)"], ["x = {}\nx['a'] = 1", "chapter.train(x)"]),
        (["x = chapter.train(1)", "chapter.save(x)", "chapter.judge(x)"], ["x = chapter.train(1)"]),
        (["def f():\n    return chapter.train(a)", "a = 1", "f()", "a = 2"], None),
        (["def f():\n    return chapter.train", "def g(x):\n    f()(x)", "c = 1", "y = [g(b) for b in c]"], None),
        (["import a", "from b import c", "a.show()", "chapter.train(c)"], ["from b import c", "chapter.train(c)"]),
        (["chapter.data = more(1)", "x = chapter.train()"], None),
    ],
)
def test_what_is_left_of_cells(cells, left):
    if left is None:
        left = [cell for cell in cells if cell != "a = 2"]
    assert [ast.unparse(ast.parse(cell)) for cell in left] == reduced(tuple(cells))


def test_loops_are_looked_into():
    """What trains stays, what measures goes, and what one turn makes the next is given."""
    cell = "rows, x = [], 0\nfor a in b:\n    x = chapter.train(start(x, a))\n    rows.append(measure(x))"
    told = "rows, x = ([], 0)\nfor a in b:\n    x = chapter.train(start(x, a))"
    assert reduced((cell,)) == [told]
    assert reduced(("if q:\n    a = 1\nelse:\n    a = 2", "chapter.train(a)"))[0].startswith("if q")
    assert reduced(("for x in y:\n    rows.append(x)", "chapter.train()")) == ["chapter.train()"]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapters_train_without_measures_and_figures(chapter):
    code = "\n".join(training_cells(chapter))
    for word in ("chapter.save", "chapter.judge", "plt.", "sns.", "figures.Table", "provenance"):
        assert word not in code
    assert f"Chapter('{chapter}'" in code and code.count("chapter.train") >= 1
