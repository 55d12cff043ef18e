"""In which precision a GPU multiplies: set for a while, by torch's newer switches only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lth.precision import full_precision, products

cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul


def switches() -> tuple[str, str, bool, bool]:
    return matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.deterministic, cudnn.benchmark


@pytest.fixture(params=["as torch has it", "older switches", "newer switches"])
def user(request: pytest.FixtureRequest) -> Iterator[str]:
    """What somebody has set before."""
    untouched = switches()
    if request.param == "older switches":
        matmul.allow_tf32 = cudnn.allow_tf32 = True
    elif request.param == "newer switches":
        matmul.fp32_precision = cudnn.conv.fp32_precision = "tf32"
    yield request.param
    if request.param == "older switches":
        matmul.allow_tf32 = False
    matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.deterministic, cudnn.benchmark = untouched


@pytest.mark.parametrize("precision, expected", [("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")])
def test_precision_is_set_meanwhile_only(precision, expected, user):
    before = switches()
    with products(precision):
        assert switches() == (expected, expected, False, True)
        with full_precision():
            assert switches() == ("ieee", "ieee", True, False)
        assert switches() == (expected, expected, False, True)
    assert switches() == before
    if user != "newer switches":  # which torch refuses to read by the older ones
        assert matmul.allow_tf32 is (user == "older switches") and cudnn.allow_tf32
