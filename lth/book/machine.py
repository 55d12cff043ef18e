"""The machine and its software, for whoever has to tell one report from another."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from importlib import metadata
from typing import Any

import torch

from lth.store.runs import device_name


def machine(device: str) -> dict[str, Any]:
    """What it is, as in the files of `make bench`, with the versions; `trouble`: what is wrong before any check."""
    driver = driver_version()
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": version("triton"),
        "CUDA": torch.version.cuda or "none",
        "driver": driver or "none",
        "compiler": compiler() or "none",
        "system": platform.platform(),
    }
    told = {"device": device_name(torch.device(device)), "kind": device, "cores": os.cpu_count()}
    told |= {"torch": torch.__version__, "versions": versions, "trouble": []}
    if device == "cuda":
        about = torch.cuda.get_device_properties(0)
        told |= {"memory_bytes": about.total_memory, "capability": f"{about.major}.{about.minor}"}
        if not compiler():
            told["trouble"].append("no C compiler (cc, gcc or clang), so nothing can be compiled: install gcc")
        if (about.major, about.minor) < (8, 0):
            told["trouble"].append(f"compute capability {told['capability']} has no bf16: 8.0 has, use fp32 here")
    elif driver and not torch.cuda.is_available():
        told["trouble"].append(
            f"there is an NVIDIA driver ({driver}), but torch finds no GPU: is it too old for CUDA "
            f"{torch.version.cuda}, or CUDA_VISIBLE_DEVICES empty?"
        )
    return told


def driver_version() -> str:
    """NVIDIA's driver, "" where there is none."""
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        said = subprocess.run(words, capture_output=True, encoding="utf-8", errors="replace", timeout=20, check=False)
        if said.returncode == 0 and said.stdout.strip():
            return said.stdout.split()[0]
    return ""


def compiler() -> str:
    """The C compiler that torch.compile would use, "" where there is none."""
    return next(filter(None, map(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang"))), "")


def version(name: str) -> str:
    """Of an installed package, or none."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return "none"
