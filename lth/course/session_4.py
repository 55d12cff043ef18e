"""Session 4, masks that move: drop, grow, both as an update, and a rule of one's own."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lth.course.check import Attempt, Task, expect, tensor
from lth.methods.dst import rewire


def layer(random: Generator, density: float = 0.4) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, mask and dense gradient of a layer; weights are zero where they are pruned."""
    weights, gradient = torch.randn(2, 6, 10, generator=random).unbind()
    mask = torch.rand(6, 10, generator=random) < density
    return weights * mask, mask, gradient


def dropped_in_number(attempt: Attempt, random: Generator) -> None:
    weights, mask, _ = layer(random)
    for count in (0, 1, 5):
        left = int(attempt.tensor(weights, mask, count, like=mask, dtype=torch.bool).sum())
        right = int(mask.sum()) - count
        expect(
            left == right,
            f"after dropping {count} of {int(mask.sum())} weights {left} are left, not {right}.",
            "weights that are pruned already are smaller than any other: are they in your order, too?"
            if count
            else "nothing is to go here. What does your condition say where there is no largest of those that go?",
        )


def smallest_dropped(attempt: Attempt, random: Generator) -> None:
    weights, mask, _ = layer(random)
    found = attempt.tensor(weights, mask, 5, like=mask, dtype=torch.bool)
    expect(
        not (found & ~mask).any(), "dropping brings weights back that were pruned.", "the new mask lies within the old."
    )
    gone = mask & ~found
    expect(
        weights[gone].abs().max() <= weights[found].abs().min(),
        f"it drops a weight of size {float(weights[gone].abs().max()):.2f} and keeps one of "
        f"{float(weights[found].abs().min()):.2f}.",
        "which end of the order goes? And is −2 large or small?",
    )


def zeros_that_stay(attempt: Attempt, random: Generator) -> None:
    weights = torch.tensor([[0.0, 0.0, 0.0, 2.0, 0.0, 3.0]])
    mask = torch.tensor([[True, False, True, True, True, True]])
    left = int(attempt.tensor(weights, mask, 2, like=mask, dtype=torch.bool).sum())
    expect(
        left == 3,
        f"where weights that stay are zero themselves, {left} are left of 5 after dropping 2.",
        "a weight that has just been grown is zero and not pruned. Ask the mask, and count.",
    )


def grown_in_number(attempt: Attempt, random: Generator) -> None:
    _, mask, gradient = layer(random)
    for count in (0, 1, 5):
        found = attempt.tensor(mask, gradient, count, like=mask, dtype=torch.bool)
        expect(
            not (mask & ~found).any(),
            "growing takes weights away that were there.",
            "the old mask lies within the new.",
        )
        more = int(found.sum() - mask.sum())
        expect(
            more == count,
            f"it grows {more} weights, not {count}.",
            "weights that are there already cannot be grown: are they in your order, too?",
        )


def largest_grown(attempt: Attempt, random: Generator) -> None:
    _, mask, gradient = layer(random)
    found = attempt.tensor(mask, gradient, 5, like=mask, dtype=torch.bool)
    new, absent = found & ~mask, ~found
    expect(
        gradient[new].abs().min() >= gradient[absent].abs().max(),
        f"it grows a weight with a gradient of {float(gradient[new].abs().min()):.2f} and leaves one with "
        f"{float(gradient[absent].abs().max()):.2f} out.",
        "the largest gradients of those that are absent; a gradient of −2 is as useful as one of 2.",
    )


def gradients_of_zero(attempt: Attempt, random: Generator) -> None:
    _, mask, gradient = layer(random)
    gradient = gradient * (torch.rand(mask.shape, generator=random) < 0.05)
    found = attempt.tensor(mask, gradient, 9, like=mask, dtype=torch.bool)
    more = int(found.sum() - mask.sum())
    expect(
        more == 9,
        f"where nearly all gradients are exactly zero it grows {more} weights, not 9.",
        "a weight that is there must come after every absent one, also after one whose gradient is zero.",
    )


def pair(found: object, weights: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    right = isinstance(found, (tuple, list)) and len(found) == 2
    expect(
        right, "it does not return two tensors.", "the weights and the mask after the update: `return weights, mask`."
    )
    return tensor(found[0], weights, what="the first result"), tensor(found[1], mask, torch.bool, "the second result")


def same_number(attempt: Attempt, random: Generator) -> None:
    for density, fraction in ((0.4, 0.3), (0.2, 0.5), (0.9, 0.3)):
        weights, mask, gradient = layer(random, density)
        _, new = pair(attempt(weights, mask, gradient, fraction), weights, mask)
        expect(
            new.sum() == mask.sum(),
            f"a layer with {int(mask.sum())} weights has {int(new.sum())} after the update.",
            "as many are grown as were dropped, and those just dropped are absent, too.",
        )


def new_ones_are_zero(attempt: Attempt, random: Generator) -> None:
    weights, mask, gradient = layer(random)
    after, new = pair(attempt(weights, mask, gradient, 0.3), weights, mask)
    expect(
        (after[new & ~mask] == 0).all(),
        "new weights do not begin at zero.",
        "a new weight must not disturb the others.",
    )
    expect((after[~new] == 0).all(), "weights that were dropped keep their values.", "what is not in the mask is zero.")
    left = int(mask.sum()) - int(0.3 * int(mask.sum()))
    kept = weights.abs() >= weights.abs().flatten().sort(descending=True).values[left - 1]
    back = new & mask & ~kept  # dropped and grown at once: it may keep its value or begin at zero
    expect(
        torch.equal(after[kept], weights[kept]) and ((after == weights) | (after == 0))[back].all(),
        "weights that stay have changed.",
        "an update moves masks, not weights.",
    )


def as_rigl(attempt: Attempt, random: Generator) -> None:
    for fraction in (0.1, 0.3, 0.5, 0.3):
        weights, mask, gradient = layer(random)
        if fraction == 0.3:  # of 29 weights 8.7
            mask = (torch.randperm(60, generator=random) < 29).view_as(mask)
            weights = torch.randn(6, 10, generator=random) * mask
        _, new = pair(attempt(weights, mask, gradient, fraction), weights, mask)
        rows = (x.reshape(1, -1) for x in (weights, mask, gradient.abs()))
        right = rewire(*rows, fraction).view_as(mask)
        expect(
            torch.equal(new, right),
            f"with a fraction of {fraction} the new mask is not RigL's.",
            "how many go: the fraction of the weights left, rounded down. Then all that are absent may be grown, "
            "those just dropped as well.",
        )


def keeps_count(attempt: Attempt, random: Generator) -> None:
    for density in (0.2, 0.6):
        weights, mask, gradient = layer(random, density)
        new = attempt.tensor(weights, mask, gradient, 0.3, like=mask, dtype=torch.bool)
        expect(
            new.sum() == mask.sum(),
            f"a layer with {int(mask.sum())} weights has {int(new.sum())} by your rule.",
            "any rule is welcome that leaves every layer as many weights as it had.",
        )


def moves(attempt: Attempt, random: Generator) -> None:
    weights, mask, gradient = layer(random)
    new = attempt.tensor(weights, mask, gradient, 0.3, like=mask, dtype=torch.bool)
    changed = int((mask & ~new).sum())
    expect(changed > 0, "your rule moves nothing.", "does anything go? Does the same come back at once?")
    most = int(0.3 * int(mask.sum()))
    expect(
        changed <= most, f"your rule exchanges {changed} weights, and {most} are 30 % of them.", "count what you drop."
    )


TASKS = (
    Task(
        "drop(weights, mask, count)",
        (dropped_in_number, smallest_dropped, zeros_that_stay),
        lambda f, random: f(torch.randn(300, 500, generator=random), torch.ones(300, 500) > 0, 1000),
    ),
    Task(
        "grow(mask, gradient, count)",
        (grown_in_number, largest_grown, gradients_of_zero),
        lambda f, random: f(torch.zeros(300, 500) > 0, torch.randn(300, 500, generator=random), 1000),
    ),
    Task("update(weights, mask, gradient, fraction)", (same_number, new_ones_are_zero, as_rigl)),
    Task("my_rule(weights, mask, gradient, fraction)", (keeps_count, moves)),
)
