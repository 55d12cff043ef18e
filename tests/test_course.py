"""The course's checks: each takes a right answer, catches typical wrong ones, and says so in words for a learner."""

# ruff: noqa: E501 - a wrong answer is one line of a table

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch

from lth.course import check as checks
from lth.course.check import NotYet, check, try_out
from lth.files import ROOT

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
    return (weights - lr * velocity) * mask, velocity
""",
    "ticket": """
def ticket(initial, trained, masks):
    return {name: w * masks[name] if name in masks else w.clone() for name, w in initial.items()}
""",
    "line": "def line(start, end, alpha):\n    return (1 - alpha) * start + alpha * end\n",
    "barrier": """
def barrier(alphas, errors):
    chord = [(1 - a) * errors[0] + a * errors[-1] for a in alphas]
    return max(e - c for e, c in zip(errors, chord))
""",
    "distance": "def distance(a, b):\n    return (a - b).square().sum().sqrt()\n",
    "forward_std": """
def forward_std(mask):
    fan_in = mask.sum(1, keepdim=True).clamp(min=1)
    return mask / fan_in.sqrt()
""",
    "backward_std": """
def backward_std(mask):
    fan_out = mask.sum(0, keepdim=True).clamp(min=1)
    return mask / fan_out.sqrt()
""",
    "signal_left": "def signal_left(sparsity, layers):\n    return (1 - sparsity) ** (layers / 2)\n",
    "drop": """
def drop(weights, mask, count):
    size = weights.abs().masked_fill(~mask, math.inf).flatten()
    new = mask.flatten().clone()
    new[size.argsort(stable=True)[:count]] = False
    return new.view_as(mask)
""",
    "grow": """
def grow(mask, gradient, count):
    wanted = gradient.abs().masked_fill(mask, -1).flatten()
    new = mask.flatten().clone()
    new[wanted.argsort(descending=True, stable=True)[:count]] = True
    return new.view_as(mask)
""",
    "update": """
def update(weights, mask, gradient, fraction):
    count = int(fraction * int(mask.sum()))
    size = weights.abs().masked_fill(~mask, math.inf).flatten()
    left = mask.flatten().clone()
    left[size.argsort(stable=True)[:count]] = False
    wanted = gradient.abs().flatten().masked_fill(left, -1)
    left[wanted.argsort(descending=True, stable=True)[:count]] = True
    new = left.view_as(mask)
    return weights * new, new
""",
    "my_rule": """
def my_rule(weights, mask, gradient, fraction):
    count = int(fraction * int(mask.sum()))
    gone = weights.abs().masked_fill(~mask, math.inf).flatten().argsort()[:count]
    absent = (~mask).flatten().nonzero()[:, 0]
    new = mask.flatten().clone()
    new[gone] = False
    new[absent[:count]] = True
    new[gone[: max(0, count - len(absent))]] = True
    return new.view_as(mask)
""",
    "angular_distance": """
def angular_distance(a, b):
    cosine = (a @ b / (a.norm() * b.norm())).clamp(-1, 1)
    return 2 / math.pi * cosine.acos()
""",
    "penalty": """
def penalty(theta, optima):
    if not optima:
        return torch.zeros(())
    cosines = [theta @ o / (theta.norm() * o.norm()) for o in optima]
    return torch.stack(cosines).square().mean()
""",
    "to_forbid": "def to_forbid(solutions):\n    return solutions[-2:]\n",
    "t_interval": """
def t_interval(values):
    n = len(values)
    mean = sum(values) / n
    spread = (sum((v - mean) ** 2 for v in values) / (n - 1)) ** 0.5
    half = stats.t.ppf(0.975, n - 1) * spread / n**0.5
    return mean - half, mean + half
""",
    "verdict": """
def verdict(low, high, least, most):
    if least < low and high < most:
        return "confirmed"
    return "contradicted" if high <= least or low >= most else "open"
""",
    "may_go": """
def may_go(curvatures, distance, epsilon):
    return (1 / (1 + distance**2 * curvatures / (2 * epsilon))).mean()
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
    ("masked_step", """
def masked_step(weights, gradient, velocity, mask, lr, momentum):
    velocity = momentum * velocity + gradient
    return weights - lr * velocity, velocity
""", "not zero any more"),
    ("masked_step", """
def masked_step(weights, gradient, velocity, mask, lr, momentum):
    velocity = momentum * velocity + gradient * mask
    return weights - lr * velocity, velocity
""", "gathered before"),
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
    ("masked_step", ("(weights - lr * velocity) * mask, velocity", "(weights - lr * velocity) * mask"), "two tensors"),
    ("ticket", ("in initial.items()", "in trained.items()"), "trained weights under the mask"),
    ("ticket", ("w * masks[name] if name in masks else w.clone() for name, w in initial.items()",
                "initial[name] * mask for name, mask in masks.items()"), "no fc1.bias"),
    ("ticket", ("w * masks[name] if name in masks else w.clone()", "w.clone()"), "not zero"),
    ("ticket", ("else w.clone()", "else trained[name]"), "bias is not the first"),
    ("ticket", ("else w.clone()", "else w"), "very tensor"),
    ("ticket", ("w * masks[name]", "w * masks[name] * (1 + 1e-3)"), "bit for bit"),
    ("line", ("(1 - alpha) * start + alpha * end", "alpha * start + (1 - alpha) * end"), "runs backwards"),
    ("line", ("(1 - alpha) * start + alpha * end", "(1 - alpha) ** 2 * start + alpha * end"), "neither is squared"),
    ("line", ("(1 - alpha) * start", "start"), "α = 1 not the end"),
    ("line", ("return", "alpha = min(max(alpha, 0), 1); return"), "beyond its ends"),
    ("barrier", ("return max(e - c for e, c in zip(errors, chord))", "return max(errors) - errors[0]"), "go evenly from 2 to 10"),
    ("barrier", ("return max(e - c for e, c in zip(errors, chord))", "return max(errors) - (errors[0] + errors[-1]) / 2"), "go evenly from 2 to 10"),
    ("barrier", ("return max(e - c for e, c in zip(errors, chord))", "return max(errors) - max(errors[0], errors[-1])"), "bump of height"),
    ("barrier", ("max(e - c for", "max(abs(e - c) for"), "sags below"),
    ("barrier", ("max(e - c for", "sum(e - c for"), "bump of height"),
    ("barrier", ("for a in alphas]", "for a in np.linspace(0, 1, len(alphas))]"), "not evenly spaced"),
    ("distance", (".sqrt()", ""), "25"),
    ("distance", (".sum()", ".mean()"), "Pythagoras"),
    ("distance", ("(a - b).square().sum().sqrt()", "(a - b).abs().sum()"), "7"),
    ("distance", ("(a - b).square().sum().sqrt()", "(a - b).norm(dim=1)"), "not a number"),
    ("forward_std", ("mask.sum(1, keepdim=True).clamp(min=1)", "mask.float().mean() * torch.full((len(mask), 1), mask.shape[1])"), "has hubs and loners"),
    ("forward_std", ("mask.sum(1, keepdim=True).clamp(min=1)", "torch.full((len(mask), 1), mask.shape[1])"), "has hubs and loners"),
    ("forward_std", ("fan_in.sqrt()", "fan_in"), "variance or the standard deviation"),
    ("forward_std", ("mask / fan_in", "torch.ones(mask.shape) / fan_in"), "multiply by the mask"),
    ("forward_std", (".clamp(min=1)", ""), "nan or infinity"),
    ("forward_std", ("mask.sum(1", "mask.sum(0"), "along which axis"),
    ("backward_std", ("mask.sum(0", "mask.sum(1"), "along which axis"),
    ("backward_std", ("mask.sum(0, keepdim=True).clamp(min=1)", "mask.float().mean() * torch.full((1, 1), len(mask))"), "has hubs and loners"),
    ("backward_std", (".clamp(min=1)", ""), "nan or infinity"),
    ("backward_std", ("fan_out.sqrt()", "fan_out"), "variance or the standard deviation"),
    ("signal_left", ("(layers / 2)", "layers"), "standard deviation"),
    ("signal_left", ("(layers / 2)", "0.5"), "more than a fifth"),
    ("signal_left", ("(1 - sparsity)", "sparsity"), "dense network"),
    ("signal_left", ("** (layers / 2)", "** 0.5 / layers"), "dense network"),
    ("masked_step", ("(weights - lr * velocity) * mask", "weights - lr * velocity"), "not frozen"),
    ("forward_std", ("mask / fan_in.sqrt()", "mask * 2**0.5 / fan_in.sqrt()"), "the factor 2"),
    ("forward_std", ("mask / fan_in.sqrt()", "(mask / fan_in.sqrt()).bool()"), "is bool"),
    ("drop", ("weights.abs().masked_fill(~mask, math.inf)", "weights.abs()"), "are they in your order"),
    ("drop", (".abs()", ""), "which end"),
    ("drop", ("argsort(stable=True)", "masked_fill(~mask.flatten(), -1).argsort(descending=True)"), "which end"),
    ("drop", """
def drop(weights, mask, count):
    return weights.abs() > weights[mask].abs().sort().values[count - 1] if count else mask.clone()
""", "Ask the mask"),
    ("grow", (".masked_fill(mask, -1)", ""), "not "),
    ("grow", ("gradient.abs()", "gradient"), "a gradient of −2"),
    ("grow", ("descending=True", "descending=False"), "not "),
    ("grow", ("gradient.abs().masked_fill(mask, -1)", "(-gradient.abs()).masked_fill(mask, -math.inf)"), "the largest gradients"),
    ("grow", ("mask.flatten().clone()", "torch.zeros(mask.numel(), dtype=torch.bool)"), "takes weights away"),
    ("update", ("return weights * new, new", "return weights, new"), "keep their values"),
    ("update", ("return weights * new, new", "return weights * new + 0.01 * (new & ~mask), new"), "begin at zero"),
    ("update", ("gradient.abs().flatten().masked_fill(left, -1)", "gradient.abs().flatten()"), "after the update"),
    ("update", ("gradient.abs()", "-gradient.abs()"), "after the update"),
    ("update", ("masked_fill(left, -1)", "masked_fill(mask.flatten(), -1)"), "has"),
    ("update", ("int(fraction * int(mask.sum()))", "int(fraction / 2 * int(mask.sum()))"), "rounded down"),
    ("update", ("return weights * new, new", "return new"), "two tensors"),
    ("update", ("return weights * new, new", "return torch.zeros_like(weights), new"), "weights that stay have changed"),
    ("update", ("int(fraction * int(mask.sum()))", "round(fraction * int(mask.sum()))"), "rounded down"),
    ("grow", ("gradient.abs().masked_fill(mask, -1)", "(gradient.abs() * ~mask)"), "exactly zero"),
    ("drop", ("new[size.argsort(stable=True)[:count]] = False", "new &= size > size.sort().values[count - 1]"), "nothing is to go"),
    ("angular_distance", (".clamp(-1, 1)", ""), "rounding"),
    ("my_rule", ("new[absent[:count]] = True", ""), "by your rule"),
    ("my_rule", ("new[gone] = False", ""), "by your rule"),
    ("my_rule", ("int(fraction * int(mask.sum()))", "0"), "moves nothing"),
    ("my_rule", ("int(fraction * int(mask.sum()))", "min(int((~mask).sum()), int(mask.sum()))"), "count what you drop"),
    ("angular_distance", (" / (a.norm() * b.norm())", ""), "how long its legs"),
    ("angular_distance", ("2 / math.pi * cosine.acos()", "1 - cosine"), "the cosine is not the angle"),
    ("angular_distance", ("2 / math.pi * ", ""), "unit is the right angle"),
    ("angular_distance", ("cosine.acos()", "cosine.abs().acos()"), "more than 90°"),
    ("penalty", (".square()", ""), "the square do at 180°"),
    ("penalty", (".square().mean()", ".square().sum()"), "not 0.5"),
    ("penalty", (".square().mean()", ".square().mean().item()"), "cut the graph"),
    ("penalty", (".square().mean()", ".square().mean().detach()"), "cut the graph"),
    ("penalty", ("(theta.norm() *", "(theta.norm().detach() *"), "finite differences"),
    ("penalty", (" / (theta.norm() * o.norm())", " / o.norm()"), "how long its legs are"),
    ("to_forbid", ("[-2:]", "[:2]"), "forbids 0, 1"),
    ("to_forbid", ("[-2:]", "[-1:]"), "forbids 4"),
    ("to_forbid", ("[-2:]", ""), "forbids 0, 1, 2, 3, 4"),
    ("to_forbid", ("solutions[-2:]", "[solutions[-1], solutions[-2]]"), "IndexError"),
    ("t_interval", ("stats.t.ppf(0.975, n - 1)", "1.96"), "far from 1.96"),
    ("t_interval", ("/ (n - 1))", "/ n)"), "n or n − 1"),
    ("t_interval", (" / n**0.5", ""), "spread of a *mean*"),
    ("t_interval", ("0.975", "0.95"), "as wide as SciPy"),
    ("t_interval", ("return mean - half, mean + half", "return half"), "two numbers"),
    ("verdict", ("least < low and high < most", "least < (low + high) / 2 < most"), "across a limit"),
    ("verdict", ("high <= least or low >= most", "True"), "across a limit"),
    ("verdict", (" and high < most", ""), "give 'confirmed'"),
    ("verdict", ("high <= least or low >= most", "high <= least"), "two ends"),
    ("verdict", ('"open"', 'None'), "returns nothing"),
    ("may_go", (".mean()", ".sum()"), "not a sum"),
    ("may_go", ("distance**2", "distance"), "r²"),
    ("may_go", ("curvatures / (2 * epsilon)", "curvatures.mean() / (2 * epsilon) + 0 * curvatures"), "sharp direction"),
    ("may_go", """
def may_go(curvatures, distance, epsilon):
    squares = 2 * epsilon / curvatures
    return (squares / (distance**2 + squares)).mean()
""", "has no end"),
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


def test_the_guide_shows_what_a_check_says():
    with pytest.raises(NotYet) as caught:
        try_out(TASKS["barrier"], function("barrier", RIGHT["barrier"].replace("max(e - c for", "max(abs(e - c) for")))
    assert f"```text\n{caught.value}\n```" in (ROOT / "book" / "course" / "guide.md").read_text(encoding="utf-8")


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
