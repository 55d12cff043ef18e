"""Session 5, iterate, then forbid: the angle between solutions, a penalty on it, and what is to be remembered."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from lth.course.check import Attempt, Task, close, expect, number


def angle(attempt: Attempt, a: Tensor, b: Tensor) -> float:
    found = attempt(a, b)
    if isinstance(found, (float, Tensor)) and math.isnan(found):
        expect(
            False,
            "of weights and a multiple of them the angle is nan.",
            "rounding can make a cosine 1.0000001, and no angle has that one. Between which numbers does it belong?",
        )
    return number(found)


def multiples(attempt: Attempt, random: Generator) -> None:
    a = torch.randn(50, generator=random)
    for factor in (1.0, 3.0, 0.01):
        found = angle(attempt, a, factor * a)
        expect(
            close(found, 0, 1e-3),
            f"weights and {factor:g} times the same weights are at a distance of {found:.3g}.",
            "an angle does not know how long its legs are. Divide by both lengths.",
        )


def right_angles(attempt: Attempt, random: Generator) -> None:
    found = attempt.number(torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 0.5, 0.0]))
    expect(close(found, 1), f"at right angles the distance is {found:.3g}.", "the unit is the right angle, π/2.")


def in_between(attempt: Attempt, random: Generator) -> None:
    for degrees in (30.0, 60.0, 120.0, 180.0):
        turned = torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])
        found = attempt.number(torch.tensor([5.0, 0.0]), turned)
        expect(
            close(found, degrees / 90, 1e-3),
            f"an angle of {degrees:g}° is a distance of {degrees / 90:.3f}, and it says {found:.3f}.",
            "the cosine is not the angle, and an angle may be more than 90°.",
        )


def rounding(attempt: Attempt, random: Generator) -> None:
    for _ in range(20):
        a = torch.randn(1000, generator=random)
        angle(attempt, a, 7 * a)


def scene(random: Generator, count: int) -> tuple[Tensor, list[Tensor]]:
    theta, *optima = torch.randn(count + 1, 6, generator=random, dtype=torch.float64).unbind()
    return theta, list(optima)


def cosines(theta: Tensor, optima: list[Tensor]) -> Tensor:
    return torch.stack([theta @ other / (theta.norm() * other.norm()) for other in optima])


def known_values(attempt: Attempt, random: Generator) -> None:
    theta = torch.tensor([2.0, 0.0])
    for others, right, look in (
        (["0"], 1.0, "a cosine does not know how long its legs are. Divide by both lengths."),
        (["180"], 1.0, "what does the square do at 180°?"),
        (["90"], 0.0, "is it the cosine, and not the angle?"),
        (["60"], 0.25, "is it the *squared* cosine?"),
        (["0", "90"], 0.5, "the mean over the solutions, not the sum; first the squares, then the mean."),
    ):
        optima = [
            3 * torch.tensor([math.cos(math.radians(float(d))), math.sin(math.radians(float(d)))]) for d in others
        ]
        found = attempt.number(theta, optima)
        expect(
            close(found, right, 1e-4),
            f"with solutions at {' and '.join(others)}° it is {found:.3g}, not {right:g}.",
            look,
        )


def nothing_to_forbid(attempt: Attempt, random: Generator) -> None:
    theta, _ = scene(random, 1)
    found = attempt.number(theta, [])
    expect(found == 0, f"with nothing to be repelled from it is {found:.3g}.", "the mean of no numbers is none. Say 0.")


def slopes(attempt: Attempt, random: Generator) -> None:
    theta, optima = scene(random, 3)
    theta.requires_grad_()
    found = attempt(theta, optima)
    attached = isinstance(found, Tensor) and found.requires_grad
    expect(
        attached,
        "nothing can be trained with it: its gradient is lost.",
        "`.item()`, `float()`, `.detach()` and numpy cut the graph. Stay in tensors.",
    )
    (gradient,) = torch.autograd.grad(found, theta)
    with torch.no_grad():
        nudges = 1e-6 * torch.eye(6, dtype=torch.float64)
        mean = lambda x: cosines(x, optima).square().mean()  # noqa: E731
        right = torch.stack([(mean(theta + nudge) - mean(theta - nudge)) / 2e-6 for nudge in nudges])
    expect(
        close(gradient, right, 1e-4),
        "its gradient is not that of finite differences.",
        "the length of θ changes, too, when θ does. Is part of it detached?",
    )


def last_two(attempt: Attempt, random: Generator) -> None:
    solutions = list(torch.randn(5, 3, generator=random))
    found = attempt(solutions)
    expect(
        isinstance(found, (list, tuple)), f"the result is a {type(found).__name__}, not a list.", "a slice of a list."
    )
    numbers = [next((i for i, one in enumerate(solutions) if torch.equal(one, other)), None) for other in found]
    expect(
        sorted(numbers, key=str) == [3, 4],
        f"of solutions 0 to 4 it forbids {', '.join(map(str, numbers)) or 'none'}.",
        "the last two of the list. A slice may count from the end.",
    )


def fewer_than_two(attempt: Attempt, random: Generator) -> None:
    for count in (0, 1):
        found = attempt(list(torch.randn(count, 3, generator=random)) if count else [])
        expect(
            len(found) == count,
            f"of {count} solutions it forbids {len(found)}.",
            "the first rounds have fewer than two.",
        )


TASKS = (
    Task(
        "angular_distance(a, b)",
        (multiples, right_angles, in_between, rounding),
        lambda f, random: f(*torch.randn(2, 150_000, generator=random)),
    ),
    Task("penalty(theta, optima)", (known_values, nothing_to_forbid, slopes)),
    Task("to_forbid(solutions)", (last_two, fewer_than_two)),
)
