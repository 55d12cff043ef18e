"""Settings against the data that they meet: what does not fit is told in one line, before anything is trained."""

from __future__ import annotations

import pytest

from lth import data
from lth.book.chapter import Chapter
from lth.book.presets import PRESETS, changed, check_data, nearest, parameters
from lth.book.settings import CHAPTER_PARAMETERS
from lth.book.settings.base import DIGITS, Facts
from lth.book.settings.dst_updates import lenet5_layers
from lth.checked import Checked
from lth.errors import UsageError
from lth.models import ARCHITECTURES, Model
from lth.training.recipe import Recipe

SMALL = Facts("small", 300, 100, (1, 28, 28), 10)
OFFICIAL = {
    "digits": DIGITS,
    "mnist": Facts("mnist", 60_000, 10_000, (1, 28, 28), 10),
    "cifar10": Facts("cifar10", 50_000, 10_000, (3, 32, 32), 10),
    "cifar10-jpeg": Facts("cifar10-jpeg", 50_000, 10_000, (3, 32, 32), 10),
    "cifar100": Facts("cifar100", 50_000, 10_000, (3, 32, 32), 100),
}


def refusal(chapter: str, facts: Facts, **changed: object) -> str:
    """The line with which a chapter's smoke settings, some of them changed, refuse the data."""
    with pytest.raises(UsageError) as refused:
        parameters(chapter, "smoke", changed).check(facts)
    return str(refused.value)


def test_what_is_said_of_digits_is_true():
    assert Facts.of(data.load("digits")) == DIGITS


def test_digits_fit_every_architecture():
    """Which is why they are not looked at."""
    for name in ARCHITECTURES:
        assert Model(name, DIGITS.shape, DIGITS.classes).shapes


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("chapter", CHAPTER_PARAMETERS)
def test_presets_fit_their_data(chapter, preset):
    settings = parameters(chapter, preset)
    settings.check(OFFICIAL[settings.dataset])


@pytest.mark.parametrize("chapter", CHAPTER_PARAMETERS)
def test_few_images_one_class_and_large_batches_are_refused(chapter):
    name, largest = {"rti_repulsion": ("arms", "adam:0.01:8,sgd:0.1:100000")}.get(chapter, ("batch_size", "100000"))
    words = refusal(chapter, DIGITS, **{name: largest})
    assert words.startswith(f"{name}=100000 ") and "1437 training images" in words
    for few in (SMALL._replace(train=10), SMALL._replace(test=19)):
        words = refusal(chapter, few)
        assert "dataset=digits" in words and "at least 20" in words and "\n" not in words
    assert "one class" in refusal(chapter, SMALL._replace(classes=1))


@pytest.mark.parametrize("chapter", ["gradient_flow", "dst_updates", "lt_basin"])
def test_images_too_small_for_the_network_are_refused(chapter):
    words = refusal(chapter, SMALL._replace(shape=(1, 8, 8)))
    assert "lenet5" in words and "at least 16×16 pixels, not 8×8" in words
    assert ("-p model=lenet_300_100" in words) == (chapter == "lt_basin")  # the others train LeNet5 beside another


def test_the_other_architectures_of_a_chapter_are_looked_at_too():
    assert "vgg16_bn" in refusal("tweaks", SMALL._replace(shape=(3, 8, 8)), others="vgg16_bn")


@pytest.mark.parametrize(
    ("chapter", "name", "most"),
    [
        ("gradient_flow", "batch_size", 300),
        ("gradient_flow", "block", 300),
        ("lt_basin", "batch_size", 300),
        ("tweaks", "batch_size", 180),  # of the 270 left, a batch and half another
        ("rti_repulsion", "arms", 300),
        ("lcs_geometry", "batch_size", 150),  # two batches
    ],
)
def test_the_bound_is_the_last_that_fits(chapter, name, most):
    value = (lambda n: f"adam:0.01:8,sgd:0.1:{n}") if name == "arms" else str
    parameters(chapter, "smoke", {name: value(most)}).check(SMALL)
    assert refusal(chapter, SMALL, **{name: value(most + 1)}).endswith(f"at most {most}")


def test_too_few_steps_for_a_schedule():
    assert "steps=2" in str(pytest.raises(UsageError, parameters, "tweaks", "smoke", {"steps": 2}).value)
    for steps in (3, 4, 5):
        milestones = (steps // 2, steps * 3 // 4)
        assert Recipe(steps=steps, schedule="step", milestones=milestones)


@pytest.mark.parametrize(("shape", "classes"), [((1, 28, 28), 10), ((3, 32, 40), 7)])
def test_layers_of_lenet5(shape, classes):
    model = Model("lenet5", shape, classes)
    assert lenet5_layers(shape, classes) == [model.shapes.params[name].numel() for name in model.prunable]


def test_a_network_too_dense_for_an_exact_hessian_is_refused():
    words = refusal("dst_updates", DIGITS, sparsity=0.5)
    assert words.startswith("sparsity=0.5 ") and words.endswith("at least 0.893")
    parameters("dst_updates", "smoke", {"sparsity": 0.893}).check(DIGITS)
    assert "lanczos_steps=4000" in refusal("dst_updates", DIGITS, lanczos_steps=4000)


def test_a_run_and_a_chapter_by_hand_both_check():
    values = parameters("lt_basin", "smoke").model_dump() | {"batch_size": 100_000}
    for check in (check_data, Chapter):
        with pytest.raises(UsageError, match=r"batch_size=100000 .* at most 1437$"):
            check("lt_basin", values)


class Own(Checked):
    """A record of ours."""

    size: int


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Recipe(steps=0), "steps=0: should be greater than 0. It is: optimiser steps"),
        (lambda: Recipe(), "Recipe needs steps. It is: optimiser steps"),
        (lambda: Recipe(steps=3, nesterov=True), "Recipe has no nesterov: it has steps, "),
        (lambda: Recipe(steps=3, warmup=4), "warmup (4 steps) is longer than the run (3 steps)"),
        (lambda: setattr(Recipe(steps=3), "steps", 4), "Recipe cannot be changed"),
        (lambda: Own(size="many"), "size=many: should be a valid integer"),
        (lambda: Own.model_validate({"size": "many"}), "size=many: should be a valid integer"),
        (lambda: parameters("lt_basin", "smoke", {"points": "8.5"}), "points=8.5: should be 8, 15 or 29."),
    ],
)
def test_wrong_values_are_told_in_one_line(make, words):
    with pytest.raises(UsageError) as refused:
        make()
    assert str(refused.value).startswith(words) and "\n" not in str(refused.value)


def test_the_preset_of_a_run_is_the_nearest_to_its_values():
    """Whoever types a preset and another one's values has run that other one."""
    for chapter in CHAPTER_PARAMETERS:
        for preset in PRESETS:
            values = parameters(chapter, preset).model_dump()
            named = nearest(chapter, "smoke", values | {"first_seed": 7})
            assert not changed(chapter, named, values)
        assert nearest(chapter, "by hand", values) == "by hand"
    values = parameters("lt_basin", "night", {"points": 8}).model_dump()
    assert nearest("lt_basin", "night", values) == "night"
    assert changed("lt_basin", "night", values) == {"points": (8, parameters("lt_basin", "night").points)}
    assert nearest("lt_basin", "night", {}) == "night"
