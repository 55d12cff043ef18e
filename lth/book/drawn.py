"""What a cell of a notebook draws, told from its code: which file it is in, whether intervals of a mean are in it."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

INTERVAL = "figures.t_interval"
Uses = dict[str, set[str]]  # «module.function» → what it names, in the same form


def picture(cell: dict[str, Any], chapter: Path) -> Path | None:
    """The file of the figure that a cell saved when the chapter was executed into a folder; None where it saved none.

    A cell may save tables beside it, which have no picture.
    """
    names = re.findall(r'chapter\.save\("([\w-]+)"', "".join(cell["source"]))
    return next((file for name in names if (file := chapter / "figures" / f"{name}.png").is_file()), None)


def intervals(cell: dict[str, Any], cells: list[dict[str, Any]]) -> bool:
    """Whether a cell names `figures.t_interval`, itself or through functions of the notebook or of `lth.book`.

    cells: all of the notebook, in nbformat's JSON.
    """
    sources = ["".join(other["source"]) for other in cells if other["cell_type"] == "code"]
    whole = _parsed("\n".join(sources))
    aliases = _aliases(whole)
    uses = _of_the_book() | _functions(whole, "", aliases)
    seen, new = set(), _named(_parsed("".join(cell["source"])), "", aliases)
    while new:
        seen |= new
        new = set().union(*(uses.get(name, set()) for name in new)) - seen
    return INTERVAL in seen


@cache
def _of_the_book() -> Uses:
    found: Uses = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found |= _functions(tree, file.stem, _aliases(tree))
    return found


def _parsed(source: str) -> ast.Module:
    return ast.parse(re.sub(r"^\s*[%!].*$", "", source, flags=re.MULTILINE))


def _aliases(tree: ast.Module) -> dict[str, str]:
    """What an imported name stands for: `draw` → «geometry_figures», `t_interval` → «figures.t_interval»."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lth."):
            above = node.module.removeprefix("lth.").partition(".")[2]  # «figures» of lth.book.figures, "" of lth.book
            found |= {name.asname or name.name: f"{above}.{name.name}".lstrip(".") for name in node.names}
    return found


def _functions(tree: ast.Module, module: str, aliases: dict[str, str]) -> Uses:
    return {
        f"{module}.{node.name}": _named(node, module, aliases)
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }


def _named(tree: ast.AST, module: str, aliases: dict[str, str]) -> set[str]:
    """All that is named in a piece of code: «module.name»."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(aliases.get(node.id, f"{module}.{node.id}"))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{aliases.get(node.value.id, node.value.id)}.{node.attr}")
    return found
