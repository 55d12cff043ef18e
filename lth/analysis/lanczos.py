"""Lanczos' method for many symmetric operators at a time, known by their products with vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Krylov(NamedTuple):
    """What m steps give: the operator is close to basisᵀ T basis, where T is tridiagonal.

    basis: (…, m, P), rows orthonormal, the first of them the start.
    alpha: (…, m) float64, the diagonal of T.
    beta:  (…, m) float64, what is beside it; the last is the norm of what the operator leads out of the basis.
    """

    basis: Tensor
    alpha: Tensor
    beta: Tensor

    def ritz(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues of T, ascending, (…, m), and its eigenvectors as rows, (…, m, m)."""
        beside = self.beta[..., :-1]
        values, vectors = torch.linalg.eigh(self.alpha.diag_embed() + beside.diag_embed(1) + beside.diag_embed(-1))
        return values, vectors.mT


def krylov(product: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> Iterator[Krylov]:
    """Lanczos from vectors (…, P), with full reorthogonalisation; yields after each step.

    Where the operator leads no further, the vectors that follow are zero. They have no weight in the start, and their
    Ritz values lie inside the spectrum.
    """
    q = start / start.norm(dim=-1, keepdim=True)
    basis = q.new_zeros(*q.shape[:-1], steps, q.shape[-1])
    alpha, beta = (q.new_zeros(*q.shape[:-1], steps, dtype=torch.float64) for _ in range(2))
    for m in range(steps):
        basis[..., m, :] = q
        w = product(q)
        alpha[..., m] = (q.double() * w.double()).sum(-1)
        if m:
            alpha[..., m] = torch.where(beta[..., m - 1] > 0, alpha[..., m], alpha[..., 0])
        known = basis[..., : m + 1, :]
        for _ in range(2):  # once would leave rounding errors, twice is enough
            w = w - ((known @ w[..., None]).mT @ known)[..., 0, :]
        left = w.double().norm(dim=-1)
        noise = 10 * torch.finfo(w.dtype).eps * torch.maximum(alpha.abs().amax(-1), beta.amax(-1))
        beta[..., m] = torch.where(left > noise, left, 0.0)
        q = torch.where(left > noise, 1 / left, 0.0)[..., None].to(w.dtype) * w
        yield Krylov(known, alpha[..., : m + 1], beta[..., : m + 1])
