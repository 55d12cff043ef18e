"""Glorot's uniform initialisation: its range, its distribution, and one stream per seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from lth.methods.init import glorot_uniform
from lth.models import ARCHITECTURES, Model


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_are_uniform_in_the_range_of_glorot(name):
    population = glorot_uniform(Model(name), seeds=range(4))
    for layer, stack in population.params.items():
        if stack.ndim == 2:
            assert torch.all(stack == 0), layer
            continue
        receptive = int(np.prod(stack.shape[3:]))
        fan_out, fan_in = stack.shape[1] * receptive, stack.shape[2] * receptive
        bound = np.sqrt(6 / (fan_in + fan_out))
        weights = stack.flatten().double().numpy()
        assert np.abs(weights).max() <= bound * (1 + 1e-6)
        uniform = stats.uniform(-bound, 2 * bound)
        assert stats.kstest(weights, uniform.cdf).pvalue > 1e-3, layer
        theirs = nn.init.xavier_uniform_(torch.empty(stack.shape[1:]), generator=torch.Generator().manual_seed(1))
        assert stats.ks_2samp(weights, theirs.flatten().numpy()).pvalue > 1e-3, layer


def test_a_seed_gives_the_same_weights_whatever_surrounds_it():
    torch.manual_seed(5)
    alone = glorot_uniform(Model("lenet5"), seeds=[7]).theta()[0]
    torch.manual_seed(6)
    among = glorot_uniform(Model("lenet5"), seeds=[3, 7, 0]).theta()[1]
    assert torch.equal(alone, among)


def test_different_seeds_give_unrelated_weights():
    theta = glorot_uniform(Model("lenet_300_100"), seeds=[0, 1, 2, 100]).theta().double()
    correlations = np.corrcoef(theta.numpy())
    assert np.abs(correlations - np.eye(4)).max() < 5 / np.sqrt(theta.shape[1])


def test_the_global_stream_is_neither_read_nor_moved():
    state = torch.get_rng_state()
    glorot_uniform(Model("lenet5"), seeds=[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_the_frame_says_what_was_made():
    population = glorot_uniform(Model("lenet5"), seeds=[4, 9], method="dense", level=0)
    expected = {"seed": [4, 9], "init_seed": [4, 9], "method": ["dense"] * 2, "level": [0, 0]}
    assert population.frame.to_dict("list") == expected
    assert population.sparsity().tolist() == [0, 0]
    assert not any(p.requires_grad for p in population.params.values())
