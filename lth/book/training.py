"""What of a notebook its training needs: a chapter without its measures, tables and figures.

A statement trains where it uses `chapter.train`, or a function that does. Going backwards from these, whatever makes a
name that is still needed is kept [Weiser 1984, program slicing]; loops and branches are looked into. So a notebook says
nowhere which of its cells train.
"""

from __future__ import annotations

import ast
import copy
import json
import symtable
from collections.abc import Sequence
from functools import cache

from lth.book import CHAPTERS
from lth.files import ROOT

CHAPTER = "chapter"  # the variable through which every notebook trains
INNER = ("body", "orelse", "finalbody")  # of loops, branches and `with`


def training_cells(chapter: str) -> list[str]:
    """The code of the chapter's notebook that its training needs, cell by cell, without the cell of parameters."""
    cells = json.loads((ROOT / CHAPTERS[chapter]).read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    return reduced(
        tuple("".join(cell["source"]) for cell in code if "parameters" not in cell["metadata"].get("tags", []))
    )


@cache
def reduced(cells: tuple[str, ...]) -> list[str]:
    """Of each cell what the training in any of them needs; cells of which nothing is left are left out."""
    trees = [ast.parse(cell).body for cell in cells]
    whole = [statement for tree in trees for statement in tree]
    notebook = _Notebook(whole)
    needed: set[str] = set()
    kept = []
    for tree in reversed(trees):
        some, needed = notebook.needed(tree, needed)
        if some:
            kept.append("\n".join(ast.unparse(statement) for statement in some))
    return kept[::-1]


class _Notebook:
    """What the functions of a notebook refer to, which of them train, and which names are modules."""

    def __init__(self, statements: Sequence[ast.stmt]) -> None:
        every = [node for statement in statements for node in ast.walk(statement)]
        self.imported = {
            (alias.asname or alias.name).partition(".")[0]
            for node in every
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        self.functions: dict[str, set[str]] = {}
        for node in statements:
            if isinstance(node, ast.FunctionDef):
                self.functions.setdefault(node.name, set()).update(_globals(node))
        self.trainers = {n.name for n in statements if isinstance(n, ast.FunctionDef) and _says_train(n)}
        while more := {f for f, used in self.functions.items() if used & self.trainers} - self.trainers:
            self.trainers |= more

    def needed(self, body: Sequence[ast.stmt], after: set[str]) -> tuple[list[ast.stmt], set[str]]:
        """The statements of `body` that training needs, or that make a name needed `after`; names needed before."""
        kept, wanted = [], set(after)
        for statement in reversed(body):
            if isinstance(statement, ast.For | ast.While | ast.If | ast.With | ast.Try):
                some, inside = self._inner(statement, wanted)
                if isinstance(statement, ast.For | ast.While):  # what one turn makes the next may need
                    some, inside = self._inner(statement, wanted | inside)
                if some:
                    kept.append(some)
                    wanted |= inside
            elif self._trains(statement) or self._makes(statement) & wanted:
                kept.append(statement)
                wanted = (wanted - _binds(statement)) | self._uses(statement)
        return kept[::-1], wanted

    def _inner(self, statement: ast.stmt, wanted: set[str]) -> tuple[ast.stmt | None, set[str]]:
        smaller, names, any_left = copy.copy(statement), set(), False
        for field in INNER:
            some, needs = self.needed(getattr(statement, field, []), wanted)
            any_left |= bool(some)
            names |= needs
            setattr(smaller, field, some)
        smaller.body = smaller.body or [ast.Pass()]
        head = copy.copy(smaller)
        for field in INNER:
            setattr(head, field, [ast.Pass()] if field == "body" else [])
        if not any_left and not self._trains(head):
            return None, set()
        return smaller, names | self._uses(head)

    def _trains(self, statement: ast.stmt) -> bool:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            return False
        return _says_train(statement) or bool(_referenced(statement) & self.trainers)

    def _uses(self, statement: ast.stmt) -> set[str]:
        """Names whose values the statement uses, those that functions called by it use included."""
        found, new = set(), _referenced(statement)
        while new:
            found |= new
            new = {name for f in new for name in self.functions.get(f, ())} - found
        return found

    def _makes(self, statement: ast.stmt) -> set[str]:
        """Names that the statement gives a value to, or whose value it may change."""
        bases = [node for node in ast.walk(statement) if isinstance(node, ast.Subscript | ast.Attribute)]
        changed = {_base(node) for node in bases if isinstance(node.ctx, ast.Store)}
        if isinstance(statement, ast.Expr) and isinstance(call := statement.value, ast.Call):
            changed |= {_base(call.func)} - self.imported - {CHAPTER}  # rows.append(…)
        return _binds(statement) | changed | _assigned(statement)


def _says_train(node: ast.AST) -> bool:
    return any(
        isinstance(part, ast.Attribute) and part.attr == "train" and _base(part) == CHAPTER for part in ast.walk(node)
    )


def _base(node: ast.AST) -> str:
    """The name that an attribute, an item or a call of one belongs to."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _table(node: ast.stmt) -> symtable.SymbolTable:
    return symtable.symtable(ast.unparse(node), "notebook", "exec")


def _referenced(statement: ast.stmt) -> set[str]:
    """Global names that the statement refers to when it is executed; what it only defines is not."""
    top = _table(statement)
    names = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_referenced()}
    defined = {statement.name} if isinstance(statement, ast.FunctionDef) else set()
    for child in top.get_children():
        if child.get_name() not in defined:
            names |= _globals_of(child)
    return names | ({statement.target.id} if _adds(statement) else set())


def _globals(function: ast.FunctionDef) -> set[str]:
    """Global names that a function refers to when it is called."""
    return {name for child in _table(function).get_children() for name in _globals_of(child)}


def _globals_of(table: symtable.SymbolTable) -> set[str]:
    own = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global()}
    return own.union(*(_globals_of(child) for child in table.get_children()))


def _assigned(statement: ast.stmt) -> set[str]:
    return {symbol.get_name() for symbol in _table(statement).get_symbols() if symbol.is_assigned()}


def _binds(statement: ast.stmt) -> set[str]:
    """Names that have a new value for certain: what was made before under them is not needed for them."""
    return set() if _adds(statement) else _assigned(statement) | _imports(statement)


def _imports(statement: ast.stmt) -> set[str]:
    if not isinstance(statement, ast.Import | ast.ImportFrom):
        return set()
    return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}


def _adds(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name)
