"""A rehearsal finds just the networks that training needs, trains none, and knows which are there."""

from __future__ import annotations

import json

import nbformat
import pytest

from lth.book import CHAPTERS
from lth.book.presets import parameters
from lth.book.rehearsal import rehearse
from lth.files import default_root

CELLS = (
    """
from lth.book.chapter import Chapter
from lth.methods import imp, init, prune
from lth.methods.tweaks import GradInit, scaled
from lth.models import Model
from lth.training.recipe import Recipe
chapter = Chapter("lt_basin", globals())
network = Model("lenet5", chapter.data.shape)
recipe = Recipe(steps=steps, batch_size=batch_size)
dense = init.glorot_uniform(network, range(seeds), method="Pruned")
gradual = prune.Gradual(0.5, 2, 4, 2)
""",
    "solution = chapter.train(dense, recipe, updates={'Pruned': gradual}, keep=[2]).final",
    """
runs = imp.ladder(dense, 2, chapter.train, recipe, ratio=0.5)
again = imp.ladder(dense, 1, chapter.train, recipe, ratio=0.5)
scales = chapter.measure(GradInit(batch_size=8, iterations=1), dense[:1], chapter.data.train)
chapter.train(scaled(prune.rewind(solution[:1], dense[:1]), scales), recipe)
""",
    "for run in runs:\n    losses = run.final.evaluate(chapter.data.test)",
)
VALUES = parameters("lt_basin", "smoke", {"steps": 6, "prune_end": 5, "prune_start": 1, "seeds": 3}).model_dump()


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A chapter of a few cells in the place of one of the book."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    nbformat.write(notebook, tmp_path / "small.ipynb")
    monkeypatch.setitem(CHAPTERS, "lt_basin", str(tmp_path / "small.ipynb"))
    monkeypatch.setenv("LTH_OUT", str(tmp_path / "out"))


def test_a_rehearsal_finds_what_training_needs(small, tmp_path):
    before = rehearse("lt_basin", VALUES)
    needed = 3 + 3 * 3 + 1  # pruned; dense and two rounds, of which the second ladder shares two; scaled
    assert (before.needed, len(before.there), before.rough) == (needed, 0, 0)
    assert before.steps == {"lenet5 1x28x28 32": 6 * needed}
    assert not list(default_root().glob("*/*"))  # nothing was trained, nothing measured

    space = dict(VALUES)
    for cell in CELLS[:2]:
        exec(cell, space)
    assert len(rehearse("lt_basin", VALUES).there) == 3
    exec(CELLS[2], space)
    after = rehearse("lt_basin", VALUES)
    assert (after.needed, len(after.there)) == (needed, needed)
    used = json.loads((tmp_path / "out" / "networks.json").read_text(encoding="utf-8"))
    assert set(used) == after.there | after.measures
    assert all(steps == sorted(after.looked_at.get(name, [])) for name, steps in used.items())
    assert sorted(map(len, used.values()))[-4:] == [0, 1, 1, 1]  # ladders start from their dense networks' step 0
    assert len(after.measures) == 1
    assert rehearse("lt_basin", VALUES | {"seeds": 4}).needed == 4 + 4 * 3 + 1
