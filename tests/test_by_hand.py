"""The page "By hand": the cell it changes is there, its new cell runs, and its commands are ones that `lth` knows."""

from __future__ import annotations

import json
import re
import shlex

import nbformat
import pandas as pd
import pytest
import torch
import typer

from lth.book import CHAPTERS, cli, runner
from lth.book.presets import parameters
from lth.files import ROOT
from lth.methods import init, prune
from lth.models import Model
from lth.population import Population

NAMES = ("by_hand", "yours", "rerun", "ask")
PAGES = {name: (ROOT / "book" / f"{name}.md").read_text(encoding="utf-8") for name in NAMES}
BEFORE, AFTER, CELL = re.findall(r"```python\n(.*?)```", PAGES["by_hand"], re.DOTALL)
BLOCKS = [block for page in PAGES.values() for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL)]
COMMANDS = sorted({line for block in BLOCKS for line in block.splitlines() if line.startswith("lth ")})


def parameter_cell(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    return next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))


def test_the_line_to_change_is_in_the_notebook_as_the_page_has_it():
    cell = parameter_cell(nbformat.read(ROOT / CHAPTERS["lt_basin"], as_version=4))
    assert BEFORE in cell.source and BEFORE != AFTER
    assert parameters("lt_basin", "quick", {"sparsity": AFTER.split()[2]}).sparsity == 0.9


def evaluated(cell: str, space: dict) -> pd.DataFrame:
    """The value of the last line."""
    *lines, last = cell.strip().splitlines()
    exec("\n".join(lines), space)
    return eval(last, space)


def test_the_new_cell_counts_weights_that_were_turned_round():
    def network(number: int) -> Population:
        one = init.glorot_uniform(Model("lenet_300_100"), [number], method="ticket")
        return prune.apply(one, prune.magnitude_masks(one, 0.8))

    start = network(3)
    end = start.with_theta(torch.where(torch.arange(start.theta().shape[1]) % 2 == 0, -1, 1) * start.theta())
    table = evaluated(CELL, {"start": start, "end": end})
    weights = torch.cat([p.flatten() for n, p in start.params.items() if n in start.masks])
    flips = torch.cat([(p * end.params[n]).flatten() for n, p in start.params.items() if n in start.masks]) < 0
    assert table.loc["ticket", "mean"] == pytest.approx(100 * flips.sum().item() / weights.count_nonzero().item())


@pytest.mark.thorough
def test_the_changed_notebook_runs_by_hand_with_the_new_cell(tmp_path, monkeypatch):
    """As in JupyterLab, no runner beside it; as small as can be."""
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / CHAPTERS["lt_basin"], as_version=4)
    cell = parameter_cell(notebook)
    small = parameters("lt_basin", "smoke", {"model": "lenet_300_100"}).model_dump(exclude={"sparsity"})
    cell.source = cell.source.replace(BEFORE, AFTER) + "".join(f"\n{name} = {value!r}" for name, value in small.items())
    notebook.cells.append(nbformat.v4.new_code_cell(CELL))
    monkeypatch.setenv("LTH_OUT", str(tmp_path / "lt_basin"))
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": ROOT}}).execute()
    stamp = json.loads((tmp_path / "lt_basin" / "provenance.json").read_text(encoding="utf-8"))
    assert stamp["parameters"]["sparsity"] == 0.9
    assert "mean" in notebook.cells[-1].outputs[0].data["text/plain"]
    shown = [out.data for cell in notebook.cells for out in cell.get("outputs", ()) if "data" in out]
    assert any(data.get("text/markdown", "").startswith("Distance to the pruning solution") for data in shown)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_pages_is_one_that_lth_knows(line):
    """Its name, its arguments and its options; -p names parameters of the chapter."""
    words = shlex.split(line, comments=True)[1:]
    command = typer.main.get_command(cli.cli)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    context = command.make_context(command.name, words)
    if command.name == "run":
        chapters, pairs = context.params["chapters"] or [], context.params["parameter"] or []
        for chapter in chapters:
            parameters(runner.named(chapter), context.params["preset"], dict(pair.split("=", 1) for pair in pairs))


def test_the_folder_of_a_changed_run_is_the_one_that_the_pages_name():
    named = set(re.findall(r"build/changed/[^/`\s]+", "".join(PAGES.values())))
    assert named == {
        runner.usual_out("quick", {"sparsity": "0.9"}),
        runner.usual_out("quick", {"sparsity": "0.7", "seeds": "3"}),
    }
