"""Initial weights: their range, their distribution, what is not drawn, and one stream per seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from lth.errors import UsageError
from lth.methods import init
from lth.methods.init import glorot_normal, glorot_uniform, kaiming_normal, kaiming_uniform, torch_default
from lth.models import ARCHITECTURES, Model

INITIALISATIONS = [glorot_uniform, glorot_normal, kaiming_uniform, kaiming_normal]


def distribution(init, fan_in: int, fan_out: int):
    """The distribution a weight should have, from the formulas."""
    if init is glorot_uniform:
        bound = np.sqrt(6 / (fan_in + fan_out))
    elif init is kaiming_uniform:
        bound = np.sqrt(6 / fan_in)
    else:
        return stats.norm(0, np.sqrt(2 / (fan_in + fan_out) if init is glorot_normal else 2 / fan_in))
    return stats.uniform(-bound, 2 * bound)


@pytest.mark.parametrize("init", INITIALISATIONS)
@pytest.mark.parametrize(
    "model", [Model("lenet5"), Model("lenet_300_100"), Model("resnet20", (3, 32, 32))], ids=lambda m: m.name
)
def test_weights_have_the_distribution_of_the_formula(init, model):
    population = init(model, seeds=range(4))
    for layer in model.prunable:
        stack = population.params[layer]
        receptive = int(np.prod(stack.shape[3:]))
        expected = distribution(init, stack.shape[2] * receptive, stack.shape[1] * receptive)
        weights = stack.flatten().double().numpy()
        assert weights.min() >= expected.support()[0] * (1 + 1e-6)
        assert weights.max() <= expected.support()[1] * (1 + 1e-6)
        assert stats.kstest(weights, expected.cdf).pvalue > 1e-3, layer
        assert abs(weights.std() / expected.std() - 1) < 5 / np.sqrt(len(weights)), layer


def test_depthwise_convolutions_have_nine_inputs():
    population = kaiming_uniform(Model("mobilenet", (3, 32, 32)), seeds=range(2))
    weights = population.params["blocks.12.conv1.weight"].flatten().double().numpy()
    bound = np.sqrt(6 / 9)
    assert stats.kstest(weights, stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3


@pytest.mark.parametrize("init", INITIALISATIONS)
@pytest.mark.parametrize("name", ["lenet5", "conv4", "resnet20"])
def test_what_is_not_drawn_begins_as_the_identity(init, name):
    population = init(Model(name, (3, 32, 32)), seeds=[3, 5])
    for layer, stack in population.params.items():
        if layer not in population.masks:
            assert stack.ndim == 2 and torch.all(stack == (1 if layer.endswith("weight") else 0)), layer
    for layer, stack in population.buffers.items():
        assert torch.all(stack == (1 if layer.endswith("running_var") else 0)), layer
    assert all(mask.all() for mask in population.masks.values())
    assert (name == "resnet20") == bool(population.buffers)


def test_extra_skips_begin_at_their_constant_and_leave_the_other_weights_alone():
    plain = kaiming_normal(Model("resnet20", (3, 32, 32)), seeds=[2])
    tweaked = kaiming_normal(Model("resnet20", (3, 32, 32), activation="swish", skips="conv"), seeds=[2])
    extra = tweaked.params.keys() - plain.params.keys()
    assert all(torch.equal(tweaked.params[n], stack) for n, stack in plain.params.items())
    kernels = [n for n in extra if tweaked.params[n].ndim == 5]
    assert len(kernels) == 18
    assert all(torch.equal(tweaked.params[n], torch.full_like(tweaked.params[n], 1e-4)) for n in kernels)
    assert {n for n in extra if bool((tweaked.params[n] == 1).all())} == {
        n.replace(".0.weight", ".1.weight") for n in kernels
    }
    assert {n for n in extra if bool((tweaked.params[n] == 0).all())} == {
        n.replace(".0.weight", ".1.bias") for n in kernels
    }


@pytest.mark.parametrize("name", ["lenet5", "resnet8", pytest.param("vgg16_bn", marks=pytest.mark.thorough)])
def test_torchs_default_is_that_of_its_own_layers(name):
    """Each tensor has the distribution that it has in a module as torch makes it, biases too."""
    model = Model(name, (3, 32, 32), 10)
    torch.manual_seed(0)
    theirs = dict(model.build("cpu").named_parameters())
    ours = torch_default(model, seeds=range(3))
    for layer, stack in ours.params.items():
        weights, own = stack.flatten().double().numpy(), theirs[layer].detach().flatten().double().numpy()
        if (own == own[0]).all():  # batch norm
            assert (weights == own[0]).all()
            continue
        size = min(len(weights), len(own))
        assert abs(weights).max() <= abs(own).max() * (1 + 20 / size) and weights.min() < 0 < weights.max()
        if size > 100:
            assert stats.ks_2samp(weights, own).pvalue > 1e-3, layer
    assert torch.equal(ours.theta()[[1]], torch_default(model, seeds=[1]).theta())
    assert not torch.equal(ours.theta()[0], ours.theta()[1])


@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if not n.startswith(("resnet34", "resnet50"))])
def test_every_architecture_begins_with_finite_outputs_that_differ(name):
    model = Model(name, (3, 32, 32))
    module = kaiming_normal(model, seeds=[0]).module(0).train()
    with torch.no_grad():
        logits = module(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert torch.isfinite(logits).all() and 1e-3 < logits.std(0).mean() < 10


# --- seeds and streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, first, lasts",
    [
        (
            "lenet5",
            [-0.036372557282447815, -0.04948277771472931, -0.13236579298973083],
            [
                0.07685204595327377,
                -0.06352869421243668,
                0.10626756399869919,
                -0.01183213572949171,
                0.10363584756851196,
            ],
        ),
        (
            "lenet_300_100",
            [-0.014614306390285492, -0.019881926476955414, -0.053183894604444504],
            [0.006179548799991608, 0.07595144957304001, 0.02499140240252018],
        ),
    ],
)
def test_weights_are_those_that_stored_runs_began_with(name, first, lasts):
    """Recorded values of seed 3, to the bit: a run's key is a hash of its initial weights."""
    population = glorot_uniform(Model(name), seeds=[0, 3])
    weights = [population.params[layer][1].flatten() for layer in population.masks]
    assert weights[0][:3].tolist() == first
    assert [w[-1].item() for w in weights] == lasts


@pytest.mark.parametrize("init", INITIALISATIONS)
def test_a_seed_gives_the_same_weights_whatever_surrounds_it(init):
    torch.manual_seed(5)
    alone = init(Model("lenet5"), seeds=[7]).theta()[0]
    torch.manual_seed(6)
    among = init(Model("lenet5"), seeds=[3, 7, 0, 7]).theta()
    assert torch.equal(alone, among[1]) and torch.equal(alone, among[3])


@pytest.mark.parametrize("init", INITIALISATIONS)
def test_different_seeds_give_unrelated_weights(init):
    theta = init(Model("lenet_300_100"), seeds=[0, 1, 2, 100]).theta().double()
    correlations = np.corrcoef(theta.numpy())
    assert np.abs(correlations - np.eye(4)).max() < 5 / np.sqrt(theta.shape[1])


def test_seeds_of_any_size_and_sign():
    seeds = [-1, 1, 2**32, 2**32 + 1, 0]
    theta = glorot_uniform(Model("lenet5"), seeds=seeds).theta()
    assert len({tuple(row.tolist()) for row in theta}) == len(seeds)


def test_scales_uniform_between_nought_and_one():
    """Against the uniform distribution; all else stays as it was, and a seed gives the same whatever surrounds it."""
    networks = kaiming_normal(Model("resnet20", (3, 32, 32), 10), seeds=range(4))
    found = init.with_uniform_scales(networks)
    names = [n for n, p in networks.params.items() if n.endswith("weight") and p.ndim == 2]
    drawn = torch.cat([found.params[n].flatten() for n in names]).numpy()
    assert stats.kstest(drawn, "uniform").pvalue > 0.001 and len(drawn) == 4 * 784
    assert all(torch.equal(p, found.params[n]) for n, p in networks.params.items() if n not in names)
    alone = init.with_uniform_scales(kaiming_normal(Model("resnet20", (3, 32, 32), 10), seeds=[2]))
    assert torch.equal(alone.theta()[0], found.theta()[2])
    plain = kaiming_normal(Model("lenet_300_100"), seeds=[0])
    assert torch.equal(init.with_uniform_scales(plain).theta(), plain.theta())


def test_no_seeds():
    with pytest.raises(UsageError, match="at least one replica"):
        glorot_uniform(Model("lenet5"), seeds=[])


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
