"""Lines between networks and the barriers on them, against loops and hand-made curves."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import double, toy_data
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from lth.analysis.landscape import barrier, interpolate, line, piecewise, reestimate
from lth.errors import UsageError
from lth.methods import prune
from lth.methods.init import glorot_uniform, kaiming_normal
from lth.models import Model
from lth.population import Population


@pytest.fixture(scope="module")
def ends() -> tuple[Population, Population]:
    """Three and three sparse LeNet5 (float64) under common masks."""
    networks = double(glorot_uniform(Model("lenet5"), seeds=range(6)))
    start = prune.apply(networks[:3], prune.magnitude_masks_per_layer(networks[:3], 0.8))
    return start.label(method="ticket"), prune.rewind(start, networks[3:]).label(method="pruned")


@pytest.mark.parametrize("alpha", [-0.2, 0.0, 0.3, 0.5, 1.0, 1.2])
def test_interpolation_parameter_by_parameter(ends, alpha):
    start, end = ends
    point = interpolate(start, end, alpha)
    for name, stack in point.params.items():
        expected = (1 - alpha) * start.params[name].numpy() + alpha * end.params[name].numpy()
        np.testing.assert_allclose(stack.numpy(), expected, rtol=0, atol=1e-15)
    assert point.frame.equals(start.frame)
    for name, mask in start.masks.items():
        assert torch.equal(point.masks[name], mask)
        assert torch.all(point.params[name][~mask] == 0)


def test_the_ends_of_a_line_are_the_networks_themselves(ends, toy):
    start, end = ends
    assert torch.equal(interpolate(start, end, 0.0).theta(), start.theta())
    assert torch.equal(interpolate(start, end, 1.0).theta(), end.theta())
    path = line(start, end, [0, 1], toy.test)
    for alpha, network in ((0, start), (1, end)):
        expected = network.evaluate(toy.test)
        measured = path[path.alpha == alpha]
        for column in ("loss", "error", "accuracy"):
            assert measured[column].tolist() == expected[column].tolist()


def test_a_line_with_extrapolation_against_a_loop(ends, toy):
    start, end = ends
    alphas = [-0.2, 0.4, 1.2]
    path = line(start, end, alphas, toy.test)
    assert path.groupby("alpha").seed.apply(list).to_dict() == {alpha: [0, 1, 2] for alpha in alphas}
    for row in path.itertuples():
        module, other = copy.deepcopy(start.module(row.seed)), end.module(row.seed)
        with torch.no_grad():
            for p, q in zip(module.parameters(), other.parameters(), strict=True):
                p.add_(row.alpha * (q - p))
            logits = module(toy.test.images.float().div(255).double())
        assert row.loss == pytest.approx(F.cross_entropy(logits, toy.test.labels).item(), rel=1e-9)
        assert row.error == pytest.approx((logits.argmax(1) != toy.test.labels).double().mean().item())
        assert row.method == "ticket"


def test_one_end_serves_all(ends):
    start, end = ends
    start = start.repeat(2)[[0, 3]].label(seed=[5, 6])
    assert torch.equal(interpolate(start, end[0], 0.25).theta(), interpolate(start, end[[0, 0]], 0.25).theta())


def test_lines_that_leave_the_sparse_networks_are_refused(ends):
    start, end = ends
    with pytest.raises(UsageError, match="neither's mask holds the other's"):
        interpolate(start, end[[1, 0, 2]], 0.5)
    with pytest.raises(UsageError, match="as many ends as starts"):
        interpolate(start, end[:2], 0.5)
    with pytest.raises(UsageError, match="one model"):
        interpolate(start, glorot_uniform(Model("lenet_300_100"), seeds=[0, 1, 2]), 0.5)


# --- barriers -----------------------------------------------------------------------------------------------

GRID = np.round(np.linspace(-0.2, 1.2, 29), 10)


def curves(**values: np.ndarray) -> pd.DataFrame:
    return pd.concat([pd.DataFrame({"line": n, "alpha": GRID, "error": v}) for n, v in values.items()])


def test_barriers_of_known_curves():
    path = curves(
        hill=4 * GRID * (1 - GRID),  # ends 0 and 0, top 1 at α = ½
        tilted=GRID + 4 * GRID * (1 - GRID) * 0.3,  # the same hill, 0.3 high, on the slope from 0 to 1
        bowl=(GRID - 0.5) ** 2,  # convex
        slope=2 - 3 * GRID,  # straight
        outside=np.where((GRID < 0) | (GRID > 1), 9.0, 0.0),  # steep walls beyond the end points
    )
    heights = barrier(path, by=["line"]).set_index("line").barrier
    assert heights.index.tolist() == ["hill", "tilted", "bowl", "slope", "outside"]
    assert heights.tolist() == pytest.approx([1, 0.3, 0, 0, 0], abs=1e-12)
    assert all(heights >= 0)


FIVE = st.lists(st.floats(-5, 5), min_size=5, max_size=5).map(np.array)


@given(FIVE, st.permutations(range(5)), st.floats(-3, 3), st.floats(-3, 3))
def test_a_barrier_does_not_see_a_plane_nor_the_order_of_rows(values, order, height, slope):
    alphas = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    expected = max(v - ((1 - a) * values[0] + a * values[-1]) for a, v in zip(alphas, values, strict=True))
    tilted = pd.DataFrame({"n": 1, "alpha": alphas, "loss": values + height + slope * alphas}).iloc[list(order)]
    measured = barrier(tilted, by=["n"], value="loss").barrier.item()
    assert measured == pytest.approx(expected, abs=1e-9) and measured >= 0


def test_lines_are_told_apart_by_all_the_columns_named():
    frames = []
    for height, (method, seed) in enumerate([("ticket", 0), ("ticket", 1), ("scratch", 0), (None, 1)]):
        frames.append(pd.DataFrame({"method": method, "seed": seed, "alpha": [0, 0.5, 1], "error": [0, height, 0]}))
    heights = barrier(pd.concat(frames, ignore_index=True), by=["method", "seed"])
    assert heights.seed.tolist() == [0, 1, 0, 1] and heights.barrier.tolist() == [0, 1, 2, 3]
    assert heights.method.tolist()[:3] == ["ticket", "ticket", "scratch"]
    with pytest.raises(UsageError, match="method do not tell the lines apart"):
        barrier(pd.concat(frames, ignore_index=True), by=["method"])


@pytest.mark.parametrize("kept", [GRID > 0, GRID < 1, (GRID != 0) & (GRID != 1)], ids=["no 0", "no 1", "neither"])
def test_a_line_without_its_end_points_has_no_barrier(kept):
    path = curves(a=GRID)
    with pytest.raises(UsageError, match="must hold 0 and 1"):
        barrier(path[kept], by=["line"])


def test_the_barrier_of_trained_networks_against_a_loop(ends, toy):
    alphas = [0, 0.25, 0.5, 0.75, 1]
    path = line(*ends, alphas, toy.test)
    heights = barrier(path, by=["method", "seed"], value="loss")
    for row in heights.itertuples():
        losses = path[path.seed == row.seed].sort_values("alpha").loss.tolist()
        rises = [v - ((1 - a) * losses[0] + a * losses[-1]) for a, v in zip(alphas, losses, strict=True)]
        assert row.barrier == pytest.approx(max(rises), abs=1e-12)


def test_the_ends_of_a_line_are_the_networks_themselves_batch_norm_included():
    model = Model("resnet20", (3, 8, 8), 3)
    start, end = (kaiming_normal(model, seeds=[seed]) for seed in (0, 1))
    moved = {n: b + 0.3 if b.is_floating_point() else b for n, b in end.buffers.items()}
    end = replace(end, buffers=moved)
    for alpha, network in ((0.0, start), (1.0, end)):
        point = interpolate(start, end, alpha)
        assert all(torch.allclose(buffer, network.buffers[n]) for n, buffer in point.buffers.items())
        torch.testing.assert_close(point.theta(), network.theta())


def test_a_path_is_its_lines_one_after_another(ends, toy):
    start, end = ends
    path = piecewise([start, end, start], [0, 0.5, 1], toy.test)
    assert path.place.unique().tolist() == [0, 0.5, 1, 1.5, 2]
    there, back = (path[path.leg == leg] for leg in (0, 1))
    assert there.loss.tolist() == line(start, end, [0, 0.5, 1], toy.test).loss.tolist()
    assert back[back.alpha == 0.5].loss.tolist() == pytest.approx(there[there.alpha == 0.5].loss.tolist())
    with pytest.raises(UsageError, match="two networks or more"):
        piecewise([start], [0, 1], toy.test)


def test_statistics_gathered_anew_are_those_of_all_images():
    """Of one batch: exactly its mean and variance before each batch norm, whatever the network had before."""
    data = toy_data(160, (3, 16, 16), 4)
    networks = double(kaiming_normal(Model("resnet20", (3, 16, 16), 4), seeds=[0, 1]))
    for buffer in networks.buffers.values():
        buffer += torch.rand_like(buffer)
    found = reestimate(networks, data.train)
    for r in range(2):
        images = data.train.pixels(torch.arange(len(data.train))).double()
        module = networks.module(r)
        before = module.conv1(images)
        torch.testing.assert_close(found.buffers["bn1.running_mean"][r], before.mean((0, 2, 3)))
        torch.testing.assert_close(found.buffers["bn1.running_var"][r], before.var((0, 2, 3)))
    assert not torch.equal(found.buffers["bn1.running_mean"], networks.buffers["bn1.running_mean"])
    mean = reestimate(networks, data.train, batch=25).buffers["bn1.running_mean"]  # the batches weighted by their sizes
    torch.testing.assert_close(mean, found.buffers["bn1.running_mean"])
    reestimate(networks, data.train, batch=len(data.train) - 1)  # leaves no batch of one image, which has no variance
    there = line(networks, networks, [0.0], data.test, statistics=data.train)
    assert there.loss.tolist() == found.evaluate(data.test).loss.tolist()
