"""Random streams: every draw comes from a generator made here, named by its seed and its purpose.

A stream is named by whole numbers of any size and sign, for example (seed, ORDER, epoch). Streams with different
names are independent, (seed, MASK) and (seed, MASK, 0) too, and a stream does not depend on what was drawn before it:
replica i draws the same numbers whichever other replicas are trained beside it, and a resumed run draws what the
uninterrupted one draws.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

INIT, ORDER, MASK, AUGMENT = 0, 1, 2, 3  # purposes: initial weights, data order, random masks, crops and flips
GROW = 4  # and one more: the connections that are grown at random
SIGNAL = 5  # random inputs and weights of `lth.analysis.signal`
PROBE = 6  # random vectors that a Hessian is multiplied by (`lth.analysis.hessian`)
PERTURB = 7  # random perturbations of weights (`lth.analysis.lcs`)
SCALE = 8  # batches from which `lth.methods.tweaks.gradinit` learns
DIRECTION = 9  # random directions in weight space (`lth.analysis.surface`)


def torch_stream(*name: int) -> torch.Generator:
    """A CPU generator for the stream `name`, e.g. `torch_stream(seed, INIT)`."""
    return torch.Generator().manual_seed(_entropy(name) >> 65)  # 63 bits of it


def numpy_stream(*name: int) -> np.random.Generator:
    """A numpy generator for the stream `name`, e.g. `numpy_stream(seed, ORDER, epoch)`."""
    return np.random.default_rng(_entropy(name))


def _entropy(name: tuple[int, ...]) -> int:
    """128 bits that say the name: of its digits, as numpy takes (3, 1) and (3, 1, 0) for the same."""
    return int.from_bytes(hashlib.sha256(repr(tuple(map(int, name))).encode()).digest()[:16])
