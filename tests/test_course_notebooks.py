"""The course's source notebooks, and what is made of them; nbgrader itself grades a right and a wrong submission."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from lth.course import build, check, promise, slides
from lth.course.check import NotYet, try_out
from lth.errors import LthError, UsageError
from lth.files import ROOT

TASKS = check.tasks()


def grader(cell: nbformat.NotebookNode) -> dict:
    return cell.metadata.get("nbgrader", {})


@pytest.fixture(params=check.SESSIONS)
def session(request) -> nbformat.NotebookNode:
    return build.read(build.source(request.param))


def test_sources_are_valid_and_stripped(session):
    nbformat.validate(session)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in session.cells)
    ids = [grader(cell)["grade_id"] for cell in session.cells if grader(cell)]
    assert len(ids) == len(set(ids))


def test_each_function_has_a_stub_to_fill_and_a_check_with_hidden_numbers(session):
    code = {grader(cell).get("grade_id"): cell for cell in session.cells if cell.cell_type == "code"}
    names = [name for name in code if name in TASKS]
    assert len(names) >= 3
    for name in names:
        written, tested = code[name], code[f"test_{name}"]
        assert grader(written)["solution"] and written.source.startswith(f"def {TASKS[name].call}:")
        assert written.source.count("### BEGIN SOLUTION") == written.source.count("### END SOLUTION") == 1
        assert grader(tested)["grade"] and grader(tested)["locked"] and grader(tested)["points"] > 0
        open_part, hidden = tested.source.split("### BEGIN HIDDEN TESTS")
        assert f'check("{name}")' in open_part and f'check("{name}", seed=1)' in hidden


def test_the_minutes_of_its_tasks_add_up(session):
    text = "\n".join(cell.source for cell in session.cells if cell.cell_type == "markdown")
    told = {name: int(minutes) for name, minutes in re.findall(r"^## (.*) \((\d+) minutes", text, re.MULTILINE)}
    rhythm = dict(re.findall(r"^\| (\d+) \| (.*) \|$", text, re.MULTILINE))
    assert sum(told.values()) == 65  # without introduction and discussion
    assert "with checks" in rhythm[str(sum(n for name, n in told.items() if name.startswith(("Task", "A claim"))))]


def test_a_cell_that_needs_an_unwritten_one_says_so():
    code = ["from lth.course.check import check", "def barrier(alphas, errors):\n    raise NotImplementedError()"]
    code += ["print(barrier([0, 1], [0, 0]))", "claim = 1\nraise NotImplementedError()"]
    code += ["raise NotImplementedError('no such operator')", "1 / 0"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in code])
    NotebookClient(notebook, allow_errors=True, kernel_name="python3").execute(cwd=ROOT)
    _, _, needs, itself, library, other = (cell.outputs[0] if cell.outputs else None for cell in notebook.cells)
    assert needs.traceback[0].startswith("`barrier` is not written yet") and itself.traceback[0].startswith("This cell")
    assert {needs.ename, itself.ename} == {"NotImplementedError"} and len(needs.traceback) == len(itself.traceback) == 1
    assert library.ename == "NotImplementedError" and other.ename == "ZeroDivisionError"
    assert len(library.traceback) > 1 and len(other.traceback) > 1  # any other error is shown as ever


def test_its_own_solutions_pass(session):
    space: dict = {}
    exec("import math\nimport torch\nfrom scipy import stats", space)
    for cell in session.cells:
        name = grader(cell).get("grade_id")
        if name in TASKS:
            exec(cell.source, space)
            assert try_out(TASKS[name], space[name]).startswith("✓")


def test_each_session_has_its_parts(session):
    text = "\n".join(cell.source for cell in session.cells if cell.cell_type == "markdown")
    for part in ("Predictions (10 minutes", "Run and", "**Read it.**", "For who teaches", "**Aims.**", "**They need**",
                 "get stuck", "To shorten", "contradicts the", "To discuss", "Expected."):  # fmt: skip
        assert part in text, part
    minutes = [int(line.split("|")[1]) for line in text.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert sum(minutes) == 90


def test_together_all_tasks_are_in_the_sessions():
    cells = [cell for number in check.SESSIONS for cell in build.read(build.source(number)).cells]
    assert {grader(cell).get("grade_id") for cell in cells} >= TASKS.keys()


def test_a_session_that_is_not_there_is_a_usage_error():
    with pytest.raises(UsageError, match="no session 7: the course has 1 to 6"):
        build.source(7)


def test_without_nbgrader_the_build_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "nbgrader", None)
    with pytest.raises(UsageError, match=r"pip install .*\[course\]"):
        build.build([1], ROOT / "build")


def test_a_cell_that_fails_is_told_in_a_line():
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": spec})
    notebook.cells = [nbformat.v4.new_markdown_cell("# A session"), nbformat.v4.new_code_cell("1 / 0")]
    with pytest.raises(LthError, match="^a cell of A session fails from its own solution: ZeroDivisionError: "):
        build.execute(notebook)


def test_the_chapter_by_hand_is_shown_as_it_is_in_the_notebooks():
    """The page of chapter 0 was made from the notebook of today, and so were those of the sessions."""
    pairs = [(build.BY_HAND, build.PAGES / "prune_and_rewind.ipynb")]
    pairs += [(build.source(number), build.PAGES / f"session_{number}.ipynb") for number in check.SESSIONS]
    for path, page in pairs:
        shown = {cell.id: cell.source for cell in build.read(page).cells}
        for cell in build.read(path).cells:
            wanted = cell.source.split("### BEGIN HIDDEN TESTS")[0].rstrip()
            assert shown[cell.id].rstrip() == wanted, f"{page.name}: `lth course build --book` makes it anew"


def test_the_functions_of_chapter_0_are_those_of_the_library():
    cells = build.read(build.BY_HAND).cells
    space: dict = {}
    for cell in cells:
        if cell.cell_type == "code" and ("import pandas" in cell.source or "def magnitude_mask" in cell.source):
            exec(cell.source, space)
    assert try_out(TASKS["magnitude_mask"], space["magnitude_mask"]).startswith("✓")


# --- a claim of one's own -------------------------------------------------------------------------------------------


def test_a_claim_is_dated_before_its_run(tmp_path):
    path = tmp_path / "claim.json"
    with pytest.raises(NotYet, match="No claim is fixed"):
        promise.begin(path)
    promise.fix(path, "tickets win", "seed", least=1)
    with pytest.raises(NotYet, match="nothing was run yet"):
        promise.in_time(path)
    promise.begin(path)
    assert promise.in_time(path).startswith("✓ claim: fixed ")
    assert promise.fix(path, "tickets win", "seed", least=1)["begun"]  # the cell may be run again
    with pytest.raises(NotYet, match="What is fixed stays as it is"):
        promise.fix(path, "tickets win", "seed", least=0)
    told = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(told | {"least": 0}), encoding="utf-8")
    with pytest.raises(NotYet, match="was changed after its run began"):
        promise.in_time(path)
    path.write_text(json.dumps(told | {"fixed": "9999-01-01T00:00:00+00:00"}), encoding="utf-8")
    with pytest.raises(NotYet, match="it predicts nothing"):
        promise.in_time(path)


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ({"statement": " ", "unit": "seed", "least": 1}, "a sentence"),
        ({"statement": "x", "unit": "", "least": 1}, "it counts something"),
        ({"statement": "x", "unit": "seed"}, "nothing could contradict"),
        ({"statement": "x", "unit": "seed", "least": 2, "most": 1}, "above 2 and below 1"),
        ({"statement": "x", "unit": "seed", "least": 2, "most": 2}, "above 2 and below 2"),
        ({"statement": "x", "unit": "seed", "least": "2"}, "without quotes"),
        ({"statement": None, "unit": "seed", "least": 2}, "in words"),
        ({"least": 2.0}, "give `statement` and `unit`"),
    ],
)
def test_a_claim_that_cannot_fail_is_none(tmp_path, claim, words):
    with pytest.raises(NotYet, match=words):
        promise.fix(tmp_path / "claim.json", **claim)
    assert not list(tmp_path.iterdir())


def test_a_claim_in_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(NotYet, match="There is no folder"):
        promise.fix(tmp_path / "none" / "claim.json", "tickets win", "seed", least=1)


def test_another_file_is_not_taken_for_a_claim(tmp_path):
    path = tmp_path / "claim.json"
    for text in ("", "[]", "{}", "3"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(NotYet, match="is not a claim that `fix` wrote"):
            promise.begin(path)
        assert path.read_text(encoding="utf-8") == text


# --- with nbgrader ----------------------------------------------------------------------------------------------------


@pytest.fixture
def nbgrader():
    return pytest.importorskip("nbgrader", reason="pip install -c requirements.lock -e '.[course]'")


def test_what_students_get_has_no_solution_and_no_hidden_test(nbgrader, session):
    given = build.student(session, session)
    text = json.dumps(given)
    for word in ("BEGIN SOLUTION", "HIDDEN TESTS", "seed=1", "For who teaches", "**Expected.**"):
        assert word not in text
    assert text.count("raise NotImplementedError()") == text.count('"solution": true') - text.count("YOUR ANSWER HERE")


@pytest.mark.thorough
def test_all_sessions_run_from_their_solutions(nbgrader, tmp_path):
    written = build.build(list(check.SESSIONS), tmp_path)
    assert len(written) == 4 * len(check.SESSIONS)
    for number in check.SESSIONS:
        student = (tmp_path / "student" / f"session_{number}.ipynb").read_text(encoding="utf-8")
        assert "BEGIN SOLUTION" not in student
        # in the last session the figure would tell how the learner's own claim comes out
        assert ("attachment:expected.png" in student) == (number != 6)


def test_slides_load_nothing_from_the_network(nbgrader, session, tmp_path):
    pictures = {cell.id: "AAAA" for cell in session.cells if "expected" in cell.metadata.get("tags", [])}
    page = slides.write_slides(session, tmp_path / "s.html", build.FOR_TEACHERS, pictures).read_text(encoding="utf-8")
    loaded = re.findall(r'(?:src|href|mathjax)(?:="|: ")([^"]+)"', page)
    assert len(loaded) > 5 and all((tmp_path / path).is_file() for path in loaded)
    assert ("base64,AAAA" in page) == bool(pictures)
    assert "\nNote:\n" in page and "BEGIN SOLUTION" not in page


@pytest.mark.thorough
def test_nbgrader_grades_a_right_and_a_wrong_submission(nbgrader, tmp_path):
    """The source given to nbgrader as it is: full points for the solutions, none where a mask is not applied."""
    name, course = "session_1", tmp_path / "course"
    folder = course / "source" / name
    folder.mkdir(parents=True)
    notebook = build.read(build.source(1))
    stop = next(i for i, cell in enumerate(notebook.cells) if cell.source.startswith("## Run and read"))
    notebook.cells = notebook.cells[:stop]  # training has no part in grading
    build.write(notebook, folder / f"{name}.ipynb")
    config = f"c = get_config()\nc.CourseDirectory.root = {str(course)!r}\n"
    (course / "nbgrader_config.py").write_text(config, encoding="utf-8")

    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # nbgrader looks for alembic there
    active = os.environ | {"PATH": programs}

    def run(*words: str) -> None:
        command = [sys.executable, "-m", "nbgrader", *words]
        told = subprocess.run(command, cwd=course, env=active, capture_output=True, encoding="utf-8")
        assert told.returncode == 0, told.stderr

    run("generate_assignment", name)
    released = build.read(course / "release" / name / f"{name}.ipynb")
    answers = {grader(cell)["grade_id"]: cell.source for cell in notebook.cells if grader(cell).get("solution")}
    leaks = {"right": "+ gradient) * mask", "wrong": "+ gradient * mask)"}
    for who, line in leaks.items():
        for cell in released.cells:
            if (key := grader(cell).get("grade_id")) in answers and cell.cell_type == "code":
                cell.source = answers[key].replace(leaks["right"], line)
        build.write(released, course / "submitted" / who / name / f"{name}.ipynb")
    run("autograde", name)
    points = _points(course, name)
    assert points["right"] == {"test_magnitude_mask": 2, "test_masked_step": 2, "test_ticket": 1}
    assert points["wrong"] == {"test_magnitude_mask": 2, "test_masked_step": 0, "test_ticket": 1}
    graded = build.read(course / "autograded" / "wrong" / name / f"{name}.ipynb")
    said = [output for cell in graded.cells for output in cell.get("outputs", []) if output.output_type == "error"]
    assert [output.ename for output in said] == ["NotYet"] and "velocity" in said[0].evalue
    assert len(said[0].traceback) == 2, "the words for the learner, without a traceback"


def _points(course: Path, name: str) -> dict[str, dict[str, float]]:
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        found = {}
        for submission in book.assignment_submissions(name):
            grades = [grade for notebook in submission.notebooks for grade in notebook.grades]
            found[submission.student.id] = {g.name: g.auto_score for g in grades if g.name.startswith("test_")}
        return found
