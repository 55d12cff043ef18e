"""Whether an old solution was found again: against numpy, weight by weight, and under what must not matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import double

from lth.analysis import returns
from lth.data import Data, Split
from lth.errors import UsageError
from lth.methods import init, prune, repulsion
from lth.models import Model
from lth.population import Population

MODEL = Model("lenet_300_100", (1, 6, 6), 4, widths=(12, 8))
CONV = Model("lenet5", (1, 28, 28), 10)


@pytest.fixture
def split() -> Split:
    """60 images: the first six pixels are always dark, the next six lit in one image, the others half of the time."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(1, 256, (60, 1, 6, 6), generator=generator, dtype=torch.uint8)
    images *= torch.rand(60, 1, 6, 6, generator=generator) < 0.5
    images[:, 0, :2] = 0
    images[7, 0, 1] = 200
    return Split(images, torch.randint(4, (60,), generator=generator))


@pytest.fixture
def pair() -> tuple[Population, Population]:
    """Two rounds, the masks nested, float64."""
    first = double(init.kaiming_normal(MODEL, seeds=[0, 1]))
    first = first.with_theta(first.theta() + 0.02)
    other = prune.apply(double(init.kaiming_normal(MODEL, seeds=[5, 6])), prune.magnitude_masks(first, 0.5))
    return first, other


def test_pixels_by_how_often_they_are_lit(split, pair):
    often = returns.lit(split)
    expected = (split.images.numpy() != 0).mean(0).ravel()
    assert often.numpy() == pytest.approx(expected)
    found = returns.groups(pair[0], split, edges=(0.1, 0.45))
    assert list(found) == [
        "fc1, never lit", "fc1, lit in up to 10 %", "fc1, lit in up to 45 %", "fc1, in more than 45 %", "fc2", "fc3",
    ]  # fmt: skip
    bands = torch.stack([group["fc1.weight"][0, 0] for title, group in found.items() if title.startswith("fc1")])
    assert torch.equal(bands.sum(0), torch.ones(36).long())  # each pixel in one band
    assert bands[:2].nonzero()[:, 1].tolist() == list(range(12))


def test_a_convolution_is_one_group(toy):
    found = returns.groups(init.kaiming_normal(CONV, seeds=[0]), toy.train)
    assert list(found) == ["conv1", "conv2", "fc1", "fc2", "fc3"]


def test_cosines_weight_by_weight(split, pair):
    a, b = pair
    found = returns.cosines(a, b, returns.groups(a, split))
    assert found.groupby("seed").share.sum().to_numpy() == pytest.approx([1, 1])
    row = found[(found.seed == 1) & (found.group == "fc1, never lit")].iloc[0]
    kept = b.masks["fc1.weight"][1].numpy()[:, :6]
    x, y = (p.params["fc1.weight"][1].numpy()[:, :6][kept] for p in (a, b))
    assert row.shared == kept.sum()
    assert row.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    with pytest.raises(UsageError, match="replica by replica"):
        returns.cosines(a, b[[0]], returns.groups(a, split))


def test_what_pulls_at_dark_pixels_is_the_penalty_alone(split, pair):
    a, b = pair
    penalty = repulsion.of(b, [a], 2.0)
    found = returns.pulls(b, penalty, split, returns.groups(b, split)).set_index(["seed", "group"])
    for r, seed in enumerate(b.seeds):
        dark, often = found.loc[seed, "fc1, never lit"], found.loc[seed, "fc1, in more than 10 %"]
        assert dark.cross_entropy == 0 and dark.reached == 0 < dark.left and dark.penalty > 0
        assert often.cross_entropy > 0 and 0 < often.reached <= often.left
        params = {n: p.clone().requires_grad_() for n, p in b.params.items()}
        grad = torch.autograd.grad(penalty(params, b.masks)[r], params["fc1.weight"])[0][r, :, :6]
        kept = b.masks["fc1.weight"][r, :, :6]
        assert dark.penalty == pytest.approx(float(grad[kept].square().mean().sqrt()))


def test_correlations_against_numpy_and_with_themselves(split, pair):
    a, b = pair
    found = returns.correlations(a, b, split, batch=25).set_index(["seed", "layer"]).correlation
    x, y = (
        (split.pixels(torch.arange(60)).flatten(1).double() @ p.params["fc1.weight"][1].T + p.params["fc1.bias"][1]).T
        for p in pair
    )
    expected = [np.corrcoef(one, other)[0, 1] for one, other in zip(x, y, strict=True) if other.std() > 0]
    assert found[1, "fc1"] == pytest.approx(np.mean(expected))
    assert returns.correlations(a, a, split).correlation.to_numpy() == pytest.approx(np.ones(6))


def scaled(population: Population, layer: str, factor: float) -> Population:
    params = population.params
    changed = {n: p * factor if n.startswith(layer) else p for n, p in params.items()}
    return replace(population, params=changed)


def test_what_no_signal_sees_changes_no_correlation(split, pair):
    """Nor do halved logits, a layer that is rescaled, or weights on dark pixels, which do turn the angle."""
    a, b = pair
    expected = returns.correlations(a, b, split).correlation.to_numpy()
    dark = {n: p.clone() for n, p in b.params.items()}
    dark["fc1.weight"][:, :, :6] = 9.0
    back = scaled(scaled(b, "fc1", 3.0), "fc2.weight", 1 / 3)
    for other in (scaled(b, "fc3", 0.5), back, replace(b, params=dark)):
        assert returns.correlations(a, other, split).correlation.to_numpy() == pytest.approx(expected)


def test_channels_of_a_convolution(toy: Data):
    one = init.kaiming_normal(CONV, seeds=[0])
    assert returns.correlations(one, one, toy.test).correlation.to_numpy() == pytest.approx(np.ones(5))
    strange = returns.correlations(one, init.kaiming_normal(CONV, seeds=[1]), toy.test)
    assert strange.correlation.abs().max() < 0.9
