"""Session 2, does a ticket return: a straight line between networks, the barrier on it, the distance."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lth.course.check import Attempt, Task, close, expect


def ends_of(random: Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(7, generator=random), torch.randn(7, generator=random)


def meets_its_ends(attempt: Attempt, random: Generator) -> None:
    start, end = ends_of(random)
    first, last = (attempt.tensor(start, end, alpha, like=start) for alpha in (0.0, 1.0))
    expect(
        not close(first, end) and not close(last, start),
        "it runs backwards: α = 0 is the end.",
        "α is the share of the way that has been gone. Which of the two is multiplied by it?",
    )
    expect(close(first, start) and close(last, end), "α = 0 is not the start, or α = 1 not the end.", "put in 0 and 1.")


def is_straight(attempt: Attempt, random: Generator) -> None:
    start, end = ends_of(random)
    for alpha in (0.25, 0.5, 0.9):
        found = attempt.tensor(start, end, alpha, like=start)
        right = start + alpha * (end - start)
        expect(
            close(found, right),
            f"the point at α = {alpha} is not on the straight line, or not in its place.",
            "the two shares add up to one, and neither is squared.",
        )


def goes_on(attempt: Attempt, random: Generator) -> None:
    start, end = ends_of(random)
    for alpha in (-0.5, 1.5):
        expect(
            close(attempt.tensor(start, end, alpha, like=start), start + alpha * (end - start)),
            f"at α = {alpha} the line does not go on beyond its ends.",
            "is α clipped somewhere?",
        )


def on_a_chord(attempt: Attempt, random: Generator) -> None:
    alphas = [0.0, 0.25, 0.5, 0.75, 1.0]
    for first, last in ((3.0, 3.0), (2.0, 10.0), (10.0, 2.0)):
        values = [first + alpha * (last - first) for alpha in alphas]
        found = attempt.number(alphas, values)
        expect(
            close(found, 0),
            f"errors that go evenly from {first:g} to {last:g} have no barrier, and it says {found:.3g}.",
            "how high is a point above the straight line between the two ends, the chord?",
        )


def on_a_bump(attempt: Attempt, random: Generator) -> None:
    alphas = [0.0, 0.25, 0.5, 0.75, 1.0]
    for bump in ([0.0, 1.0, 5.0, 2.0, 0.0], [0.0, 4.0, 1.0, 0.0, 0.0], [0.0, 0.5, 0.5, 6.0, 0.0]):
        for slope in (0.0, 8.0, -8.0):
            values = [slope * alpha + high + 10 for alpha, high in zip(alphas, bump, strict=True)]
            found = attempt.number(alphas, values)
            expect(
                close(found, max(bump)),
                f"a bump of height {max(bump):g} on a chord of slope {slope:g} is told as {found:.3g}.",
                "the chord has another height at every α. Compare each point with the chord below it, then take the "
                "greatest difference.",
            )


def in_a_valley(attempt: Attempt, random: Generator) -> None:
    found = attempt.number([0.0, 0.5, 1.0], [4.0, 1.0, 4.0])
    expect(
        close(found, 0),
        f"a line that sags below its chord has no barrier, and it says {found:.3g}.",
        "the ends lie on the chord themselves. No absolute values.",
    )


def uneven_steps(attempt: Attempt, random: Generator) -> None:
    alphas, bump = [0.0, 0.1, 0.2, 0.9, 1.0], [0.0, 0.0, 3.0, 1.0, 0.0]
    values = [10 * alpha + high for alpha, high in zip(alphas, bump, strict=True)]
    found = attempt.number(alphas, values)
    expect(
        close(found, 3),
        f"where the α are not evenly spaced, a bump of 3 is told as {found:.3g}.",
        "the chord depends on α, not on the number of the point.",
    )


def known_triangle(attempt: Attempt, random: Generator) -> None:
    a, b = torch.zeros(2, 3), torch.tensor([[3.0, 0, 0], [0, 4, 0]])
    found = attempt.number(a, b)
    expect(
        close(found, 5),
        f"legs of 3 and 4 make a distance of {found:.4g}.",
        "Pythagoras: square, add up, and one thing more. Over all weights, whatever their shape; no mean.",
    )


def symmetric(attempt: Attempt, random: Generator) -> None:
    a, b = ends_of(random)
    there, back = attempt.number(a, b), attempt.number(b, a)
    expect(close(there, back) and there > 0, "there and back are not equally far.", "differences may be negative.")
    expect(
        close(there, (a - b).double().norm()),
        f"it says {there:.4g} for {float((a - b).norm()):.4g}.",
        "the length of a − b.",
    )
    expect(close(attempt.number(a, a), 0), "a network is not at distance 0 from itself.", "the length of a − b.")


TASKS = (
    Task(
        "line(start, end, alpha)",
        (meets_its_ends, is_straight, goes_on),
        lambda f, random: f(*torch.randn(2, 150_000, generator=random), 0.3),
    ),
    Task("barrier(alphas, errors)", (on_a_chord, on_a_bump, in_a_valley, uneven_steps)),
    Task(
        "distance(a, b)", (known_triangle, symmetric), lambda f, random: f(*torch.randn(2, 150_000, generator=random))
    ),
)
