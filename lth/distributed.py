"""Several processes that train the same networks, each with its share of every batch, as torchrun starts them.

    torchrun --nproc-per-node 8 -m lth run gradient_flow --preset imagenet

All hold the same networks and do the same with them. In a step each computes the gradient of its share of the batch,
and their mean is the gradient of the whole; masks, and batch norm's statistics, are those of the first process, which
alone writes to the store. In a process by itself nothing here does anything. Imports torch only where processes meet:
the command line asks first which one it is.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from lth.errors import LthError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

PATIENCE = timedelta(days=7)  # for one another: the first process measures while the others wait


def size() -> int:
    """How many processes there are."""
    met = _met()
    return met.get_world_size() if met else int(_told("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this one is, from 0."""
    met = _met()
    return met.get_rank() if met else int(_told("RANK", "0"))


def own_gpu() -> None:
    """Makes the GPU of this process the current one; UsageError where there are fewer than processes."""
    import torch

    local, gpus = int(_told("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= gpus:
        raise UsageError(f"{gpus} GPUs for more processes: torchrun --nproc-per-node {gpus}")
    torch.cuda.set_device(local)


def mean(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The mean of each tensor over all processes."""
    if size() == 1:
        return list(tensors)
    from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

    flat = _flatten_dense_tensors(tensors)
    _meet().all_reduce(flat)
    return list(_unflatten_dense_tensors(flat.div_(size()), tensors))


def as_first_(tensors: Sequence[Tensor]) -> None:
    """Gives all processes the first one's values, in place."""
    if size() == 1:
        return
    for tensor in tensors:
        values = tensor.byte() if tensor.dtype.itemsize == 1 else tensor.contiguous()  # truth values do not travel
        _meet().broadcast(values, 0)
        tensor.copy_(values)


def flags_of_first(flags: Sequence[bool]) -> list[bool]:
    """What the first process says; as many truth values in each of them."""
    import torch

    told = torch.tensor(list(flags), dtype=torch.bool)
    as_first_([told])
    return told.tolist()


def any_of(flag: bool) -> bool:
    """Whether it is true in any process."""
    if size() == 1:
        return flag
    import torch

    return mean([torch.tensor([float(flag)])])[0].item() > 0


def wait() -> None:
    """Until all processes have come here."""
    any_of(False)


def agree(plan: str) -> None:
    """LthError, in all processes, where this is not the same in each."""
    import torch

    own = torch.tensor(list(hashlib.sha256(plan.encode()).digest()), dtype=torch.uint8)
    told = own.clone()
    as_first_([told])
    if any_of(not torch.equal(own, told)):
        raise LthError("the processes were to train different networks: give all of them the same data and code")


@contextmanager
def stopping_together() -> Iterator[Callable[..., None]]:
    """Yields `call`, which does call(function, *arguments) between two steps. The function may raise KeyboardInterrupt,
    and a Ctrl-C may have come before: where one process is to stop, all of them are, in their calls of `call`."""
    if size() == 1:
        yield lambda function, *arguments: function(*arguments)
        return
    came: list[int] = []

    def call(function: Callable[..., None], *arguments: Any) -> None:
        try:
            function(*arguments)
        except KeyboardInterrupt:
            came.append(signal.SIGINT)
        if any_of(bool(came)):
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield call
    finally:
        signal.signal(signal.SIGINT, before)


def _told(name: str, alone: str) -> str:
    """What torchrun says in the environment."""
    return os.environ[name] if "TORCHELASTIC_RUN_ID" in os.environ else alone


def _met() -> Any:
    """`torch.distributed`, where the processes have met already."""
    found = getattr(sys.modules.get("torch"), "distributed", None)
    return found if found is not None and found.is_available() and found.is_initialized() else None


def _meet() -> Any:
    """`torch.distributed`; the first time this process meets the others."""
    import torch
    import torch.distributed as dist

    if not _met():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    return dist
