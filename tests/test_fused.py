"""The fused convolution without a GPU: Triton's interpreter runs its kernel line by line.

It must be asked for before Triton is imported, so the tests of `interpreted.py` run in a process of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).with_name("interpreted.py")


@pytest.mark.thorough
def test_the_kernel_is_what_pytorchs_layers_are():
    pytest.importorskip("triton")
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", str(TESTS)]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    told = subprocess.run(words, env=environment, cwd=TESTS.parent.parent, capture_output=True, encoding="utf-8")
    assert told.returncode == 0, told.stdout[-3000:] + told.stderr[-1000:]
    assert "13 passed" in told.stdout
