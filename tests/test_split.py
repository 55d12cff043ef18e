"""Parts of a data set: spread evenly, cut into pieces."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from lth.data import Split


@given(st.integers(1, 400), st.integers(1, 500), st.booleans())
def test_images_spread_evenly(total, count, first):
    whole = Split(torch.arange(total, dtype=torch.int64)[:, None, None, None].to(torch.uint8), torch.arange(total))
    places = whole.evenly(count, first).labels
    assert len(places) == min(count, total) == len(set(places.tolist())) and places.tolist() == sorted(places.tolist())
    gaps = torch.diff(places, prepend=torch.tensor([-1]), append=torch.tensor([total]))
    assert gaps.max() <= total / len(places) + 1
    if first:
        assert places[0] == 0
        if 2 * count <= total:
            assert not set(places.tolist()) & set(whole.evenly(count).labels.tolist())


@given(st.integers(2, 400), st.integers(2, 500))
def test_pieces_are_whole_and_of_one_size(total, most):
    pieces = Split(torch.zeros(total, 1, 1, 1, dtype=torch.uint8), torch.zeros(total)).pieces(most)
    sizes = [len(piece) for piece in pieces]
    assert torch.cat(pieces).tolist() == list(range(total)) and len(sizes) == -(-total // most)
    assert max(sizes) <= most and max(sizes) - min(sizes) <= 1


def test_images_at_random_and_of_each_class():
    labels = torch.arange(60) % 3
    whole = Split(torch.arange(60, dtype=torch.uint8)[:, None, None, None], labels)
    some = whole.at_random(20, seed=1).images.flatten().tolist()
    assert len(set(some)) == 20 and some == whole.at_random(20, seed=1).images.flatten().tolist() != sorted(some)
    assert len(whole.at_random(100, seed=1)) == 60 and some != whole.at_random(20, seed=2).images.flatten().tolist()
    assert whole.of_each_class(2).images.flatten().tolist() == [0, 3, 1, 4, 2, 5]
