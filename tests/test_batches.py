"""Data order, crops and flips: from each replica's own seed, and distributed as torchvision's transforms."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lth.training.batches import PADDING, Batches, crop_and_flip, random_parts, resized_crop


def test_every_batch_is_full_and_every_epoch_is_a_permutation():
    order, moves = Batches([3, 4], examples=50, batch=16).between(0, 25)
    assert order.shape == (25, 2, 16) and moves is None
    for epoch in order[:, 0].reshape(8, 50):
        assert sorted(epoch.tolist()) == list(range(50))
    stream = order[:, 0].flatten()
    assert not torch.equal(stream[:50], stream[50:100])
    assert not torch.equal(order[:, 0], order[:, 1])


@given(cuts=st.lists(st.integers(1, 39), unique=True).map(sorted), augment=st.booleans())
def test_the_stream_is_the_same_however_it_is_cut(cuts, augment):
    whole = Batches([5, 9], 30, 7, augment).between(0, 40)
    pieces = Batches([5, 9], 30, 7, augment)
    parts = [pieces.between(a, b) for a, b in zip([0, *cuts], [*cuts, 40], strict=True)]
    assert torch.equal(torch.cat([part[0] for part in parts]), whole[0])
    if augment:
        assert torch.equal(torch.cat([part[1] for part in parts]), whole[1])


def test_a_replica_sees_the_same_whichever_others_there_are():
    together = Batches([1, 2, 3], 40, 8, augment=True).between(3, 30)
    alone = Batches([2], 40, 8, augment=True).between(3, 30)
    assert torch.equal(together[0][:, [1]], alone[0]) and torch.equal(together[1][:, [1]], alone[1])
    assert not torch.equal(together[1][:, 0], together[1][:, 1])


def test_the_order_does_not_depend_on_augmentation():
    assert torch.equal(Batches([7], 40, 8, augment=True).between(0, 9)[0], Batches([7], 40, 8).between(0, 9)[0])


@pytest.fixture(scope="module")
def v2() -> ModuleType:
    """Torchvision's transforms, whose import takes seconds."""
    return importlib.import_module("torchvision.transforms.v2")


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 6, 9)])
def test_every_move_is_one_that_torchvision_can_make(shape, v2):
    """Pad, crop at (top, left), flip: exactly torchvision's functions, for every move there is."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(1, 256, shape, generator=generator, dtype=torch.uint8)
    range_ = range(2 * PADDING + 1)
    moves = torch.tensor([(t, left, f) for t in range_ for left in range_ for f in (0, 1)], dtype=torch.uint8)
    moved = crop_and_flip(image.expand(len(moves), *shape), moves)
    padded = v2.functional.pad(image, [PADDING] * 4)
    for (top, left, flip), found in zip(moves.tolist(), moved, strict=True):
        expected = v2.functional.crop(padded, top, left, *shape[1:])
        assert torch.equal(found, v2.functional.horizontal_flip(expected) if flip else expected)


def test_moves_are_distributed_as_torchvisions(v2):
    """Both draw top, left and flip uniformly and independently: chi-squared on all 162 moves."""
    _, moves = Batches(range(4), examples=5_000, batch=1_000, augment=True).between(0, 20)
    counts = np.zeros((9, 9, 2), int)
    np.add.at(counts, tuple(moves.reshape(-1, 3).numpy().T), 1)
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3
    marked = torch.arange(1, 9 * 9 + 1, dtype=torch.int64).reshape(1, 9, 9)  # position and flip are seen in the centre
    theirs = v2.Compose([v2.RandomCrop(9, padding=PADDING), v2.RandomHorizontalFlip()])
    seen = np.zeros((9, 9, 2), int)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(8_000):
            moved = theirs(marked)[0]
            centre = int(moved[4, 4]) - 1
            left, right = moved[4, 3] > 0, moved[4, 5] > 0  # one of them is black where the centre is at an edge
            flip = bool(moved[4, 3] > moved[4, 5]) if left and right else bool(left) == (centre % 9 == 0)
            seen[centre // 9, centre % 9, int(flip)] += 1
    table = np.stack([counts.ravel(), seen.ravel()])
    assert stats.chi2_contingency(table).pvalue > 1e-3


# --- a random part, scaled ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(256, 256), (64, 40), (20, 90)])
def test_parts_are_distributed_as_in_torchvision(size, v2):
    """Sides, places and flips of RandomResizedCrop and RandomHorizontalFlip, by Kolmogorov and Smirnov's test."""
    torch.manual_seed(0)  # which torchvision draws from
    transform, image = v2.RandomResizedCrop(8), torch.zeros(3, *size)
    told = [transform.make_params([image]) for _ in range(4_000)]
    names = ("top", "left", "height", "width")
    theirs = np.array([[one[name] for name in names] for one in told])
    ours = random_parts(np.random.default_rng(0), 4_000, *size)
    measures = {name: i for i, name in enumerate(names)}
    for name, i in measures.items():
        assert stats.ks_2samp(ours[:, i], theirs[:, i]).pvalue > 1e-3, name
    for combine in (lambda p: p[:, 2] * p[:, 3], lambda p: p[:, 2] / p[:, 3], lambda p: p[:, 0] + p[:, 2]):
        assert stats.ks_2samp(combine(ours.astype(int)), combine(theirs)).pvalue > 1e-3
    assert stats.binomtest(int(ours[:, 4].sum()), 4_000).pvalue > 1e-3
    assert (ours[:, :2] >= 0).all() and (ours[:, 0] + ours[:, 2] <= size[0]).all()
    assert (ours[:, 1] + ours[:, 3] <= size[1]).all()


@pytest.mark.parametrize("size", [(20, 20), (30, 17)])
def test_a_part_is_scaled_as_torchvision_scales_it(size, v2):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, *size), generator=generator, dtype=torch.uint8)
    parts = torch.from_numpy(random_parts(np.random.default_rng(2), 40, *size))
    found = resized_crop(images, parts, 12, 14)
    for image, (*part, flip), mine in zip(images, parts.tolist(), found, strict=True):
        theirs = v2.functional.resized_crop(image.float(), *part, [12, 14], antialias=True)
        assert torch.allclose(mine, v2.functional.horizontal_flip(theirs) if flip else theirs, atol=1e-3)


def test_a_stream_of_parts_is_each_replicas_own():
    both = Batches([1, 2], 40, 8, "resized", (9, 9)).between(3, 12)
    alone = Batches([2], 40, 8, "resized", (9, 9)).between(3, 12)
    assert torch.equal(both[1][:, [1]], alone[1]) and not torch.equal(both[1][:, 0], both[1][:, 1])
    assert both[1].shape == (9, 2, 8, 5) and torch.equal(both[0], Batches([1, 2], 40, 8).between(3, 12)[0])
