"""Zeros among activations against a forward pass written out."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from lth.analysis.activations import activation_sparsity, by_stage, of_stage
from lth.methods import init
from lth.models import Model


def test_zeros_of_relu_and_of_swish(toy):
    networks = init.kaiming_normal(Model("lenet_300_100"), seeds=[0, 1], method="x")
    table = activation_sparsity(networks, toy.test, batch=30)
    assert table.layer.tolist() == ["fc2.weight", "fc3.weight"] * 2 and table.seed.tolist() == [0, 0, 1, 1]
    x = toy.test.pixels(torch.arange(len(toy.test))).flatten(1)
    for r in range(2):
        params = {n: p[r] for n, p in networks.params.items()}
        one = F.relu(F.linear(x, params["fc1.weight"], params["fc1.bias"]))
        two = F.relu(F.linear(one, params["fc2.weight"], params["fc2.bias"]))
        expected = [(h < 1e-3).double().mean().item() for h in (one, two)]
        assert table[table.seed == r].zeros.tolist() == pytest.approx(expected, abs=1e-4)
    smooth = activation_sparsity(init.kaiming_normal(Model("lenet_300_100", activation="swish"), [0]), toy.test)
    assert 0 < smooth.zeros.max() < 0.05


def test_zeros_by_stage():
    layers = ["layer1.0.conv1.weight", "layer1.0.conv2.weight", "layer2.0.downsample.0.weight", "layer2.0.conv1", "fc"]
    table = pd.DataFrame({"network": 0, "layer": layers, "zeros": [0.2, 0.4, 0.9, 0.5, 0.7]})
    found = by_stage(pd.concat([table, table.assign(network=1, zeros=0.1)]), ["network"])
    assert found.stage.tolist() == ["layer1", "layer2"] * 2
    assert found.zeros.tolist() == pytest.approx([0.3, 0.5, 0.1, 0.1])


def test_zeros_of_one_stage_are_a_mean_over_levels():
    rows = [("ticket", level, 0, stage, 10 * level + place) for level in (1, 3) for place, stage in enumerate("abc")]
    rows += [("Swish", 1, 0, "a", 99.0), ("ticket", 1, 1, "c", 5.0)]
    stages = pd.DataFrame(rows, columns=["way", "level", "network", "stage", "zeros"])
    assert of_stage(stages, "ticket", [1, 3], -1).to_dict() == {0: 22.0, 1: 5.0}
    assert of_stage(stages, "ticket", [3], 0).to_dict() == {0: 30.0}
    assert not len(of_stage(stages[:0], "ticket", [1], 0))  # of other architectures there are no stages
