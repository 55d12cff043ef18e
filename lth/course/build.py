"""From a session's source notebook to what is handed out: for students, for who teaches, and afterwards for all.

The sources in `course/` are written for nbgrader and can be given to it as they are. Here its own preprocessors, and
those of nbconvert, make the versions that need no nbgrader to be used.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from lth.course import slides
from lth.course.check import SESSIONS
from lth.errors import LthError, UsageError
from lth.files import ROOT, write_text

SOURCES = ROOT / "course"
PAGES = ROOT / "book" / "course"  # the executed notebooks that the book shows
BY_HAND = ROOT / "notebooks" / "00_prune_and_rewind.ipynb"
FOR_TEACHERS = "instructor"  # tag of cells that students do not get
EXPECTED = "expected"  # tag of cells whose figure students are shown


def source(session: int) -> Path:
    """The source notebook of a session; UsageError where there is none."""
    path = SOURCES / f"session_{session}.ipynb"
    if session not in SESSIONS or not path.exists():
        raise UsageError(f"no session {session}: the course has {SESSIONS.start} to {SESSIONS.stop - 1}, in {SOURCES}")
    return path


def build(sessions: Sequence[int], out: Path) -> list[Path]:
    """Writes student, instructor and solutions notebooks of these sessions, and slides, under `out`: their paths."""
    require()
    paths = [source(session) for session in sessions]  # all are there before any is run
    written = []
    for path in paths:
        executed = execute(read(path))
        versions = {"student": student(read(path), executed), "instructor": executed, "solutions": solutions(executed)}
        written += [write(notebook, out / kind / path.name) for kind, notebook in versions.items()]
        pictures = {cell.id: figure(cell) for cell in executed.cells if figure(cell)}
        shown = (out / "slides" / path.name).with_suffix(".html")
        written.append(slides.write_slides(executed, shown, FOR_TEACHERS, pictures))
    return written


def publish(sessions: Sequence[int], by_hand: bool = True) -> list[Path]:
    """Puts executed pages, and the students' notebooks, where the book shows them."""
    require()
    written = []
    if by_hand:
        written.append(write(execute(read(BY_HAND), measured=False), PAGES / "prune_and_rewind.ipynb"))
    for path in [source(session) for session in sessions]:
        executed = execute(read(path))
        written.append(write(solutions(executed, notes=True), PAGES / path.name))
        written.append(write(student(read(path), executed), PAGES / "student" / path.name))
    return written


def require() -> None:
    """UsageError where nbgrader is missing, or what makes slides: only teachers need them."""
    try:
        import nbgrader  # noqa: F401
        import sphinx_revealjs  # noqa: F401
    except ImportError as error:
        how = "pip install -c requirements.lock -e '.[course]'"
        raise UsageError(f"the course is built by nbgrader, its slides by reveal.js: {how}") from error


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def write(notebook: NotebookNode, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    return path


def execute(notebook: NotebookNode, measured: bool = True) -> NotebookNode:
    """The notebook, run from its solutions; `measured` adds a cell for teachers with the time that it took.

    Raises LthError with the cell's own words where one fails.
    """
    clock = nbformat.v4.new_code_cell("import time\n\nprint(time.process_time())")
    notebook.cells.append(clock)
    client = NotebookClient(
        notebook, timeout=3600, kernel_name="python3", record_timing=False, resources={"metadata": {"path": str(ROOT)}}
    )
    try:
        client.execute()
    except CellExecutionError as error:
        told = f"{error.ename}: {error.evalue}"
        raise LthError(f"a cell of {title(notebook)} fails from its own solution: {told}") from error
    notebook.cells.remove(clock)
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    if measured:
        seconds = float(clock.outputs[0].text)
        told = f"**Measured.** The cells of this notebook take {seconds:.0f} seconds of one processor core."
        cell = nbformat.v4.new_markdown_cell(told, id="measured", metadata={"tags": [FOR_TEACHERS]})
        notebook.cells.append(cell)
    return notebook


def title(notebook: NotebookNode) -> str:
    return notebook.cells[0].source.splitlines()[0].lstrip("# ")


def student(notebook: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """Stubs in the place of solutions, no hidden tests, nothing for teachers; expected figures as pictures."""
    from nbconvert.preprocessors import TagRemovePreprocessor
    from nbgrader import preprocessors as nbgrader

    steps = [
        TagRemovePreprocessor(remove_cell_tags=[FOR_TEACHERS]),
        nbgrader.LockCells(),
        nbgrader.ClearSolutions(),
        nbgrader.ClearOutput(),
        nbgrader.CheckCellMetadata(),
        nbgrader.ClearHiddenTests(),
        nbgrader.ClearMarkScheme(),
        nbgrader.ComputeChecksums(),
    ]
    resources: dict = {}
    for step in steps:
        step.enabled = True
        notebook, resources = step.preprocess(notebook, resources)
    pictures = {cell.id: picture for cell in executed.cells if (picture := figure(cell))}
    cells = []
    for cell in notebook.cells:
        tags = cell.metadata.pop("tags", [])
        cells.append(cell)
        if EXPECTED in tags and cell.id in pictures:
            shown = "It should look about like this, which is a run from the solutions:\n\n"
            shown += "![the expected figure](attachment:expected.png)"
            cells.append(nbformat.v4.new_markdown_cell(shown, id=f"{cell.id}-expected"))
            cells[-1]["attachments"] = {"expected.png": {"image/png": pictures[cell.id]}}
    notebook.cells = cells
    return notebook


def figure(cell: NotebookNode) -> str:
    """The first picture that a cell put out, in base64; empty where there is none."""
    pictures = [output.data["image/png"] for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    return pictures[0] if pictures else ""


def solutions(executed: NotebookNode, notes: bool = False) -> NotebookNode:
    """The executed notebook without hidden tests; with the notes for teachers only where they are asked for."""
    from nbconvert.preprocessors import TagRemovePreprocessor
    from nbgrader.preprocessors import ClearHiddenTests

    notebook = nbformat.from_dict(json.loads(json.dumps(executed)))
    steps = [ClearHiddenTests()] + [TagRemovePreprocessor(remove_cell_tags=[FOR_TEACHERS])] * (not notes)
    for step in steps:
        step.enabled = True
        notebook, _ = step.preprocess(notebook, {})
    return notebook
