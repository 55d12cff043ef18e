"""The course's checks: each takes a right answer, catches typical wrong ones, and says so in words for a learner."""

# ruff: noqa: E501 - a wrong answer is one line of a table

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch

from lth.course import check as checks
from lth.course.check import NotYet, check, try_out

TASKS = checks.tasks()


def function(name: str, code: str) -> Callable:
    """What a learner's cell defines."""
    space: dict = {}
    exec("import math\nimport numpy as np\nimport torch\nfrom scipy import stats\n" + code, space)
    return space[name]


RIGHT = {
    "magnitude_mask": """
def magnitude_mask(weights, sparsity):
    keep = max(1, round(weights.numel() * (1 - sparsity)))
    order = weights.abs().flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(weights.numel(), dtype=torch.bool)
    mask[order[:keep]] = True
    return mask.view_as(weights)
""",
    "masked_step": """
def masked_step(weights, gradient, velocity, mask, lr, momentum):
    velocity = (momentum * velocity + gradient) * mask
    return weights - lr * velocity, velocity
""",
    "ticket": """
def ticket(initial, trained, masks):
    return {name: w * masks[name] if name in masks else w.clone() for name, w in initial.items()}
""",
}

# task, what is changed in the right answer (old → new) or the whole wrong one, words that the learner must read
WRONG = [
    ("magnitude_mask", (".abs().flatten()", ".flatten()"), "large or small"),
    ("magnitude_mask", ("descending=True", "descending=False"), "keeps a weight of size"),
    ("magnitude_mask", ("round(", "int("), "rounded"),
    ("magnitude_mask", ("max(1, round(weights.numel() * (1 - sparsity)))", "round(weights.numel() * (1 - sparsity))"), "at least one"),
    ("magnitude_mask", ("(1 - sparsity)", "sparsity"), "share of zeros"),
    ("magnitude_mask", ("descending=True, stable=True)", "descending=True, stable=True)[torch.randperm(0)]"), "keeps 0"),
    ("magnitude_mask", ("return mask.view_as(weights)", "return mask"), "shape"),
    ("magnitude_mask", ("return mask.view_as(weights)", "return mask.view_as(weights).float()"), "torch.float32"),
    ("magnitude_mask", "def magnitude_mask(weights, sparsity):\n return weights.abs() > weights.abs().flatten().quantile(sparsity)", ""),
    ("magnitude_mask", """
def magnitude_mask(weights, sparsity):
    keep = max(1, round(weights.numel() * (1 - sparsity)))
    return weights.abs() >= weights.abs().flatten().sort(descending=True).values[keep - 1]
""", "threshold"),
    ("magnitude_mask", """
def magnitude_mask(weights, sparsity):
    keep = max(1, round(weights.numel() * (1 - sparsity)))
    order = weights.abs().flatten().flip(0).argsort(descending=True, stable=True)
    mask = torch.zeros(weights.numel(), dtype=torch.bool)
    mask[weights.numel() - 1 - order[:keep]] = True
    return mask.view_as(weights)
""", "come first"),
    ("masked_step", ("(momentum * velocity + gradient) * mask", "momentum * velocity + gradient"), "not zero any more"),
    ("masked_step", ("(momentum * velocity + gradient) * mask", "momentum * velocity + gradient * mask"), "gathered before"),
    ("masked_step", """
def masked_step(weights, gradient, velocity, mask, lr, momentum):
    velocity = momentum * velocity + gradient
    return (weights - lr * velocity) * mask, velocity
""", "still have a velocity"),
    ("masked_step", ("momentum * velocity + gradient", "momentum * velocity + lr * gradient"), "velocity is not that"),
    ("masked_step", ("weights - lr", "weights + lr"), "sign"),
    ("masked_step", """
def masked_step(weights, gradient, velocity, mask, lr, momentum):
    new = (momentum * velocity + gradient) * mask
    return weights - lr * velocity * mask, new
""", "the old or the new"),
    ("masked_step", ("return weights - lr * velocity, velocity", "return weights - lr * velocity"), "two tensors"),
    ("ticket", ("in initial.items()", "in trained.items()"), "trained weights under the mask"),
    ("ticket", ("w * masks[name] if name in masks else w.clone() for name, w in initial.items()",
                "initial[name] * mask for name, mask in masks.items()"), "no fc1.bias"),
    ("ticket", ("w * masks[name] if name in masks else w.clone()", "w.clone()"), "not zero"),
    ("ticket", ("else w.clone()", "else trained[name]"), "bias is not the first"),
    ("ticket", ("else w.clone()", "else w"), "very tensor"),
    ("ticket", ("w * masks[name]", "w * masks[name] * (1 + 1e-3)"), "bit for bit"),
]  # fmt: skip


def wrong_answers() -> list:
    cases = []
    for task, change, words in WRONG:
        old, new = ("", "") if isinstance(change, str) else change
        assert old in RIGHT[task], f"{task} has no {old!r} to change"
        code = change if isinstance(change, str) else RIGHT[task].replace(old, new)
        cases.append(pytest.param(task, code, words, id=f"{task}-{len(cases)}"))
    return cases


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_right_answer_passes(name, seed):
    praise = try_out(TASKS[name], function(name, RIGHT[name]), seed)
    assert re.fullmatch(rf"✓ {name}: right in (\d+) of \1 checks", praise)


@pytest.mark.parametrize("name, code, words", wrong_answers())
def test_a_typical_wrong_answer_is_caught_and_explained(name, code, words):
    with pytest.raises(NotYet, match=f"✗ {name}, check . of .: ") as caught:
        try_out(TASKS[name], function(name, code))
    assert words in str(caught.value)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_a_right_answer_and_three_wrong_ones(name):
    assert name in RIGHT and sum(task == name for task, *_ in WRONG) >= 3


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise NotImplementedError()", "nothing is written here yet"),
        ("pass", "returns nothing"),
        ("return []", "✗"),
        ("return 'mask'", "✗"),
        ("return float('nan')", "✗"),
        ("return torch.full((2,), float('nan'))", "✗"),
        ("return nonsense", "NameError: name 'nonsense' is not defined"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("while True: pass", "does not come to an end"),
    ],
)
def test_what_is_no_answer_is_told_without_a_traceback(name, body, words):
    code = f"def {TASKS[name].call}:\n    {body}\n"
    with pytest.raises(NotYet) as caught:
        try_out(TASKS[name], function(name, code))
    assert words in str(caught.value) and caught.value._render_traceback_() == str(caught.value).splitlines()
    assert caught.value.__suppress_context__ and "check.py" not in str(caught.value)


@pytest.mark.parametrize("name", TASKS)
def test_a_function_with_other_arguments_is_told_how_it_is_called(name):
    with pytest.raises(NotYet, match=re.escape(f"it cannot be called as {TASKS[name].call}")):
        try_out(TASKS[name], function(name, f"def {name}(): return 1"))


def test_the_line_at_fault_is_shown():
    scope: dict = {}
    code = "def magnitude_mask(weights, sparsity):\n    size = weights.abs()\n    return size.no_such_method()\n"
    import linecache

    linecache.cache["<cell 7>"] = (len(code), None, code.splitlines(True), "<cell 7>")
    exec(compile(code, "<cell 7>", "exec"), scope)
    with pytest.raises(NotYet, match=r"no_such_method.*\n  in line 3: return size\.no_such_method\(\)"):
        try_out(TASKS["magnitude_mask"], scope["magnitude_mask"])


def test_an_argument_that_is_changed_is_named():
    code = RIGHT["magnitude_mask"].replace("weights.abs()", "weights.abs_()")
    with pytest.raises(NotYet, match="changes its argument `weights`"):
        try_out(TASKS["magnitude_mask"], function("magnitude_mask", code))
    code = RIGHT["ticket"].replace("w * masks[name]", "w.mul_(masks[name])")
    with pytest.raises(NotYet, match="changes its argument `initial`"):
        try_out(TASKS["ticket"], function("ticket", code))


def test_right_but_slow_is_right_with_a_remark():
    code = """
def magnitude_mask(weights, sparsity):
    flat = weights.flatten().tolist()
    keep = max(1, round(len(flat) * (1 - sparsity)))
    order = sorted(range(len(flat)), key=lambda place: -abs(flat[place]))
    mask = torch.zeros(len(flat), dtype=torch.bool)
    for place in order[:keep]:
        mask[place] = True
    return mask.view_as(weights)
"""
    praise = try_out(TASKS["magnitude_mask"], function("magnitude_mask", code))
    assert praise.startswith("✓ magnitude_mask: right in 4 of 4 checks. It is slow")


def test_a_check_finds_the_function_where_it_is_called(capsys):
    space = {"check": check, "torch": torch}
    with pytest.raises(NotYet, match="no function of this name yet"):
        exec("check('ticket')", space)
    exec("ticket = 3", space)
    with pytest.raises(NotYet, match="ticket is a int, not a function"):
        exec("check('ticket')", space)
    exec(RIGHT["ticket"] + "\ncheck('ticket')", space)
    assert capsys.readouterr().out == "✓ ticket: right in 2 of 2 checks\n"
    with pytest.raises(NotYet, match="There is no task 'tickets'. The tasks of the course are magnitude_mask,"):
        exec("check('tickets')", space)


def test_a_debugger_that_was_there_is_there_afterwards():
    import sys

    before, mine = sys.gettrace(), lambda frame, event, arg: None
    sys.settrace(mine)
    try:
        try_out(TASKS["ticket"], function("ticket", RIGHT["ticket"]))
        assert sys.gettrace() is mine
    finally:
        sys.settrace(before)
