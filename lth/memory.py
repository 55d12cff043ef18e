"""When a GPU's memory is short: to know it, to free what is free, to go on with smaller pieces.

Training halves its groups (`lth.training.train`). What measures works in pieces, of replicas and of images, whose sizes
are asked for by `room`: it is run again with a quarter of the room.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from lth.errors import LthError

SIGNS = ("out of memory", "alloc_failed")  # torch, CUDA and Triton say the first, cuBLAS, cuDNN and cuSOLVER the second
LEAST = 2**-31  # of the usual room: with less no piece, of at most so many numbers, would be smaller
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

share: ContextVar[float] = ContextVar("share", default=1.0)


def is_short(error: BaseException) -> bool:
    """Whether an error says that a GPU's memory is full, whichever library met it, also while compiling."""
    told = isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)
    return told or isinstance(error, torch.OutOfMemoryError)


def free() -> None:
    """Gives the GPU's memory back that nobody holds any more."""
    gc.collect()
    with suppress(RuntimeError):  # torch refuses after a recording that failed (`lth.training.step.Step.record`)
        torch.cuda.empty_cache()


def room(size: int) -> int:
    """How large a piece may be that is usually of this `size`: at least 1."""
    return max(1, int(size * share.get()))


def in_less_room(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """`function`, which begins anew with a quarter of the `room` for its pieces as often as a GPU's memory is short.

    Raises LthError where even the smallest pieces do not fit.
    """

    @wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        part = share.get()
        while True:
            before = share.set(part)
            try:
                return function(*args, **kwargs)
            except RuntimeError as error:
                if not is_short(error):
                    raise
                if part < LEAST:
                    raise LthError(f"the GPU's memory is too small or too full for {function.__qualname__}") from error
            finally:
                share.reset(before)
            free()  # not above, where the error still holds what was made
            part /= 4

    return run
