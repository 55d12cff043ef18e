"""The weights that are left, counted and measured weight by weight."""

from __future__ import annotations

import numpy as np
import pytest

from lth.analysis import weights
from lth.methods import init, prune
from lth.models import Model


@pytest.fixture
def pruned():
    """Two networks, pruned to a quarter."""
    dense = init.kaiming_normal(Model("lenet_300_100", (1, 6, 6), 4, widths=(12, 8)), [0, 1])
    dense = dense.label(network=range(2), level=3)
    return prune.apply(dense, prune.magnitude_masks(dense, 0.75))


def test_what_is_left(pruned):
    total = 36 * 12 + 12 * 8 + 8 * 4
    assert weights.left(pruned) == pytest.approx([25, 25])
    for r in range(2):
        every = np.concatenate([pruned.params[name][r].numpy().ravel() for name in pruned.masks])
        found = weights.kept(pruned, r)
        assert found.tolist() == every[every != 0].tolist() and len(found) == total / 4
        assert weights.sizes(pruned, r) == pytest.approx(np.abs(found) / np.abs(found).mean())


def test_weights_near_zero(pruned):
    """Magnitudes 1, 2, …, n have the median (n + 1)/2; below its half lie those under (n + 1)/4."""
    params, count = dict(pruned.params), len(weights.kept(pruned, 0))
    numbers = iter(range(1, 2 * count + 1))
    for r in range(2):
        for name, mask in pruned.masks.items():
            params[name][r][mask[r]] = params[name].new_tensor([next(numbers) for _ in range(int(mask[r].sum()))])
    first, second = weights.near_zero(pruned)
    assert first == pytest.approx(100 * sum(k < (count + 1) / 4 for k in range(1, count + 1)) / count)
    assert second == 0  # all are larger than half the median


def test_distributions_are_cumulative_and_count_what_is_smaller_than_all_of_the_first(pruned):
    halved = pruned.with_theta(pruned.theta() / 2)
    table = weights.distribution({"same": pruned, "halved": halved}, pruned, [0.0, 1.0, 1e9])
    one = table[(table.after == "halved") & (table.network == 1)]
    own = np.abs(weights.kept(halved, 1))
    assert one.share.tolist() == pytest.approx([0, 100 * (own < own.mean()).mean(), 100])
    assert set(one.level) == {3} and one["size"].tolist() == [0, 1, 1e9]
    assert table.small.max() == 0  # sizes are in multiples of the mean, which halving does not touch
    dense = init.kaiming_normal(pruned.model, [0, 1]).label(network=range(2), level=3)
    least = weights.sizes(pruned, 0).min()
    found = weights.distribution({"dense": dense}, pruned, [1.0])
    assert found.small[0] == pytest.approx(100 * (weights.sizes(dense, 0) < least).mean()) and found.small[0] > 0


@pytest.mark.parametrize("name", ["lenet_300_100", "resnet8"])
def test_weights_left_on_each_pixel(name):
    dense = init.kaiming_normal(Model(name, (2, 6, 6), 4), [0, 1])
    masks = prune.magnitude_masks(dense, 0.5)
    first = next(iter(masks.values())).numpy()
    if name == "lenet_300_100":  # all pixels of one colour, then those of the other
        first = first.reshape(2, -1, 2, 6, 6)
    table = weights.per_pixel(prune.apply(dense, masks), (6, 6))
    assert len(table) == first[0, 0, 0].size and table.row.max() + 1 == first.shape[-2]
    expected = first[:, :, :, 1, 2].sum(1).mean()
    assert table.set_index(["row", "column"]).weights[1, 2] == pytest.approx(expected)
