"""One optimiser step on stacked parameters, with the mask where it belongs.

Pruned weights come back to life in two ways: through momentum gathered before they were pruned, and through
whatever is added to their gradient (weight decay, a penalty). So the gradient is masked after everything has
been added to it and before the optimiser's state sees it, and `erase` clears weight and state together when
the mask changes. A pruned weight then stays at exactly zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lth.recipe import BETA1, BETA2, EPSILON, Recipe


def new_state(recipe: Recipe, param: Tensor) -> list[Tensor]:
    """Zeroed optimiser state of one stacked parameter: [velocity] for SGD, [mean, mean square] for Adam."""
    return [torch.zeros_like(param) for _ in range(1 if recipe.optimizer == "sgd" else 2)]


@torch.no_grad()
def step_(
    recipe: Recipe,
    factors: Tensor,
    param: Tensor,
    grad: Tensor,
    mask: Tensor | None,
    state: list[Tensor],
    lr: Tensor,
    decay: Tensor | None,
) -> None:
    """One step on one parameter, in place, as `torch.optim.SGD` or `Adam` would do it.

    factors: (3,), the row of `Recipe.factors` for this step. param, grad, mask and each of state: (r, *shape).
    lr, decay: (r, 1, …), each replica's peak learning rate and the factor of w in its gradient; None: no decay.
    """
    if decay is not None:
        grad = grad.addcmul(decay, param)
    if mask is not None:
        grad = grad * mask
    rate = lr * factors[0]
    if recipe.optimizer == "sgd":
        (velocity,) = state
        velocity.mul_(recipe.momentum).add_(grad)
        param.addcmul_(rate, velocity, value=-1)
    else:
        mean, square = state
        mean.lerp_(grad, 1 - BETA1)
        square.mul_(BETA2).addcmul_(grad, grad, value=1 - BETA2)
        scale = (square / factors[2]).sqrt_().add_(EPSILON)
        param.addcdiv_(mean * (rate / factors[1]), scale, value=-1)


@torch.no_grad()
def erase_(param: Tensor, mask: Tensor, state: list[Tensor]) -> None:
    """Sets weight and optimiser state to zero wherever the mask is False, in place."""
    for tensor in (param, *state):
        tensor.mul_(mask)
