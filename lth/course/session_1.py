"""Session 1, prune and rewind: a mask by magnitude, a step that leaves zeros alone, a ticket."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lth.course.check import Attempt, Task, close, expect, tensor
from lth.methods.prune import kept, largest
from lth.training import optim
from lth.training.recipe import Recipe


def mask_of(weights: Tensor, sparsity: float) -> Tensor:
    """The library's mask of one layer."""
    return largest(weights.abs().reshape(1, -1), kept(weights.numel(), sparsity)).view_as(weights)


def counts(attempt: Attempt, random: Generator) -> None:
    for shape, sparsity in (((10,), 0.5), ((7, 9), 0.9), ((4, 3, 2, 2), 0.33), ((11,), 0.85)):
        weights = torch.randn(shape, generator=random)
        found = attempt.tensor(weights, sparsity, like=weights, dtype=torch.bool)
        left, right = int(found.sum()), kept(weights.numel(), sparsity)
        expect(
            left == right,
            f"of {weights.numel()} weights at sparsity {sparsity} it keeps {left}, not {right}.",
            "sparsity is the share of zeros. How many ones does it leave, rounded to the nearest number?",
        )


def of_largest(attempt: Attempt, random: Generator) -> None:
    weights = torch.randn(6, 8, generator=random)
    found = attempt.tensor(weights, 0.75, like=weights, dtype=torch.bool)
    smallest, greatest = weights[found].abs().min(), weights[~found].abs().max()
    expect(
        smallest >= greatest,
        f"it keeps a weight of size {smallest:.2f} and drops one of size {greatest:.2f}.",
        "which end of the order is kept? And is a weight of −2 large or small?",
    )


def ties(attempt: Attempt, random: Generator) -> None:
    weights = torch.tensor([0.5, -1.0, 1.0, -1.0, 1.0, 2.0, -1.0, 0.25])
    found = attempt.tensor(weights, 0.5, like=weights, dtype=torch.bool)
    expect(
        found.sum() == 4,
        f"where several weights are of one size it keeps {int(found.sum())} of 8, not 4.",
        "a threshold takes all of them or none. What tells equals apart?",
    )
    expect(
        torch.equal(found, mask_of(weights, 0.5)),
        "of weights of one size it does not keep those that come first.",
        "does the sorting leave equals in their order? The documentation of `argsort` has a word for it.",
    )


def last_one(attempt: Attempt, random: Generator) -> None:
    weights = torch.randn(5, generator=random)
    left = int(attempt.tensor(weights, 0.99, like=weights, dtype=torch.bool).sum())
    expect(
        left == 1,
        f"of 5 weights at sparsity 0.99 it keeps {left}.",
        "a layer without weights lets nothing through: at least one has to stay.",
    )


def step_of(random: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights that are zero under their mask, a gradient and a velocity that are not, the mask."""
    weights, gradient, velocity = torch.randn(3, 4, 5, generator=random).unbind()
    mask = torch.rand(4, 5, generator=random) < 0.5
    mask[0, 0], mask[0, 1] = True, False
    return weights * mask, gradient, velocity, mask


def both(attempt: Attempt, *args: object) -> tuple[Tensor, Tensor]:
    found = attempt(*args)
    expect(
        isinstance(found, (tuple, list)) and len(found) == 2,
        "it does not return two tensors.",
        "the new weights and the new velocity: `return weights, velocity`.",
    )
    return tensor(found[0], args[0], what="the first result"), tensor(found[1], args[0], what="the second result")


def plain_step(attempt: Attempt, random: Generator) -> None:
    weights, gradient, velocity, _ = step_of(random)
    every = torch.ones_like(weights, dtype=torch.bool)
    found = both(attempt, weights, gradient, velocity, every, 0.1, 0.9)
    new = 0.9 * velocity + gradient
    expect(
        close(found[1], new),
        "with nothing pruned, the velocity is not that of SGD with momentum.",
        "velocity ← momentum · velocity + gradient; the learning rate comes in later.",
    )
    expect(
        close(found[0], weights - 0.1 * new),
        "with nothing pruned, the weights are not those of SGD with momentum.",
        "weights ← weights − lr · velocity. Which velocity, the old or the new one? Which sign?",
    )


def zeros_survive(attempt: Attempt, random: Generator) -> None:
    weights, _, velocity, mask = step_of(random)
    for step in range(10):
        weights, velocity = both(attempt, weights, torch.randn(4, 5, generator=random), velocity, mask, 0.1, 0.9)
        expect(
            (weights[~mask] == 0).all(),
            f"after step {step + 1} of 10 some pruned weights are not zero any more.",
            "what moves a weight? Its gradient, and the velocity that was gathered before it was pruned.",
        )
        expect(
            (velocity[~mask] == 0).all(),
            f"after step {step + 1} of 10 pruned weights still have a velocity.",
            "a weight that may come back one day should not jump. Mask what the velocity remembers, too.",
        )


def zeroed(attempt: Attempt, random: Generator) -> None:
    weights, gradient, velocity, mask = step_of(random)
    before = torch.where(mask, weights, torch.tensor(0.7))  # just pruned: not zero yet
    found, _ = both(attempt, before, gradient, velocity, mask, 0.1, 0.9)
    left = found[~mask]
    expect(
        (left == 0).all(),
        f"a pruned weight that was 0.7 is {float(left[left != 0][:1].sum()):.2g} afterwards, and not zero.",
        "pruned is zero, not frozen. Mask what is returned.",
    )


def as_the_library(attempt: Attempt, random: Generator) -> None:
    weights, gradient, _, mask = step_of(random)
    velocity = torch.randn(4, 5, generator=random) * mask
    recipe, rate = Recipe(steps=1, momentum=0.8, schedule="constant"), torch.full((1, 1), 0.3)
    ours, state = weights.clone(), [velocity.clone()]
    optim.step_(recipe, torch.tensor(recipe.factors()[0]), [ours], [gradient], [mask], [state], [rate], [None])
    found = both(attempt, weights, gradient, velocity, mask, 0.3, 0.8)
    expect(
        close(found[0], ours) and close(found[1], state[0]),
        "under a mask it is not the step that the library takes.",
        "the weights that stay should move exactly as without a mask.",
    )


def ticket_of(random: Generator) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    initial = {"fc1.weight": torch.randn(4, 3, generator=random), "fc1.bias": torch.randn(4, generator=random)}
    trained = {name: w + torch.randn(w.shape, generator=random) for name, w in initial.items()}
    return initial, trained, {"fc1.weight": mask_of(trained["fc1.weight"], 0.5)}


def rewound(attempt: Attempt, random: Generator) -> None:
    initial, trained, masks = ticket_of(random)
    found = attempt(initial, trained, masks)
    expect(isinstance(found, dict), f"the result is a {type(found).__name__}, not a dictionary.", "what is returned?")
    missing = sorted(initial.keys() - found.keys())
    expect(
        not missing, f"the ticket has no {', '.join(missing)}.", "what has no mask is part of the network all the same."
    )
    weight = tensor(found["fc1.weight"], initial["fc1.weight"], what="fc1.weight")
    mask = masks["fc1.weight"]
    expect((weight[~mask] == 0).all(), "pruned weights of the ticket are not zero.", "m ⊙ w: where is the mask?")
    expect(
        not torch.equal(weight, trained["fc1.weight"] * mask),
        "these are the trained weights under the mask.",
        "a ticket starts again. Which weights did the network begin with?",
    )
    expect(
        torch.equal(weight, initial["fc1.weight"] * mask),
        "the weights left are not, bit for bit, the first ones.",
        "nothing is to be computed with them but the product with the mask.",
    )
    expect(
        torch.equal(tensor(found["fc1.bias"], initial["fc1.bias"], what="fc1.bias"), initial["fc1.bias"]),
        "the bias is not the first one.",
        "biases have no mask, but they go back as well.",
    )


def ticket_is_new(attempt: Attempt, random: Generator) -> None:
    initial, trained, masks = ticket_of(random)
    kept_back: list[dict[str, Tensor]] = []
    spy = Attempt(attempt.task, lambda a, b, m: kept_back.append(a) or attempt.function(a, b, m))
    for name, value in spy(initial, trained, masks).items():
        expect(
            value.data_ptr() != kept_back[0][name].data_ptr(),
            f"the ticket's {name} is the very tensor of `initial`.",
            "training the ticket would train the dense network's first weights: `.clone()`.",
        )


TASKS = (
    Task(
        "magnitude_mask(weights, sparsity)",
        (counts, of_largest, ties, last_one),
        lambda attempt, random: attempt(torch.randn(300, 500, generator=random), 0.9),
    ),
    Task(
        "masked_step(weights, gradient, velocity, mask, lr, momentum)",
        (plain_step, zeros_survive, zeroed, as_the_library),
        lambda attempt, random: attempt(
            *torch.randn(3, 300, 500, generator=random), torch.ones(300, 500) > 0, 0.1, 0.9
        ),
    ),
    Task("ticket(initial, trained, masks)", (rewound, ticket_is_new)),
)
