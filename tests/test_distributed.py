"""Two processes with half of every batch each are one with the whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_processes
from safetensors.torch import load_file

from lth import distributed
from lth.errors import LthError, UsageError

TOLERANCE = 1e-10
HERE = Path(__file__).parent


def torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    """Two processes of a program, and what they said."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=False)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes left what they found."""
    folder = tmp_path_factory.mktemp("two")
    done = torchrun(str(HERE / "two_processes.py"), str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.thorough
def test_two_processes_are_one(two, tmp_path):
    """Weights, masks and momentum in the checkpoint and at the end, the history with its measure, in float64."""
    one, found = two_processes.plain(tmp_path), load_file(two / "found.safetensors")
    assert {name for name in found if not name.startswith(("ours", "theirs"))} == one.keys()
    assert sum("state" in name for name in one) == 6  # of three layers' weights and biases
    for name, tensor in one.items():
        other = found[name]
        assert tensor.dtype == other.dtype and tensor.shape == other.shape, name
        assert torch.allclose(tensor.double(), other.double(), rtol=0, atol=TOLERANCE, equal_nan=True), name


@pytest.mark.thorough
def test_batch_norm_is_that_of_pytorchs_own_processes(two):
    found = load_file(two / "found.safetensors")
    ours = {name.removeprefix("ours."): t for name, t in found.items() if name.startswith("ours.")}
    assert len(ours) > 20
    for name, tensor in ours.items():
        assert torch.allclose(tensor, found[f"theirs.{name}"], rtol=0, atol=TOLERANCE), name


@pytest.mark.thorough
def test_what_cannot_be_shared_is_refused_and_the_first_keeps_the_store(two, tmp_path):
    first, second = ((two / f"told-{rank}.txt").read_text(encoding="utf-8").splitlines() for rank in (0, 1))
    assert first[0] == second[0] == (
        "batch_size=15 cannot be shared by 2 processes: take a multiple of 2, or another number of them"
    )
    assert first[1] == second[1] and first[1].startswith("the processes were to train different networks")
    assert first[2:] == second[2:] == two_processes.stored(tmp_path)
    assert [line.split()[2] for line in first[2:]] == ["1", "3"]


def test_alone_nothing_happens():
    tensors = [torch.ones(2), torch.zeros(3)]
    assert all(a is b for a, b in zip(distributed.mean(tensors), tensors, strict=True))
    assert (distributed.size(), distributed.rank()) == (1, 0)
    assert distributed.flags_of_first([True, False]) == [True, False]
    assert distributed.any_of(True) and not distributed.any_of(False)
    distributed.wait()
    distributed.agree("anything")


def test_more_processes_than_gpus(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="1 GPUs for more processes: torchrun --nproc-per-node 1"):
        distributed.own_gpu()


def test_a_store_that_the_others_do_not_see(monkeypatch, tmp_path):
    """A second process, in which everything looks trained, as the first one says, and nothing is there."""
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    monkeypatch.setattr(distributed, "flags_of_first", lambda flags: [False] * len(flags))
    with pytest.raises(LthError, match="process 1 does not see run [0-9a-f]{16} of process 0: set LTH_STORE"):
        two_processes.stored(tmp_path)
