"""Directions, surfaces and lines around a network against single networks and closed forms."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import double
from torch.nn import functional as F

from lth import seeds as streams
from lth.analysis import surface
from lth.errors import UsageError
from lth.methods import init, prune, tweaks
from lth.models import Model
from lth.population import Population


@pytest.fixture(scope="module")
def networks() -> Population:
    dense = double(init.kaiming_normal(Model("lenet5"), seeds=[0, 1]))
    return prune.apply(dense, prune.magnitude_masks(dense, 0.7))


def test_every_filter_is_as_long_as_that_of_the_weights(networks):
    direction = surface.filter_normalised(networks)
    assert direction.shape == networks.theta().shape and not direction[~networks.theta_mask()].any()
    moved = networks.with_theta(direction)
    for name, param in networks.params.items():
        if name in networks.masks:
            for r in range(2):
                for ours, own in zip(moved.params[name][r], param[r], strict=True):
                    assert ours.norm().item() == pytest.approx(own.norm().item(), rel=1e-9)
        else:
            assert not moved.params[name].any()
    other = surface.filter_normalised(networks, number=1)
    assert F.cosine_similarity(direction, other).abs().max() < 0.1
    assert torch.equal(surface.filter_normalised(networks[[1]])[0], direction[1])


def test_extra_skips_move_too_and_change_nothing_in_the_other_filters():
    plain = init.kaiming_normal(Model("resnet8", (1, 8, 8)), seeds=[0])
    networks = tweaks.change(plain, skips="conv")
    moved = networks.with_theta(surface.filter_normalised(networks)).params
    without = plain.with_theta(surface.filter_normalised(plain)).params
    assert all(torch.equal(moved[name], param) for name, param in without.items())
    skips = [name for name in moved.keys() - without.keys() if name.endswith("0.weight")]
    assert len(skips) == 6
    for name in skips:
        lengths = networks.params[name][0].flatten(1).norm(dim=1)
        torch.testing.assert_close(moved[name][0].flatten(1).norm(dim=1), lengths)


def test_a_surface_equals_single_networks(networks, toy):
    u, v = surface.filter_normalised(networks), surface.filter_normalised(networks, 1)
    table = surface.surface(networks, u, v, [-0.5, 0, 1], [0, 0.25], toy.test)
    assert len(table) == 12
    for row in table.itertuples():
        theta = networks.theta()[[row.seed]] + row.x * u[[row.seed]] + row.y * v[[row.seed]]
        alone = networks[[row.seed]].with_theta(theta).evaluate(toy.test)
        assert row.loss == pytest.approx(alone.loss[0]) and row.error == alone.error[0]
    with pytest.raises(UsageError, match="a row of θ for each replica"):
        surface.surface(networks, u[:1], v, [0], [0], toy.test)


def test_along_a_direction_distances_are_euclidean(networks, toy):
    direction = 7 * surface.filter_normalised(networks)
    table = surface.along(networks, direction, [0, 2.0], toy.test)
    assert set(table.distance) == {0, 2} and "y" not in table
    assert table.loss[table.distance == 0].tolist() == pytest.approx(networks.evaluate(toy.test).loss.tolist())
    moved = networks.theta() + 2 * direction / direction.norm(dim=1, keepdim=True)
    found = networks.with_theta(moved).evaluate(toy.test).loss
    assert table.loss[table.distance == 2].tolist() == pytest.approx(found.tolist())


def test_the_loss_of_images_that_change(networks, toy):
    some = toy.test.take([3, 5])
    table = surface.input_surface(networks, some, [-0.1, 0, 0.1], [0, 0.05])
    still = table[(table.x == 0) & (table.y == 0)].reset_index(drop=True)
    found = networks.evaluate(some)
    assert still.loss.tolist() == pytest.approx(found.loss.tolist()) and still.error.tolist() == found.error.tolist()
    assert table.groupby("seed").loss.nunique().tolist() == [6, 6]
    scaled = replace(some, mean=torch.zeros(1), std=torch.full((1,), 0.5))  # a step of brightness is twice as long
    half = surface.input_surface(networks, scaled, [0.0, 0.05], [0.0])
    sees = networks.module(0)
    x = 2 * some.pixels(torch.arange(2)).double()
    u = torch.stack([signs(r, x) for r in range(2)])
    expected = F.cross_entropy(sees(x + 2 * 0.05 * u), some.labels).item()
    assert half[(half.seed == 0) & (half.x == 0.05)].loss.item() == pytest.approx(expected)


def signs(image: int, like: torch.Tensor) -> torch.Tensor:
    """The first pattern of one image."""
    generator = streams.torch_stream(image, streams.DIRECTION)
    return (torch.randint(0, 2, (2, *like.shape[1:]), generator=generator) * 2 - 1)[0].to(like)
