"""Use the cores of a CPU: one replica per core, each on a single thread.

Small networks gain little from two cores working on one batch, and almost twice from two cores working on
two replicas. A replica that runs on one thread also gives the same bits on any number of cores, and whichever
others are trained beside it; the price is that a single replica leaves the other cores idle. Only large networks are
trained on all cores, one after another (`lth.training.train.threads_each`).
"""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Cores to use: torch's own count, which `OMP_NUM_THREADS` and `torch.set_num_threads` set."""
    return torch.get_num_threads()


def keep_freed_memory() -> None:
    """Lets this process keep the memory that it frees, for the next step to use.

    Where the C library gives it back and asks for it again, every step of a large network spends a tenth of its time
    in page faults. Without effect where that library is not glibc.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(M_MMAP_THRESHOLD, 2**30)


@contextmanager
def workers(
    count: int, threads: int = 1
) -> Iterator[Callable[[Callable[[Item], Result], Iterable[Item]], list[Result]]]:
    """Yields `map(function, items) -> list` that runs up to `count` items side by side, each on `threads` cores.

    Ctrl-C (KeyboardInterrupt) never stops an item in its middle.
    """
    if count == 1:  # here and now: on all cores, a thread of its own would be slower by a tenth
        yield lambda function, items: [_whole(function, item) for item in items]
        return
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        yield lambda function, items: list(pool.map(function, items))


def _whole(function: Callable[[Item], Result], item: Item) -> Result:
    """`function(item)`; a Ctrl-C that comes meanwhile is raised afterwards."""
    if threading.current_thread() is not threading.main_thread():
        return function(item)
    came: list[tuple] = []
    handler = signal.signal(signal.SIGINT, lambda *signal_and_frame: came.append(signal_and_frame))
    try:
        return function(item)
    finally:
        signal.signal(signal.SIGINT, handler)
        if came and callable(handler):
            handler(*came[0])


def map_replicas(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`[function(item) for item in items]`, with the items spread over the cores."""
    if len(items) < 2 or cores() < 2:
        return [function(item) for item in items]
    with workers(cores()) as spread:
        return spread(function, items)
