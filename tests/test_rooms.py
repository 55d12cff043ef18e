"""Imports point one way: from pages down to data and models, and never in a circle."""

from __future__ import annotations

import graphlib

import grimp
import pytest

TOOLS = ("errors", "files", "seeds", "parallel", "distributed", "checked", "memory", "precision")
ROOMS = (
    "lth.book",
    "lth.cluster",
    "lth.course",
    "lth.analysis",
    "lth.methods",
    "lth.store",
    "lth.training",
    "lth.gradients",
    "lth.population",
    "lth.tensor_files",
    grimp.Layer("lth.data", "lth.models", independent=True),
    grimp.Layer(*(f"lth.{tool}" for tool in TOOLS), independent=False),
)


@pytest.fixture
def graph() -> grimp.ImportGraph:
    """Every import of the library, those inside functions and for type checkers too."""
    return grimp.build_graph("lth")


def upward(graph: grimp.ImportGraph) -> list[str]:
    found = graph.find_illegal_dependencies_for_layers(layers=ROOMS)
    return sorted(f"{d.importer} imports {d.imported}" for d in found)


def circle(graph: grimp.ImportGraph) -> list[str]:
    """Modules that import each other in turn, the first one twice; none is what one hopes for."""
    arrows = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_no_room_imports_from_one_above(graph):
    assert upward(graph) == []


def test_no_circle(graph):
    assert circle(graph) == []


def test_every_module_has_a_room(graph):
    rooms = {name for layer in ROOMS for name in ([layer] if isinstance(layer, str) else layer.module_tails)}
    assert {".".join(module.split(".")[:2]) for module in graph.modules} - {"lth", "lth.__main__"} == rooms


def test_an_arrow_that_points_up_is_found(graph):
    graph.add_import(importer="lth.training.step", imported="lth.book.chapter")
    assert upward(graph) == ["lth.training imports lth.book"]


def test_a_circle_is_found(graph):
    graph.add_import(importer="lth.seeds", imported="lth.parallel")
    graph.add_import(importer="lth.parallel", imported="lth.seeds")
    assert {*circle(graph)} == {"lth.seeds", "lth.parallel"}
