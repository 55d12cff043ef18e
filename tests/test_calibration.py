"""Temperatures against a plain search; and what measures of a landscape must not see: the size of logits and layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import double, toy_data
from scipy.optimize import minimize_scalar
from torch.nn import functional as F

from lth.analysis import calibration, hessian, surface
from lth.data import Split
from lth.errors import UsageError
from lth.methods import init, prune
from lth.models import Model
from lth.population import Population


@pytest.fixture(scope="module")
def images() -> Split:
    return toy_data(160, (1, 8, 8), 4).train


@pytest.fixture(scope="module")
def networks(images) -> Population:
    """Two sparse ones that have learned a little: their classifier is fitted to half of the images."""
    found = double(init.kaiming_normal(Model("resnet8", (1, 8, 8), 4), seeds=[0, 1]))
    found = prune.apply(found, prune.magnitude_masks(found, 0.5))
    for r in range(2):
        module = found.module(r).eval()
        weights = list(module.fc.parameters())
        with torch.enable_grad():
            for _ in range(25):
                logits = module(images.pixels(torch.arange(30)).double())
                grads = torch.autograd.grad(F.cross_entropy(logits, images.labels[:30]), weights)
                with torch.no_grad():
                    for weight, grad in zip(weights, grads, strict=True):
                        weight -= 0.5 * grad
    return replace(found, params={n: (p * found.masks.get(n, 1)).detach() for n, p in found.params.items()})


def halved(networks: Population) -> Population:
    """The same decisions with half the logits."""
    return replace(networks, params={n: p / 2 if n.startswith("fc") else p for n, p in networks.params.items()})


def stretched(networks: Population) -> Population:
    """Each layer in front of batch norm times a number of its own: the same functions, up to batch norm's ε."""
    params, buffers = dict(networks.params), dict(networks.buffers)
    factors = np.random.default_rng(0).uniform(0.4, 2.5, len(networks.masks))
    for name, factor in zip(networks.masks, factors, strict=True):
        if name.startswith("fc"):
            continue
        norm = name.replace("conv", "bn").replace("downsample.0", "downsample.1").removesuffix("weight")
        params[name] = params[name] * factor
        buffers[f"{norm}running_mean"] = buffers[f"{norm}running_mean"] * factor
        buffers[f"{norm}running_var"] = buffers[f"{norm}running_var"] * factor**2
    return replace(networks, params=params, buffers=buffers)


def test_the_temperature_is_that_of_a_plain_search(networks, images):
    found = calibration.temperature(networks, images)
    logits = networks.logits(images)
    for r in range(2):
        loss = lambda log, r=r: F.cross_entropy(logits[r] / np.exp(log), images.labels).item()  # noqa: E731
        assert found[r].item() == pytest.approx(
            np.exp(minimize_scalar(loss, bounds=(-6, 6), method="bounded").x), rel=1e-3
        )
    torch.testing.assert_close(calibration.temperature(halved(networks), images), found / 2)
    surest = calibration.calibrated(networks, images)
    torch.testing.assert_close(surest.logits(images), logits / found.view(-1, 1, 1))


def test_a_network_that_is_never_wrong_has_none(networks, images):
    right = images.labels.clone()
    right[:] = networks.logits(images)[0].argmax(1)
    sure = replace(images, labels=right)
    assert calibration.temperature(networks, sure).isfinite().tolist() == [False, True]
    assert calibration.calibrated(networks, sure).seeds == [1]
    with pytest.raises(UsageError, match="no network has a temperature"):
        calibration.calibrated(networks[[0]], sure)


def curvature(networks: Population, images: Split) -> np.ndarray:
    some = calibration.calibrated(networks, images)
    return hessian.top(some, images, scale=calibration.layer_lengths(some), tolerance=1e-6).values[:, 0].numpy()


def walk(networks: Population, images: Split) -> np.ndarray:
    some = calibration.calibrated(networks, images)
    sharpest = hessian.top(some, images, tolerance=1e-9).vectors[:, 0]
    ends = surface.along(some, sharpest, [-0.5, 0.5], images)
    return ends.groupby("seed").loss.mean().to_numpy()


def plane(networks: Population, images: Split) -> np.ndarray:
    u, v = (surface.filter_normalised(networks, number) for number in (0, 1))
    return surface.rise(surface.surface(networks, u, v, [-0.3, 0, 0.3], [-0.3, 0, 0.3], images), ["seed"], "error")


def pixels(networks: Population, images: Split) -> np.ndarray:
    return surface.rise(surface.input_surface(networks, images, [-0.3, 0, 0.3], [-0.3, 0, 0.3]), ["seed"], "error")


@pytest.mark.parametrize("measure", [curvature, walk, plane, pixels])
def test_half_the_logits_change_no_measure(networks, images, measure):
    moved = measure(halved(networks), images)
    if measure is plane:  # the classifier's own direction gets shorter with it: what it decides does not change
        assert np.allclose(moved, measure(networks, images), atol=0.02)
    else:
        np.testing.assert_allclose(moved, measure(networks, images), rtol=1e-4)


@pytest.mark.parametrize("measure", [curvature, plane, pixels])
def test_stretched_layers_change_no_measure(networks, images, measure):
    """A walk of a given length does change: its distances are the paper's, Euclidean."""
    np.testing.assert_allclose(measure(stretched(networks), images), measure(networks, images), rtol=0.02, atol=0.01)


def test_without_the_temperature_half_the_logits_look_smoother(networks, images):
    before, after = (hessian.top(some, images).values[:, 0] for some in (networks, halved(networks)))
    assert not torch.allclose(before, after, rtol=0.05)
