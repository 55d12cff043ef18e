"""Ctrl-C and the work that is under way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from lth.parallel import workers

pytestmark = pytest.mark.threads


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a terminal, also where these tests run in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_never_stops_an_item_in_its_middle(count):
    begun, done = [], []

    def item(number: int) -> None:
        begun.append(number)
        if number == 1:
            os.kill(os.getpid(), signal.SIGINT)
        done.append(number)

    with pytest.raises(KeyboardInterrupt), workers(count) as spread:
        spread(item, range(4))
    assert done == begun and 1 in done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if count == 1:
        assert done == [0, 1]


def test_results_come_in_the_order_of_the_items():
    for count in (1, 3):
        with workers(count) as spread:
            assert spread(lambda number: number**2, range(6)) == [0, 1, 4, 9, 16, 25]
