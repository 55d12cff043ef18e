"""Planes through three networks against Gram-Schmidt written out, single networks and a quadratic bowl."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import double
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from lth.analysis import plane
from lth.errors import UsageError
from lth.methods import init, prune
from lth.methods.init import kaiming_normal
from lth.models import Model
from lth.population import Population


@pytest.fixture(scope="module")
def networks() -> tuple[Population, Population, Population]:
    """Two solutions w, their projections m ⊙ w, and other networks under m: LeNet 300-100 in float64."""
    solution = double(init.kaiming_normal(Model("lenet_300_100"), seeds=[0, 1]))
    solution = prune.apply(solution, prune.magnitude_masks(solution, 0.3))
    solution.params["fc1.bias"] += 1
    projection = prune.apply(solution, prune.magnitude_masks(solution, 0.5))
    other = double(init.kaiming_normal(Model("lenet_300_100"), seeds=[7, 8]))
    return solution, projection, prune.rewind(projection, other)


def weights(population: Population, r: int) -> np.ndarray:
    return np.concatenate([population.params[n][r].numpy().ravel() for n in population.masks])


def test_corners_are_those_of_gram_and_schmidt(networks):
    found = plane.through(*networks)
    for r in range(2):
        origin, first, second = (weights(network, r) for network in networks)
        u = (first - origin) / np.linalg.norm(first - origin)
        rest = (second - origin) - u * (u @ (second - origin))
        v = rest / np.linalg.norm(rest)
        expected = [(w @ u - origin @ u, w @ v - origin @ v) for w in (origin, first, second)]
        np.testing.assert_allclose(found.corners[r].numpy(), expected, atol=1e-9)
        points = np.array([[0.7, -3.0], [5.0, 20.0]])
        for i, (x, y) in enumerate(points):
            np.testing.assert_allclose(weights(found.at(r, points), i), origin + x * u + y * v, atol=1e-12)


def test_the_corners_are_the_networks_themselves(networks, toy):
    found = plane.through(*networks)
    for r in range(2):
        at = found.at(r, found.corners[r].numpy())
        for i, network in enumerate(networks):
            np.testing.assert_allclose(at.theta()[i], network.theta()[r], atol=1e-12)
            stored = network.evaluate(toy.test)
            assert at.evaluate(toy.test).error[i] == stored.error[r]
        assert all(torch.equal(m[0], networks[0].masks[n][r]) for n, m in at.masks.items())


def test_outside_the_triangle_only_prunable_weights_move_on():
    """Batch norm and biases stay at the nearest point of the triangle: here the middle of an edge, or a corner."""
    model = Model("resnet20", (3, 32, 32))
    ends = [kaiming_normal(model, seeds=[seed]) for seed in range(3)]
    for i, network in enumerate(ends):
        for tensors in (network.buffers, {n: p for n, p in network.params.items() if n not in network.masks}):
            for tensor in tensors.values():
                tensor += i + 1
    found = plane.through(*ends)
    corners = found.corners[0].numpy()
    middle, centre = corners[:2].mean(0), corners.mean(0)
    beyond = np.array([corners[2] + 0.8 * (corners[2] - centre), middle - [0, 30.0], centre])
    at = found.at(0, beyond)
    for name in ("layer1.0.bn1.weight", "layer1.0.bn1.running_mean"):
        kind = "params" if name in at.params else "buffers"
        one, two, three = (getattr(network, kind)[name][0] for network in ends)
        got = getattr(at, kind)[name]
        torch.testing.assert_close(got[0], three)
        torch.testing.assert_close(got[1], (one + two) / 2)
        torch.testing.assert_close(got[2], (one + two + three) / 3)


@given(st.lists(st.floats(-3, 3), min_size=8, max_size=8))
def test_the_nearest_point_of_a_triangle(numbers):
    """Against a general minimiser over the mixtures of the corners."""
    corners, point = np.reshape(numbers[:6], (3, 2)), np.array(numbers[6:])
    (a, b), (c, d) = corners[1:] - corners[0]
    if abs(a * d - b * c) < 0.1:  # too flat
        return
    found = plane.nearest(corners, point[None])[0]
    simplex = {"type": "eq", "fun": lambda shares: shares.sum() - 1}
    best = minimize(
        lambda shares: ((shares @ corners - point) ** 2).sum(),
        np.full(3, 1 / 3),
        bounds=[(0, 1)] * 3,
        constraints=[simplex],
        options={"ftol": 1e-12},
    )
    assert np.linalg.norm(found - point) <= np.sqrt(best.fun) + 1e-6
    inside = np.linalg.solve((corners[1:] - corners[0]).T, found - corners[0])
    assert (inside >= -1e-9).all() and inside.sum() <= 1 + 1e-9


def test_a_slice_equals_a_loop_over_single_networks(networks, toy):
    solution, projection, other = networks
    found = plane.through(solution, projection, other)
    table = found.evaluate(toy.test, points=7, margin=0.2)
    assert len(table) == 2 * 49 and table.replica.value_counts().tolist() == [49, 49]
    for row in table.sample(6, random_state=0).itertuples():
        alone = found.at(row.replica, np.array([[row.x, row.y]])).module(0).eval()
        logits = alone(toy.test.pixels(torch.arange(len(toy.test))).double())
        assert row.error == pytest.approx((logits.argmax(1) != toy.test.labels).double().mean().item())
        assert row.loss == pytest.approx(torch.nn.functional.cross_entropy(logits, toy.test.labels).item())


def test_the_grid_holds_the_corners_and_its_margin(networks):
    found = plane.through(*networks)
    corners = found.corners[0].numpy()
    sides = np.ptp(corners, axis=0)
    for square, expected in ((False, sides), (True, np.full(2, sides.max()))):
        grid = found.grid(0, 5, 0.5, square)
        assert grid.shape == (25, 2)
        np.testing.assert_allclose(np.ptp(grid, axis=0), 2 * expected)
        np.testing.assert_allclose(grid.mean(0), (corners.min(0) + corners.max(0)) / 2)


def test_what_spans_no_plane_is_refused(networks):
    solution, projection, other = networks
    halfway = solution.with_theta((solution.theta() + projection.theta()) / 2)
    for wrong in ((solution, projection, halfway), (solution, solution, other), (solution, projection, projection)):
        with pytest.raises(UsageError, match="on one line"):
            plane.through(*wrong)
    with pytest.raises(UsageError, match="must hold those of the other two"):
        plane.through(projection, solution, other)
    with pytest.raises(UsageError, match="as many of each"):
        plane.through(solution, projection[[0]], other)
    with pytest.raises(UsageError, match="one model"):
        plane.through(solution, projection, init.kaiming_normal(Model("lenet5"), seeds=[0, 1]))
