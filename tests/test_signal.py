"""Signals in masked layers and networks against closed forms and torch's own layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from lth.analysis import signal
from lth.methods import init, prune, sparse_init
from lth.methods.distribution import random_masks, uniform
from lth.models import Model


def test_skewed_mask_has_hubs_and_loners():
    mask = signal.skewed_mask(30, 64, seed=1)
    fan_in, fan_out = mask.sum(1), mask.sum(0)
    assert fan_in.tolist() == [round(64 ** (i / 29)) for i in range(30)]
    assert fan_out.max() >= 4 * fan_out.min().clamp(min=1)
    assert torch.equal(mask, signal.skewed_mask(30, 64, seed=1))
    assert not torch.equal(mask, signal.skewed_mask(30, 64, seed=2))


def closed_form(mask: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Σ_j m_ij/u_ij and Σ_i m_ij/u_ij [E, Eq. 8 and 20]."""
    shares = mask.double() / u
    rest = tuple(range(2, mask.ndim))
    return shares.sum((1, *rest)), shares.sum((0, *rest))


@pytest.mark.parametrize("kernel", [(), (3, 3)])
@pytest.mark.parametrize("mode, fans", [("forward", "neuron"), ("backward", "neuron"), ("average", "neuron"),
                                        ("forward", "layer"), ("forward", "dense")])  # fmt: skip
def test_layer_variances_are_those_of_the_derivation(kernel, mode, fans):
    mask = signal.skewed_mask(12, 8 * math.prod(kernel), seed=0).view(12, 8, *kernel)
    fan_in = mask.flatten(1).sum(1).view(-1, 1, *[1] * len(kernel)).double()
    fan_out = mask.transpose(0, 1).flatten(1).sum(1).view(1, -1, *[1] * len(kernel)).double()
    u = {"forward": fan_in, "backward": fan_out.clamp(min=1), "average": (fan_in + fan_out) / 2}[mode]
    if fans != "neuron":
        u = torch.full_like(fan_in, mask[0].numel() * (mask.double().mean() if fans == "layer" else 1))
    draws = 4_000
    measured = signal.layer_variances(mask, mode, fans, draws=draws, seed=5)
    for found, told in zip(measured, closed_form(mask, u), strict=True):
        assert found.shape == told.shape
        assert (abs(found - told) <= 5 * math.sqrt(8 / draws) * told).all()  # 8: of a product of two normal numbers


def test_the_backward_variance_is_that_of_autograd():
    """An input pixel in the middle of torch's convolution gets gradients of the variance that is measured."""
    mask = signal.skewed_mask(6, 4 * 9, seed=3).view(6, 4, 3, 3)
    draws, generator = 3_000, torch.Generator().manual_seed(1)
    deviation = sparse_init.variance(mask[None], "average").sqrt()[0]
    weights = (deviation * torch.randn(draws, *mask.shape, generator=generator)).view(-1, 4, 3, 3)
    x = torch.zeros(1, draws * 4, 5, 5, requires_grad=True)
    z = F.conv2d(x, weights, groups=draws)
    (gradient,) = torch.autograd.grad(z, x, torch.randn(z.shape, generator=generator))
    told = gradient[0, :, 2, 2].view(draws, 4).square().mean(0)
    _, found = signal.layer_variances(mask, "average", "neuron", draws=draws)
    assert (abs(found - told) < 5 * math.sqrt(2 * 8 / draws) * told).all()


def test_depth_variances():
    """Counted neuron by neuron the variance stays at 1; counted in the dense layer it shrinks by the density."""
    masks = [torch.rand(40, 40, generator=torch.Generator().manual_seed(i)) < 0.25 for i in range(4)]
    ours = signal.depth_variances(masks, "forward", "neuron", draws=2_000)
    dense = signal.depth_variances(masks, "forward", "dense", draws=2_000)
    assert ours.tolist() == pytest.approx([1] * 4, abs=0.1)
    assert dense.tolist() == pytest.approx([0.25**layer for layer in range(1, 5)], rel=0.2)


def test_output_std():
    """Against torch's own layers, and the closed form of what a mask does to a network without hidden layers."""
    nets = init.kaiming_normal(Model("lenet_300_100"), range(2))
    found = signal.output_std(nets, inputs=50, seed=4)
    generator = signal.streams.torch_stream(4, signal.streams.SIGNAL, 3)
    x = torch.randn(50, 1, 28, 28, generator=generator).flatten(1)
    for r in range(2):
        h = x
        for layer in ("fc1", "fc2", "fc3"):
            h = F.linear(h if layer == "fc1" else h.relu(), nets.params[f"{layer}.weight"][r])
        assert found[r] == pytest.approx(float(h.std()), rel=1e-5)
    halved = nets.with_theta(nets.theta() / 2)  # homogeneous of degree three
    torch.testing.assert_close(signal.output_std(halved, inputs=50, seed=4), found / 8)
    other = prune.apply(nets, random_masks(nets, uniform(nets.model, 0.9)))
    assert (signal.output_std(other, inputs=50) < found / 10).all()
