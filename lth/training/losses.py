"""What training minimises, one number per replica. Evaluation never uses this: it reports plain cross-entropy."""

from __future__ import annotations

from typing import Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from lth.population import Tensors


class Penalty(Protocol):
    """A term added to the loss that depends on the weights alone; a frozen dataclass.

    Its tensors have the replica as their first axis, so that a run can be named by them, replica by replica.
    """

    def __call__(self, params: Tensors, masks: Tensors) -> Tensor:
        """name → (r, *shape), both → one number per replica, (r,), with a gradient to `params`."""

    def __getitem__(self, rows: slice) -> Self:
        """The same for some of the replicas."""


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: Tensor | None = None) -> Tensor:
    """Mean over the batch of −Σ_k y_k log p_k, in nats: (B, r, K), (B, r) → (r,).

    y is one-hot; with `smoothing` α, (r,), it is y(1 − α) + α/K [J, Sec. 3]. To smooth over the other K − 1
    classes only, use α·K/(K − 1).
    """
    if logits.shape[1] == 1:
        hard = F.cross_entropy(logits[:, 0], labels[:, 0])[None]
    else:
        hard = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").mean(0)
    if smoothing is None:
        return hard
    uniform = -F.log_softmax(logits, -1).mean((0, 2))
    return torch.lerp(hard, uniform, smoothing)


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """τ²·KL(q ‖ p), where q and p are the teacher's and the student's softmax of logits/τ: 2 × (B, r, K) → (r,).

    τ² keeps the gradient's size from depending on τ [Hinton et al. 2015].
    """
    p, q = F.log_softmax(logits / temperature, -1), F.log_softmax(teacher / temperature, -1)
    return temperature**2 * (q.exp() * (q - p)).sum(-1).mean(0)
