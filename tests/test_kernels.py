"""How much a step asks of a GPU, counted without one: a change that makes it much more is seen here.

Counts are those of inductor's code for compute capability 9.0. Where a change is meant, write them anew:

    python tests/test_kernels.py --write [CASE …]

Those of vgg16_bn and mobilenet were counted before layers had forms for a GPU: they are upper limits. The largest are
counted by that command alone, as they take minutes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from conftest import toy_data

from lth.methods import init, prune
from lth.models import Model, stacked
from lth.training.group import Group
from lth.training.plan import Plan
from lth.training.recipe import Recipe
from lth.training.step import Step

FILE = Path(__file__).with_name("kernels.json")
MORE = 1.25  # times what is stored, at most
GREY, COLOURED, LARGER = (1, 28, 28), (3, 32, 32), (3, 64, 64)
AUGMENTED = {"augment": True, "weight_decay": 1e-4}
# architecture, images, replicas, recipe: as many as the presets for a GPU train together; those left out take minutes
CASES = {
    "lenet_300_100": (GREY, 240, {}),
    "lenet5": (GREY, 60, {}),
    "conv4": (COLOURED, 16, {"optimizer": "adam"}),
    "resnet20": (COLOURED, 16, AUGMENTED),
    "resnet18": (COLOURED, 4, AUGMENTED),
    "resnet8": (LARGER, 16, AUGMENTED),
    "vgg16_bn": (COLOURED, 4, AUGMENTED),
    "mobilenet": (COLOURED, 4, AUGMENTED),
}
LARGEST = {"resnet18", "vgg16_bn", "mobilenet"}


def step(name: str) -> Step:
    """Of half-pruned networks, batches of 128 and products in bf16; the weights lie as on a GPU."""
    shape, replicas, more = CASES[name]
    dense = init.kaiming_normal(Model(name, shape), range(replicas), method="dense")
    population = prune.apply(dense, prune.magnitude_masks_per_layer(dense, 0.5))
    recipe = Recipe(steps=500, batch_size=128, precision="bf16", **more)
    group = Group(population, slice(0, replicas), Plan(toy_data(400, shape), recipe))
    group.to_work()
    return group.taking


def counted(name: str) -> dict[str, int]:
    """What a GPU would be asked for, with the forms of layers that it takes."""
    from kernels import count

    with mock.patch.object(stacked, "on_gpu", lambda x: True):
        return count(step(name))


@pytest.mark.thorough
@pytest.mark.parametrize("name", [name for name in CASES if name not in LARGEST])
def test_a_step_asks_no_more_of_a_gpu_than_it_did(name):
    pytest.importorskip("triton")
    found, stored = counted(name), json.loads(FILE.read_text(encoding="utf-8"))[name]
    assert found.keys() == stored.keys()
    for what, number in stored.items():
        assert found[what] <= MORE * number, f"{name}: {found[what]:,} {what}, stored are {number:,}"


if __name__ == "__main__" and sys.argv[1:2] == ["--write"]:
    torch.set_num_threads(1)
    table = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    for case in sys.argv[2:] or CASES:
        table[case] = counted(case)
        print(case, table[case], flush=True)
        table = {name: table[name] for name in CASES if name in table}
        FILE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
