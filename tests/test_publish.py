"""The workflow with which a fork publishes its edition: what it runs are commands of this repository."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib

import pytest
import typer
import yaml
from packaging.specifiers import SpecifierSet

from lth.book import cli
from lth.files import ROOT

WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "publish.yml").read_text(encoding="utf-8"))
STEPS = WORKFLOW["jobs"]["publish"]["steps"]
PROGRAMS = [step["run"] for step in STEPS if "run" in step]
ECHO = '#!/usr/bin/env bash\nprintf "%s\\n" lth "$@" ""\n'


def called(tmp_path, program: str, words: str) -> list[list[str]]:
    """What a step calls `lth` with, one list for each call."""
    lth = tmp_path / ".venv" / "bin" / "lth"
    lth.parent.mkdir(parents=True)
    lth.write_text(ECHO, encoding="utf-8")
    lth.chmod(0o755)
    how = {"cwd": tmp_path, "env": os.environ | {"WORDS": words}, "capture_output": True, "encoding": "utf-8"}
    said = subprocess.run(["bash", "-eo", "pipefail", "-c", program], check=True, **how).stdout
    return [call.splitlines()[1:] for call in said.split("\n\n") if call]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("3 -p sparsity=0.9", ["run", "3", "-p", "sparsity=0.9", "--out", "build/edition"]),
        ("6 -p 'levels=[1, 3]'", ["run", "6", "-p", "levels=[1, 3]", "--out", "build/edition"]),
        ("3; touch odd", ["run", "3;", "touch", "odd", "--out", "build/edition"]),
        ("$(touch odd) `touch odd`", ["run", "$(touch", "odd)", "`touch", "odd`", "--out", "build/edition"]),
    ],
)
def test_words_are_run_as_words(tmp_path, words, expected):
    (program,) = [program for program in PROGRAMS if "WORDS" in program]
    run, book = called(tmp_path, program, words)
    assert run == expected and not (tmp_path / "odd").exists()
    assert book == ["book", "--edition", "build/edition", "--out", "build/site"]


@pytest.mark.parametrize("line", [line.strip() for p in PROGRAMS for line in p.splitlines() if ".venv/bin/lth" in line])
def test_its_commands_are_known(line):
    words = line.replace('"${words[@]}"', "3 --preset quick -p sparsity=0.9").split()[1:]
    command = typer.main.get_command(cli.cli).commands[words[0]]
    assert command.make_context(words[0], words[1:])


def test_no_input_is_part_of_a_program():
    assert not any("${{" in program for program in PROGRAMS)


def test_python_the_set_up_and_the_site_are_those_of_the_repository():
    (python,) = [step["with"]["python-version"] for step in STEPS if "setup-python" in step.get("uses", "")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert python in SpecifierSet(project["requires-python"])
    assert (ROOT / "scripts" / "setup.sh").is_file() and "bash scripts/setup.sh" in PROGRAMS
    (site,) = [step["with"]["path"] for step in STEPS if "upload-pages" in step.get("uses", "")]
    assert all(site in program for program in PROGRAMS if "lth book" in program)
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in STEPS if "uses" in step)
