"""Session 6, landscape and judgement: an interval, a verdict, and how much a bowl lets go."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import stats
from torch import Generator, Tensor

from lth.analysis.subspace import maximal_ratio
from lth.course.check import Attempt, Task, close, expect, number


def numbers(random: Generator, count: int) -> list[float]:
    return (3 + 2 * torch.randn(count, generator=random, dtype=torch.float64)).tolist()


def two(found: object) -> tuple[float, float]:
    right = isinstance(found, (tuple, list, np.ndarray)) and len(found) == 2
    expect(right, "it does not return two numbers.", "the lower and the upper end: `return low, high`.")
    low, high = float(found[0]), float(found[1])
    expect(math.isfinite(low) and math.isfinite(high), "an end is not a number.", "is anything divided by zero?")
    return low, high


def around_the_mean(attempt: Attempt, random: Generator) -> None:
    sample = numbers(random, 6)
    low, high = two(attempt(sample))
    expect(low < high, "the lower end is not below the upper one.", "mean minus, mean plus.")
    expect(close((low + high) / 2, np.mean(sample)), "the mean is not in the middle.", "mean ± half of the width.")


def as_scipy(attempt: Attempt, random: Generator) -> None:
    for count in (3, 5, 20):
        sample = numbers(random, count)
        found, right = two(attempt(sample)), stats.t.interval(0.95, count - 1, np.mean(sample), stats.sem(sample))
        ratio = (found[1] - found[0]) / (right[1] - right[0])
        expect(
            close(found, right),
            f"of {count} numbers it is {ratio:.2f} times as wide as SciPy's.",
            "three places: n or n − 1 under the squares; the spread of a *mean*; Student's factor, which for few "
            "numbers is far from 1.96.",
        )


def clear_cases(attempt: Attempt, random: Generator) -> None:
    _verdicts(
        attempt,
        (
            (2.0, 3.0, 1.0, math.inf, "confirmed"),
            (-3.0, -2.0, 1.0, math.inf, "contradicted"),
            (-0.2, 0.3, -0.5, 0.5, "confirmed"),
        ),
        "confirmed: the whole interval lies in the accepted range; contradicted: all of it lies outside.",
    )


def open_cases(attempt: Attempt, random: Generator) -> None:
    _verdicts(
        attempt,
        (
            (0.0, 3.0, 1.0, math.inf, "open"),
            (-1.0, 1.2, 1.0, math.inf, "open"),
            (-0.9, 0.2, -0.5, 0.5, "open"),
            (-2.0, 2.0, -0.5, 0.5, "open"),
        ),
        "an interval that reaches across a limit leaves both possible. Where its middle lies does not matter.",
    )


def upper_limits(attempt: Attempt, random: Generator) -> None:
    _verdicts(
        attempt,
        (
            (0.6, 0.9, -0.5, 0.5, "contradicted"),
            (-4.0, -3.0, -math.inf, -1.0, "confirmed"),
            (0.0, 2.0, -math.inf, -1.0, "contradicted"),
        ),
        "the range has two ends, and each of them may be infinite.",
    )


def _verdicts(attempt: Attempt, cases: tuple[tuple, ...], look: str) -> None:
    for low, high, least, most, right in cases:
        found = attempt(low, high, least, most)
        expect(
            found == right,
            f"the interval [{low:g}, {high:g}] and the accepted range from {least:g} to {most:g} give {found!r}.",
            look,
        )


def round_bowl(attempt: Attempt, random: Generator) -> None:
    for curvature, distance, right in ((2.0, 1.0, 0.5), (2.0, 3.0, 0.1), (18.0, 1.0, 0.1)):
        found = attempt.number(torch.full((10,), curvature), distance, 1.0)
        expect(
            close(found, right),
            f"in a round bowl with λ = {curvature:g}, ε = 1 and R = {distance:g} a share of {right:g} may go, "
            f"and it says {found:.3g}.",
            "r² = 2ε/λ, and each direction counts r²/(R² + r²). A mean, not a sum.",
        )


def one_sharp_direction(attempt: Attempt, random: Generator) -> None:
    flat = torch.ones(100, dtype=torch.float64)
    sharp = torch.cat([flat[:99], torch.tensor([1e6], dtype=torch.float64)])
    before, after = attempt.number(flat, 1.0, 0.5), attempt.number(sharp, 1.0, 0.5)
    expect(
        0 <= before - after < 0.011,
        f"one sharp direction of a hundred takes the share from {before:.3g} to {after:.3g}.",
        "it is not the largest curvature that counts, nor the mean curvature. Which mean is taken of what?",
    )


def as_the_library(attempt: Attempt, random: Generator) -> None:
    curvatures: Tensor = torch.rand(50, generator=random, dtype=torch.float64) * 10
    curvatures[:5] = 0
    flat = "in a flat direction the ellipsoid has no end. What is r²/(R² + r²) then? A form without ∞/∞ helps."
    found = attempt(curvatures, 0.7, 0.3)
    nan = isinstance(found, (float, Tensor)) and math.isnan(found)
    expect(not nan, "where five directions are flat, λ = 0, the share is nan.", flat)
    found = number(found)
    right = float(maximal_ratio(curvatures, torch.full((50,), 0.02), 0.3, [0.7])[0])
    expect(
        close(found, right),
        f"where five directions are flat, λ = 0, a share of {right:.3f} may go, and it says {found:.3f}.",
        flat,
    )


TASKS = (
    Task("t_interval(values)", (around_the_mean, as_scipy)),
    Task("verdict(low, high, least, most)", (clear_cases, open_cases, upper_limits)),
    Task("may_go(curvatures, distance, epsilon)", (round_bowl, one_sharp_direction, as_the_library)),
)
