"""Sparsity-aware initial weights against [E, Eq. 2] written out, signals sent through a layer, and torch's own."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.nn import functional as F

from lth.errors import UsageError
from lth.methods import init, prune, sparse_init
from lth.methods.distribution import random_masks, uniform
from lth.models import Model

REPLICAS = 300


def skewed(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """A mask in which the first neurons have nearly all their inputs, the last few and the very last none."""
    generator = torch.Generator().manual_seed(seed)
    out = shape[0]
    chance = torch.linspace(1, 0, out).view(out, *[1] * (len(shape) - 1))
    return torch.rand(shape, generator=generator) < chance


@pytest.fixture(scope="module", params=["random", "skewed"])
def masked(request):
    """LeNet5 REPLICAS times over with one set of masks and a different `init_seed` each."""
    network = init.glorot_uniform(Model("lenet5"), seeds=[0])
    if request.param == "random":
        masks = random_masks(network, uniform(network.model, 0.9))
    else:
        masks = {n: skewed(m.shape[1:], 1)[None] for n, m in network.masks.items()}
    return prune.apply(network, masks).repeat(REPLICAS).label(init_seed=range(REPLICAS))


def is_unit(power: torch.Tensor) -> bool:
    """Whether the mean square of each neuron, (R, …) over independent replicas, is 1 up to five standard errors."""
    error = power.std(0) / math.sqrt(len(power))
    return bool((abs(power.mean(0) - 1) < 5 * error).all()) and bool((error < 0.25).all())


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_forward_gives_every_neuron_unit_variance(masked, scale):
    """Inputs from N(0, 1) come out of every neuron that has a connection with variance `scale`."""
    weights = sparse_init.normal(masked, mode="forward", scale=scale)
    generator = torch.Generator().manual_seed(3)
    for name, stack in weights.params.items():
        if name not in masked.masks:
            continue
        if stack.ndim == 5:
            x = torch.randn(REPLICAS, 8, *stack.shape[2:], generator=generator)  # one output pixel each
            z = torch.stack([F.conv2d(a, w)[:, :, 0, 0] for a, w in zip(x, stack, strict=True)])
        else:
            x = torch.randn(REPLICAS, 8, stack.shape[2], generator=generator)
            z = x @ stack.mT
        connected = masked.masks[name][0].flatten(1).any(1)
        assert is_unit(z.square().mean(1)[:, connected] / scale), name
        assert torch.all(z[:, :, ~connected] == 0)


def test_backward_gives_every_input_a_gradient_of_unit_variance(masked):
    """Gradients from N(0, 1) at the outputs arrive with variance 1 at every input that has a connection."""
    weights = sparse_init.normal(masked, mode="backward")
    generator = torch.Generator().manual_seed(4)
    for name in ("conv2.weight", "fc1.weight", "fc3.weight"):
        stack, mask = weights.params[name], masked.masks[name][0]
        connected = mask.flatten(2).any(2).any(0) if mask.ndim == 4 else mask.any(0)
        if stack.ndim == 5:
            x = torch.zeros(REPLICAS, 8, stack.shape[2], 9, 9, requires_grad=True)
            z = torch.stack([F.conv2d(a, w) for a, w in zip(x, stack, strict=True)])
        else:
            x = torch.zeros(REPLICAS, 8, stack.shape[2], requires_grad=True)
            z = x @ stack.mT
        (grad,) = torch.autograd.grad(z, x, torch.randn(z.shape, generator=generator))
        grad = grad[..., 4, 4] if stack.ndim == 5 else grad  # the pixel that all 25 places of the kernel pass
        assert is_unit(grad.square().mean(1)[:, connected]), name
        assert torch.all(grad[:, :, ~connected] == 0)


@settings(deadline=None)
@given(
    st.sampled_from([(3, 4), (1, 1), (2, 3, 2, 2), (4, 1, 3, 1)]),
    st.integers(0, 1000),
    st.sampled_from(["forward", "backward", "average"]),
    st.sampled_from(["neuron", "layer", "dense"]),
    st.sampled_from([1.0, 2.0]),
)
def test_variance_is_equation_2_weight_by_weight(shape, seed, mode, fans, scale):
    density = np.random.default_rng(seed).uniform()
    masks = np.random.default_rng(seed).random((2, *shape)) < density
    result = sparse_init.variance(torch.from_numpy(masks), mode, fans, scale)
    assert result.shape == masks.shape
    for mask, got in zip(masks, result.numpy(), strict=True):
        for place in np.ndindex(*shape):
            if not mask[place]:
                assert got[place] == 0
                continue
            i, j = place[:2]
            if fans == "neuron":
                fan_in, fan_out = mask[i].sum(), mask[:, j].sum()
            else:
                share = mask.sum() / mask.size if fans == "layer" else 1
                fan_in, fan_out = mask[i].size * share, mask[:, j].size * share
            u = {"forward": fan_in, "backward": fan_out, "average": (fan_in + fan_out) / 2}[mode]
            assert got[place] == pytest.approx(scale / u, rel=1e-6)


@pytest.mark.parametrize("mode", ["forward", "backward", "average"])
def test_liu_equals_ours_where_all_neurons_have_equally_many(mode):
    rows, columns = torch.arange(12)[:, None], torch.arange(12)
    linear = ((columns - rows) % 12 < 3)[None]  # circulant: three in every row, three in every column
    conv = linear[..., None, None].repeat(1, 1, 1, 5, 5)
    for mask in (linear, conv):
        ours = sparse_init.variance(mask, mode, "neuron")
        assert torch.allclose(ours, sparse_init.variance(mask, mode, "layer"), rtol=1e-6)
        assert not torch.allclose(ours, sparse_init.variance(mask, mode, "dense"))


@pytest.mark.parametrize(
    "mode, scale, theirs",
    [
        ("average", 1.0, nn.init.xavier_normal_),
        ("forward", 2.0, lambda w, generator: nn.init.kaiming_normal_(w, nonlinearity="relu", generator=generator)),
        ("forward", 1.0, lambda w, generator: nn.init.kaiming_normal_(w, nonlinearity="linear", generator=generator)),
        ("backward", 2.0, lambda w, generator: nn.init.kaiming_normal_(w, 0, "fan_out", "relu", generator)),
    ],
)
@pytest.mark.parametrize("fans", ["neuron", "layer", "dense"])
def test_a_dense_network_gets_the_distribution_of_torch(lenets, mode, scale, theirs, fans):
    """All three rules are the classical one where nothing is masked."""
    weights = sparse_init.normal(lenets, mode, fans, scale)
    for name in lenets.masks:
        other = torch.empty(4, *lenets.masks[name].shape[1:])
        for r in range(4):
            theirs(other[r], generator=torch.Generator().manual_seed(r))
        assert stats.ks_2samp(weights.params[name].flatten().numpy(), other.flatten().numpy()).pvalue > 1e-3, name


@pytest.mark.parametrize("fans", ["neuron", "layer", "dense"])
def test_weights_are_normal_with_that_variance_and_zero_elsewhere(masked, fans):
    some = masked[:40]
    weights = sparse_init.normal(some, fans=fans)
    for name, mask in some.masks.items():
        standard = (weights.params[name] / sparse_init.variance(mask, fans=fans).sqrt())[mask]
        assert stats.kstest(standard.numpy(), "norm").pvalue > 1e-3, name
        assert torch.all(weights.params[name][~mask] == 0)
    dense = sparse_init.normal(replace(some, masks={n: torch.ones_like(m) for n, m in some.masks.items()}))
    if fans == "dense":  # the mask hides, and changes nothing else
        assert all(torch.equal(weights.params[n], dense.params[n] * m) for n, m in some.masks.items())


def test_biases_are_zero_and_all_else_stays():
    network = init.glorot_uniform(Model("resnet20", (3, 32, 32), skips="conv"), seeds=[3, 4], init="ours")
    network = network.with_theta(network.theta() + 1)
    weights = sparse_init.normal(network)
    drawn = {"fc.bias", *network.masks}
    assert drawn <= network.params.keys() and torch.all(weights.params["fc.bias"] == 0)
    for name, stack in network.params.items():
        assert torch.equal(weights.params[name], stack) == (name not in drawn), name
    assert len(network.params) > len(drawn) and network.buffers
    assert all(torch.equal(b, network.buffers[n]) for n, b in weights.buffers.items())
    assert weights.frame.equals(network.frame)
    assert all(torch.equal(m, network.masks[n]) for n, m in weights.masks.items())
    assert torch.all(network.params["fc.bias"] == 1)  # what was given stays as it was


def test_a_replica_draws_the_same_whatever_surrounds_it(lenets):
    among = sparse_init.normal(lenets.label(init_seed=[5, 9, 7])).theta()
    alone = sparse_init.normal(lenets[[2]].label(init_seed=[7])).theta()
    assert torch.equal(among[2], alone[0])
    assert not torch.equal(among[0], among[2])
    by_seed = replace(lenets, frame=lenets.frame.drop(columns="init_seed"))
    assert torch.equal(sparse_init.normal(by_seed).theta(), sparse_init.normal(lenets).theta())  # both are 0, 1, 2


@pytest.mark.parametrize("dense", [init.glorot_uniform, init.glorot_normal])
def test_draws_have_nothing_to_do_with_those_of_dense_networks(dense):
    """Of one generator, torch's uniform and normal numbers would be correlated: −0.34."""
    theirs = dense(Model("lenet_300_100"), seeds=[0, 1])
    ours = sparse_init.normal(theirs, fans="dense")
    a, b = ours.params["fc1.weight"].flatten(), theirs.params["fc1.weight"].flatten()
    for x, y in ((a, b), (a.abs(), b), (a, b.abs()), (a.abs(), b.abs())):
        assert abs(np.corrcoef(x, y)[0, 1]) < 5 / math.sqrt(len(a))


def test_double_precision_stays_double(lenets):
    double = lenets.with_theta(lenets.theta().double())
    assert all(p.dtype == torch.float64 for p in sparse_init.normal(double).params.values())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"mode": "sideways"}, "unknown mode 'sideways': known are forward, backward, average"),
        ({"fans": "ours"}, "unknown fans 'ours': known are neuron, layer, dense"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"scale": float("nan")}, "scale must be positive"),
    ],
)
def test_unknown_words_are_refused(lenets, arguments, message):
    for refuse in (sparse_init.normal, lambda p, **a: sparse_init.variance(p.masks["fc1.weight"], **a)):
        with pytest.raises(UsageError, match=message):
            refuse(lenets, **arguments)
