"""The page "On many machines": its table is counted, and its script for SLURM does what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from lth.book import CHAPTERS, cost, many_machines
from lth.book.presets import parameters
from lth.files import ROOT

PAGE = ROOT / "book" / "many_machines.md"
NAMES = ("lenet5", "lenet_300_100", "resnet18", "mobilenet", "vgg16_bn", "resnet20", "resnet34", "resnet50")


def machine(**speeds: float) -> dict:
    """One that trains so many images a second with 16 networks, and a tenth of that with one."""
    rows = [
        {"model": model, "precision": "fp32", "replicas": replicas, "images_per_second": speed * share}
        for model, speed in speeds.items()
        for replicas, share in ((1, 0.1), (16, 1.0))
    ]
    return {"device": "a machine", "kind": "cuda", "rows": rows}


def test_what_chapters_cost_is_counted():
    found = many_machines.table(machine(**dict.fromkeys(NAMES, 1e4))).set_index("chapter")
    assert list(found.index) == list(CHAPTERS) and "without" not in found
    basin = parameters("lt_basin", "paper")
    hours = cost.images(basin, 60_000)["lenet5"] / 1e4 / 3600
    assert found.loc["lt_basin", "on 1"] == f"{hours:.2g} h"
    assert found.loc["lt_basin", "on 64"] == many_machines.span(max(hours / 64 * 3600, 2 * basin.steps * 128 / 1e3))
    rounds, epochs = parameters("rti_repulsion", "paper").rounds, parameters("rti_repulsion", "paper").epochs
    longest = (2 * rounds + 1) * epochs * 60_000 / 1e3
    assert found.loc["rti_repulsion", "longest chain"] == f"{2 * rounds + 1} trainings, {many_machines.span(longest)}"
    assert found.loc["rti_repulsion", "on 64"] == many_machines.span(longest)


def test_networks_that_were_not_measured_are_named():
    found = many_machines.table(machine(**dict.fromkeys(NAMES[:-1], 1e4))).set_index("chapter")
    assert found.loc["tweaks", "without"] == "resnet50" and found.loc["tweaks", "on 1"].startswith("over ")
    assert found.loc["lt_basin", "without"] == "–"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "1 min"), (1200.0, "20 min"), (9000.0, "2.5 h"), (40 * 3600.0, "40 h"), (9e8, "29 years"), (1e400, "?")],
)
def test_spans_are_told_in_their_own_unit(seconds, words):
    assert many_machines.span(seconds) == words


def test_the_page_has_a_table_for_each_machine(tmp_path):
    (folder := tmp_path / "book" / "benchmarks").mkdir(parents=True)
    (folder / "one.json").write_text(json.dumps(machine(lenet5=1e4)), encoding="utf-8")
    page = folder.parent / "many_machines.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    many_machines.write(tmp_path)
    told = page.read_text(encoding="utf-8")
    assert ":name: tab-machines-one" in told and many_machines.MARK not in told
    assert told.count("| lt\\_basin |") == 1 and "No GPU" not in told
    (folder / "one.json").write_text(json.dumps(machine(lenet5=1e4) | {"kind": "cpu"}), encoding="utf-8")
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    many_machines.write(tmp_path)
    assert "No GPU has been measured yet" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(("ends", "again"), [(0, False), (75, True), (1, False)])
def test_the_script_for_slurm_goes_on_when_its_time_was_up(tmp_path, ends, again):
    script = re.search(r"```bash\n(#!/bin/bash\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    programs = {
        "scontrol": 'if [[ $1 == show ]]; then printf "node-7\\nnode-9\\n"; else echo "$*" >> said; fi',
        "srun": f'echo "$*" >> said; exit {ends}',
    }
    for name, what in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{what}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "5", "SLURM_JOB_NODELIST": "node-[7,9]", "SLURM_JOB_NUM_NODES": "2"}
    job |= {"SLURM_CPUS_PER_TASK": "8", "SLURM_GPUS_PER_TASK": "4", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run(["bash", "-c", script], cwd=tmp_path, env=job, check=False).returncode == ends
    said = Path(tmp_path, "said").read_text(encoding="utf-8").splitlines()
    starts = "ray symmetric-run --address node-7:6379 --min-nodes 2 --num-cpus 8 --num-gpus 4"
    assert said[0].startswith(f"{starts} -- lth run tweaks")
    assert ("requeue 5" in said) == again
