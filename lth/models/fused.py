"""One kernel from a convolution to the next, for R replicas on a GPU: a candidate, which no network uses yet.

Between two convolutions lie batch norm and ReLU. PyTorch's step writes what the first convolution puts out, reads it
for its mean and variance, reads it again to write it normalised, and the second convolution reads that: ten bytes for
each activation in bf16. Here a convolution adds up the mean and the variance of what it writes, and the next one
normalises what it reads: four bytes. A window of 3×3 is never written: the kernel gathers it while it multiplies
(an implicit product of matrices, one for each replica).

Only the forward pass is here. It is proved on a CPU by Triton's interpreter (`tests/test_fused.py`); how fast it is,
`lth doctor` tells on a GPU, beside PyTorch's own kernels. It comes into the step where it is found faster.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PIXELS, MAPS, INNER = 64, 16, 32  # of a tile of the output, and terms of its sums that are added at a time


@triton.jit
def _tile(
    x, weight, scale, shift, y, sums, squares, B, R, H, W, O, OH, OW, stride, padding,  # noqa: E741
    C: tl.constexpr, K: tl.constexpr, NORM: tl.constexpr, PIXELS: tl.constexpr, MAPS: tl.constexpr,
    INNER: tl.constexpr,
):  # fmt: skip
    """A tile of one replica's output: `PIXELS` pixels of the batch × `MAPS` maps, and its part of their moments."""
    block, r = tl.program_id(0), tl.program_id(2)
    pixel = block * PIXELS + tl.arange(0, PIXELS)
    o = tl.program_id(1) * MAPS + tl.arange(0, MAPS)
    b, i, j = pixel // (OH * OW), pixel // OW % OH, pixel % OW
    real, known = pixel < B * OH * OW, o < O
    total = tl.zeros((PIXELS, MAPS), tl.float32)
    for start in range(0, C * K * K, INNER):
        term = start + tl.arange(0, INNER)  # a channel, and a place in the window
        c, here = term // (K * K), term < C * K * K
        row = i[:, None] * stride + (term // K % K)[None, :] - padding
        column = j[:, None] * stride + (term % K)[None, :] - padding
        inside = real[:, None] & here[None, :] & (row >= 0) & (row < H) & (column >= 0) & (column < W)
        seen = tl.load(x + (((b * R + r) * C)[:, None] + c[None, :]) * H * W + row * W + column, inside, 0.0)
        if NORM:  # the padding stays zero: it is added after normalising
            factor = tl.load(scale + r * C + c, here, 0.0)[None, :]
            moved = seen.to(tl.float32) * factor + tl.load(shift + r * C + c, here, 0.0)[None, :]
            seen = tl.where(inside, tl.maximum(moved, 0.0), 0.0)
        kernel = tl.load(
            weight + (r * O + o)[None, :] * (C * K * K) + term[:, None], here[:, None] & known[None, :], 0.0
        )
        total += tl.dot(seen.to(kernel.dtype), kernel, input_precision="ieee")
    place = (((b * R + r) * O)[:, None] + o[None, :]) * (OH * OW) + (pixel % (OH * OW))[:, None]
    tl.store(y + place, total.to(y.dtype.element_ty), real[:, None] & known[None, :])
    total = tl.where(real[:, None], total, 0.0)
    part = (block * R + r) * O + o
    tl.store(sums + part, tl.sum(total, 0), known)
    tl.store(squares + part, tl.sum(total * total, 0), known)


def convolution(
    x: Tensor, weight: Tensor, norm: tuple[Tensor, Tensor] | None = None, stride: int = 1, padding: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Convolves R replicas, (B, R·C, H, W) with (R, O, C, k, k): (B, R·O, H', W'), its mean and its variance, (R, O).

    norm: scale and shift of each channel, (R, C), float32: then relu(scale·x + shift) is what is convolved.
    Sums are taken in float32 in an order that does not change from call to call.
    """
    x, weight = x.contiguous(), weight.contiguous()
    (B, _, H, W), (R, O, C, K, _) = x.shape, weight.shape  # noqa: E741
    OH, OW = ((side + 2 * padding - K) // stride + 1 for side in (H, W))
    y = x.new_empty(B, R * O, OH, OW)
    blocks = triton.cdiv(B * OH * OW, PIXELS)
    sums, squares = x.new_empty(2, blocks, R, O, dtype=torch.float32)
    scale, shift = (x, x) if norm is None else (part.contiguous() for part in norm)
    sizes = B, R, H, W, O, OH, OW, stride, padding
    _tile[blocks, triton.cdiv(O, MAPS), R](
        x, weight, scale, shift, y, sums, squares, *sizes, C, K, norm is not None, PIXELS, MAPS, INNER
    )
    mean, square = (part.double().sum(0) / (B * OH * OW) for part in (sums, squares))
    return y, mean.float(), (square - mean**2).clamp_min(0).float()


def folded(
    mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Batch norm as scale and shift of each channel, (R, C)."""
    scale = (variance + eps).rsqrt() if weight is None else weight * (variance + eps).rsqrt()
    return scale, -mean * scale if bias is None else bias - mean * scale
