"""One optimiser step on stacked parameters, with the mask where it belongs.

Pruned weights come back to life in two ways: through momentum gathered before they were pruned, and through
whatever is added to their gradient (weight decay, a penalty). So the gradient is masked after everything has
been added to it and before the optimiser's state sees it, and `erase` clears weight and state together when
the mask changes. A pruned weight then stays at exactly zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lth.training.recipe import BETA1, BETA2, EPSILON, Recipe

NOT_ZERO = 1e-36  # some processors take six times as long for the square root of 0; beside EPSILON its own is nothing


def new_state(recipe: Recipe, param: Tensor) -> list[Tensor]:
    """Zeroed optimiser state of one stacked parameter: [velocity] for SGD, [mean, mean square] for Adam."""
    return [torch.zeros_like(param) for _ in range(1 if recipe.optimizer == "sgd" else 2)]


@torch.no_grad()
def step_(
    recipe: Recipe,
    factors: Tensor,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    masks: Sequence[Tensor | None],
    states: Sequence[list[Tensor]],
    lrs: Sequence[Tensor],
    decays: Sequence[Tensor | None],
) -> None:
    """One step on all parameters, in place, as `torch.optim.SGD` or `Adam` would do it.

    factors: (4,), the row of `Recipe.factors` for this step. All else has one entry for each parameter, (r, *shape)
    or, of one replica, (*shape): grads and what is in states have its shape; masks too, None: nothing is pruned; lrs
    and decays, (r, 1, …) or (1, …), are each replica's peak learning rate and the factor of w in its gradient, None:
    no decay.

    The functions for lists of tensors spare Python an operation for each parameter: two threads that train a replica
    each would spend their time waiting for one another in it.
    """
    grads = list(grads)
    if some := [i for i, decay in enumerate(decays) if decay is not None]:
        terms = ([of[i] for i in some] for of in (grads, decays, params))
        for i, grad in zip(some, torch._foreach_addcmul(*terms), strict=True):
            grads[i] = grad
    if some := [i for i, mask in enumerate(masks) if mask is not None]:
        terms = ([of[i] for i in some] for of in (grads, masks))
        for i, grad in zip(some, torch._foreach_mul(*terms), strict=True):
            grads[i] = grad
    rates = torch._foreach_mul(lrs, factors[0])
    if recipe.optimizer == "sgd":
        velocities = [velocity for (velocity,) in states]
        torch._foreach_mul_(velocities, factors[3])
        torch._foreach_add_(velocities, grads)
        torch._foreach_addcmul_(params, rates, velocities, value=-1)
    else:
        means, squares = zip(*states, strict=True)
        torch._foreach_lerp_(means, grads, 1 - BETA1)
        torch._foreach_mul_(squares, BETA2)
        torch._foreach_addcmul_(squares, grads, grads, value=1 - BETA2)
        scales = torch._foreach_clamp_min(torch._foreach_div(squares, factors[2]), NOT_ZERO)
        torch._foreach_sqrt_(scales)
        torch._foreach_add_(scales, EPSILON)
        steps = torch._foreach_mul(means, torch._foreach_div(rates, factors[1]))
        torch._foreach_addcdiv_(params, steps, scales, value=-1)


@torch.no_grad()
def erase_(param: Tensor, mask: Tensor, state: list[Tensor]) -> None:
    """Sets weight and optimiser state to zero wherever the mask is False, in place."""
    for tensor in (param, *state):
        tensor.mul_(mask)
