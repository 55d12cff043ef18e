"""Random streams: different names, different numbers; the same name, the same numbers, on any machine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lth import seeds

ORDER = [5, 4, 6, 2, 1, 7, 0, 3]
NORMAL = [-0.574515, -0.776956, -1.573339]
NAMES = st.lists(st.integers(-(2**70), 2**70), max_size=4).map(tuple)


def draw(name: tuple[int, ...]) -> tuple:
    numbers = torch.rand(4, generator=seeds.torch_stream(*name), dtype=torch.float64)
    return (*numbers.tolist(), *seeds.numpy_stream(*name).random(4))


@given(NAMES, NAMES)
def test_streams_are_equal_exactly_where_their_names_are(one, other):
    assert (draw(one) == draw(other)) == (one == other)


@pytest.mark.parametrize("name", [(3, seeds.MASK, 1), (0,), (2**32,), (-1,)])
def test_a_zero_behind_and_a_carry_are_other_names(name):
    assert draw(name) != draw((*name, 0))
    assert draw((2**32, 1)) != draw((0, 1, 1))


def test_numpys_whole_numbers_are_the_same_names():
    assert draw((np.int64(5), np.int32(1))) == draw((5, 1))


def test_the_numbers_of_a_stream_stay():
    """A change of these is a change of every run: see ENGINE in `lth.training.identity`."""
    assert seeds.numpy_stream(7, seeds.ORDER, 0).permutation(8).tolist() == ORDER
    assert torch.randn(3, generator=seeds.torch_stream(7, seeds.INIT)).tolist() == pytest.approx(NORMAL, abs=1e-6)

