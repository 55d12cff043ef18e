"""Learning-rate schedules against torch.optim.lr_scheduler, and recipes that make no sense."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from lth.errors import UsageError
from lth.training.recipe import Recipe


def rates(schedulers: list, steps: int) -> list[float]:
    """The learning rate of every step, as schedulers of torch set it one after another."""
    (optimizer,) = {scheduler.optimizer for scheduler in schedulers}
    out = []
    for _ in range(steps):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return out


@pytest.fixture
def sgd() -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_cosine(sgd, steps):
    recipe = Recipe(steps=steps, lr=0.4)
    ours = [0.4 * recipe.lr_factor(step) for step in range(steps)]
    assert ours == pytest.approx(rates([lr_scheduler.CosineAnnealingLR(sgd, steps)], steps), abs=1e-12)


def test_step(sgd):
    recipe = Recipe(steps=30, lr=0.4, schedule="step", milestones=(1, 10, 11, 25), gamma=0.5)
    ours = [0.4 * recipe.lr_factor(step) for step in range(30)]
    assert ours == pytest.approx(rates([lr_scheduler.MultiStepLR(sgd, [1, 10, 11, 25], 0.5)], 30), rel=1e-12)


def test_constant_with_warmup(sgd):
    recipe = Recipe(steps=30, lr=0.4, schedule="constant", warmup=8)
    ours = [0.4 * recipe.lr_factor(step) for step in range(30)]
    theirs = lr_scheduler.LinearLR(sgd, start_factor=1 / 8, total_iters=7)
    assert ours == pytest.approx(rates([theirs], 30), rel=1e-12)


@pytest.mark.parametrize("schedule, milestones", [("cosine", ()), ("step", (5, 20))])
def test_warmup_multiplies_the_schedule(schedule, milestones):
    with_warmup = Recipe(steps=30, schedule=schedule, milestones=milestones, warmup=10)
    without = Recipe(steps=30, schedule=schedule, milestones=milestones)
    for step in range(30):
        expected = without.lr_factor(step) * ((step + 1) / 10 if step < 10 else 1)
        assert with_warmup.lr_factor(step) == pytest.approx(expected, rel=1e-12)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    steps = draw(st.integers(1, 3000))
    schedule = draw(st.sampled_from(["constant", "cosine", "step"]))
    places = st.lists(st.integers(1, steps - 1), max_size=4, unique=True).map(sorted)
    milestones = draw(places) if schedule == "step" and steps > 1 else ()
    warmup, gamma = draw(st.integers(0, steps)), draw(st.floats(0.01, 1))
    return Recipe(steps=steps, schedule=schedule, milestones=milestones, warmup=warmup, gamma=gamma)


@given(recipes())
def test_the_factor_is_a_fraction_of_the_peak(recipe):
    factors = [recipe.lr_factor(step) for step in range(0, recipe.steps, max(1, recipe.steps // 50))]
    assert all(0 < factor <= 1 for factor in factors)
    after = [recipe.lr_factor(step) for step in range(recipe.warmup, recipe.steps)]
    assert after == sorted(after, reverse=True)


@given(st.integers(1, 5000))
def test_cosine_starts_at_the_peak_and_falls(steps):
    recipe = Recipe(steps=steps)
    factors = [recipe.lr_factor(step) for step in range(steps)]
    assert factors[0] == 1
    assert all(a > b for a, b in zip(factors, factors[1:], strict=False))
    assert all(a + b == pytest.approx(1) for a, b in zip(factors[1:], reversed(factors[1:]), strict=True))


@given(recipes())
def test_a_recipe_survives_its_own_description(recipe):
    """What the name of a run is made of tells all that differs from the defaults."""
    assert Recipe(**recipe.model_dump(mode="json", exclude_defaults=True)) == recipe


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": -5},
        {"steps": 2.5},
        {"steps": None},
        {"batch_size": 0},
        {"optimizer": "lion"},
        {"lr": 0},
        {"lr": -0.1},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"schedule": "linear"},
        {"schedule": "step", "milestones": (5, 3)},
        {"schedule": "step", "milestones": (5, 5)},
        {"schedule": "step", "milestones": (0, 5)},
        {"schedule": "step", "milestones": (-3, 5)},
        {"schedule": "step", "milestones": (5, 10)},
        {"milestones": (5,)},
        {"gamma": 0},
        {"warmup": -1},
        {"warmup": 11},
        {"momentum": 1},
        {"momentum": -0.1},
        {"weight_decay": -1e-4},
        {"weight_decay": float("inf")},
        {"decay": "l2"},
        {"nesterov": True},
    ],
    ids=str,
)
def test_recipes_without_sense_are_refused(wrong):
    (field,) = {"milestones"} & wrong.keys() or wrong.keys()
    with pytest.raises(UsageError, match=field):
        Recipe(**{"steps": 10} | wrong)


def test_a_recipe_cannot_change():
    with pytest.raises(UsageError):
        Recipe(steps=10).steps = 11


def test_decay_conventions():
    """Factor of weight_decay·w for a bias, a linear and a convolution weight."""
    assert [Recipe(steps=1).decay_scale(ndim) for ndim in (1, 2, 4)] == [1, 1, 1]
    assert [Recipe(steps=1, decay="kernels_l2").decay_scale(ndim) for ndim in (1, 2, 4)] == [0, 2, 2]
