"""In which precision a GPU multiplies numbers of fp32. A CPU knows only one.

Training does as its recipe says, all that measures computes in full precision, whatever the program around has set.
Only torch's newer switches are used: where both kinds are, torch refuses to read the older ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch


@contextmanager
def products(precision: str, repeatable: bool = False) -> Iterator[None]:
    """Products are rounded to tf32 only where `precision` is "tf32"; all is as it was before, afterwards.

    repeatable: kernels that give the same digits again; otherwise the fastest, found by trying.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.deterministic, cudnn.benchmark
    matmul.fp32_precision = cudnn.conv.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    cudnn.deterministic, cudnn.benchmark = repeatable, not repeatable
    try:
        yield
    finally:
        matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.deterministic, cudnn.benchmark = before


def full_precision() -> AbstractContextManager[None]:
    """No tf32, which convolutions on a GPU use unless told otherwise: second derivatives need the digits. And the same
    digits again the next time, as what is trained from them is stored under a name that depends on each."""
    return products("fp32", repeatable=True)
