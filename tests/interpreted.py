"""The fused convolution beside PyTorch's layers, as Triton's interpreter runs it: see `test_fused.py`."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lth.book import doctor
from lth.models import fused


def tensors(R, B, C, O, side, k, dtype=torch.float32):  # noqa: E741
    generator = torch.Generator().manual_seed(R + 10 * C)
    x = torch.randn(B, R * C, side, side + 1, generator=generator).to(dtype)
    return x, torch.randn(R, O, C, k, k, generator=generator).to(dtype) / k


@pytest.mark.parametrize(
    ("R", "B", "C", "O", "side", "k", "stride", "padding"),
    [
        (1, 2, 3, 5, 6, 3, 1, 1),
        (3, 2, 3, 20, 5, 3, 1, 1),  # more maps than a tile has
        (2, 3, 16, 8, 7, 3, 2, 1),  # more terms than are added at a time
        (2, 2, 5, 4, 6, 1, 2, 0),
        (2, 1, 2, 3, 9, 5, 1, 0),
    ],
)
@pytest.mark.parametrize("normalised", [False, True])
def test_it_is_what_pytorchs_layers_do(R, B, C, O, side, k, stride, padding, normalised):  # noqa: E741
    x, weight = tensors(R, B, C, O, side, k)
    seen, norm = x, None
    if normalised:
        affine = torch.rand(2, R, C, generator=torch.Generator().manual_seed(1)) + 0.5
        mean, variance = (part.view(R, C) for part in (x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)))
        seen = F.batch_norm(x, None, None, *affine.flatten(1), training=True).relu()
        norm = fused.folded(mean, variance, *affine, 1e-5)
    y, mean, variance = fused.convolution(x, weight, norm, stride, padding)
    expected = F.conv2d(seen, weight.flatten(0, 1), None, stride, padding, 1, R)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mean.flatten(), expected.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(variance.flatten(), expected.var((0, 2, 3), unbiased=False), rtol=1e-4, atol=1e-4)


def test_without_affine_weights():
    scale, shift = fused.folded(torch.tensor([[1.0]]), torch.tensor([[4.0]]), None, None, 0.0)
    assert (scale.item(), shift.item()) == (0.5, -0.5)


def test_half_precision_is_summed_in_single():
    """The moments belong to the sums, not to what is left of them when they are written. bf16 is not interpreted."""
    x, weight = tensors(2, 2, 6, 4, 5, 3, torch.float16)
    y, mean, _ = fused.convolution(x, weight, padding=1)
    exact = F.conv2d(x.float(), weight.float().flatten(0, 1), None, 1, 1, 1, 2)
    assert y.dtype == torch.float16
    torch.testing.assert_close(y.float(), exact, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(mean.flatten(), exact.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)


def test_the_doctor_times_it_and_sees_what_is_wrong(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda layers: layers)
    found = doctor.tried(lambda: doctor.fused_convolution("cpu", 1, 1, 1))
    assert found["result"] == "well" and "times as fast as PyTorch's layers" in found["note"]
    right = fused.convolution
    monkeypatch.setattr(fused, "convolution", lambda *words, **kind: [1.02 * x for x in right(*words, **kind)])
    assert "off by 2" in doctor.tried(lambda: doctor.fused_convolution("cpu", 1, 1, 1))["note"]
