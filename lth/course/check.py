"""Checks of what a learner wrote: they say what is wrong and where to look, and never how it is done.

    from lth.course.check import check
    check("magnitude_mask")

looks for the function of that name in the notebook it is called from, and tries it on small cases, each of which some
wrong answer fails. Whatever happens in the learner's function comes back as one `NotYet`, which a notebook shows as
words without a traceback, and nbgrader counts as a failed test.
"""

from __future__ import annotations

import linecache
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor

SESSIONS = range(1, 7)
STEPS = 200_000  # of Python that one call may take: enough for any small case, too few for a loop over a large layer


class NotYet(AssertionError):
    """What is not right yet, in words for the learner."""

    def _render_traceback_(self) -> list[str]:  # IPython shows these lines in the place of a traceback
        return str(self).splitlines()


class Endless(Exception):
    """A call took more than `STEPS` steps."""


Case = Callable[["Attempt", torch.Generator], None]


@dataclass(frozen=True)
class Task:
    """What a learner is to write, and how it is tried.

    call:  how the function is called, «line(start, end, alpha)».
    cases: tried in order, the first that fails is told. Each takes the learner's function and random numbers.
    large: a call on something so large that a loop over its elements is slow; a right answer may still be slow.
    """

    call: str
    cases: Sequence[Case]
    large: Callable[[Attempt, torch.Generator], object] | None = None

    @property
    def name(self) -> str:
        return self.call.partition("(")[0]


def tasks() -> dict[str, Task]:
    """Every task of the course by name, session by session."""
    modules = [import_module(f"lth.course.session_{number}") for number in SESSIONS]
    return {task.name: task for module in modules for task in module.TASKS}


def check(name: str, seed: int = 0) -> None:
    """Tries the function `name` of the notebook that calls this. Raises NotYet with what is wrong, or says that it is
    right. `seed` chooses the random numbers of the cases."""
    known = tasks()
    if name not in known:
        raise NotYet(f"There is no task {name!r}. The tasks of the course are {', '.join(known)}.")
    print(try_out(known[name], sys._getframe(1).f_globals.get(name), seed))


def try_out(task: Task, function: object, seed: int = 0) -> str:
    """One line of praise for a right answer, with a remark where it is slow; NotYet for any other."""
    if function is None:
        raise NotYet(
            f"{task.name}: there is no function of this name yet. Write `def {task.call}:` in the cell above and run "
            "that cell first; after a restart of the notebook all cells above have to be run again."
        )
    if not callable(function):
        raise NotYet(f"{task.name} is a {type(function).__name__}, not a function: has a later line taken its name?")
    attempt = Attempt(task, function)
    for number, case in enumerate(task.cases, start=1):
        try:
            case(attempt, torch.Generator().manual_seed(1000 * seed + number))
        except NotYet as error:
            raise NotYet(f"✗ {task.name}, check {number} of {len(task.cases)}: {error}") from None
        except Endless:
            raise NotYet(
                f"✗ {task.name}, check {number} of {len(task.cases)}: it does not come to an end, and was stopped. "
                "Look at the condition of your loop."
            ) from None
        except Exception as error:  # what was returned is of a kind that no case thought of
            raise NotYet(
                f"✗ {task.name}, check {number} of {len(task.cases)}: what it returns cannot be compared "
                f"({type(error).__name__}: {first_line(error)}). Look at the kind of result that the task asks for."
            ) from None
    praise = f"✓ {task.name}: right in {len(task.cases)} of {len(task.cases)} checks"
    if task.large:
        try:
            task.large(attempt, torch.Generator().manual_seed(seed))
        except (Endless, NotYet):
            praise += (
                ". It is slow, though: on a large layer it goes through the weights one by one. Is there an operation "
                "that does all of them at once?"
            )
    return praise


class Attempt:
    """The learner's function: called with copies, watched, and what it raises told in words."""

    def __init__(self, task: Task, function: Callable[..., Any]) -> None:
        self.task, self.function = task, function

    def __call__(self, *args: Any) -> Any:
        names = [name.strip() for name in self.task.call.partition("(")[2].rstrip(")").split(",")]
        given = [copied(value) for value in args]
        try:
            with counted(self.function):
                result = self.function(*given)
        except (Endless, KeyboardInterrupt):
            raise
        except NotImplementedError:
            raise NotYet("nothing is written here yet: your code replaces `raise NotImplementedError()`.") from None
        except Exception as error:
            raise NotYet(told(error, self.task)) from None
        for name, value, after in zip(names, args, given, strict=False):
            if not same(value, after):
                raise NotYet(
                    f"it changes its argument `{name}`, which whoever called it still needs. Look for operations that "
                    "work in place (`mul_`, `x[…] = …`, `-=`), and work on a copy."
                )
        if result is None:
            raise NotYet("it returns nothing. Does every way through the function end with `return`?")
        return result

    def tensor(self, *args: Any, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The result, once it is a tensor of the shape of `like` (and of a type) without nan."""
        return tensor(self(*args), like, dtype)

    def number(self, *args: Any) -> float:
        """The result as a number; a tensor of one element is one."""
        return number(self(*args))


def expect(right: bool | Tensor, wrong: str, look: str) -> None:
    """NotYet unless `right`: what is wrong, and where to look."""
    if not bool(right):
        raise NotYet(f"{wrong}\n  Where to look: {look}")


def tensor(result: object, like: Tensor, dtype: torch.dtype | None = None, what: str = "the result") -> Tensor:
    expect(isinstance(result, Tensor), f"{what} is a {type(result).__name__}, not a tensor.", "what is returned?")
    shapes = tuple(result.shape), tuple(like.shape)
    expect(shapes[0] == shapes[1], f"{what} has the shape {shapes[0]}, not {shapes[1]}.", "is anything flattened?")
    if dtype is not None and result.dtype != dtype:
        expect(False, f"{what} holds {result.dtype}, not {dtype}.", "a comparison such as `a > b` gives bool.")
    expect(not result.isnan().any(), f"{what} has nan in it.", "what is divided by zero, and what should be there?")
    return result.detach()


def number(result: object) -> float:
    if isinstance(result, Tensor) and result.numel() == 1:
        result = result.item()
    right = isinstance(result, (int, float)) or hasattr(result, "__float__")
    right &= not isinstance(result, Tensor)
    expect(right, f"the result is a {type(result).__name__}, not a number.", "what is returned?")
    expect(math.isfinite(float(result)), f"the result is {float(result)}, not a finite number.", "divided by zero?")
    return float(result)


def close(a: object, b: object, tolerance: float = 1e-5) -> bool:
    """Whether numbers or tensors are equal up to rounding."""
    a, b = (torch.as_tensor(x, dtype=torch.float64) for x in (a, b))
    return bool(torch.allclose(a, b, rtol=tolerance, atol=tolerance))


def copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, Mapping):
        return {name: copied(part) for name, part in value.items()}
    return [copied(part) for part in value] if isinstance(value, (list, tuple)) else value


def same(a: Any, b: Any) -> bool:
    """Whether a copy is still what it was copied from, to the bit."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a is b or bool(a == b)


@contextmanager
def counted(function: Callable[..., Any]) -> Iterator[None]:
    """Raises Endless once the learner's own code has taken `STEPS` steps of the interpreter: the same on a fast machine
    and a slow one, which a limit in seconds would not be."""
    space, left = getattr(function, "__globals__", None), STEPS

    def step(frame: FrameType, event: str, arg: object) -> Callable:
        nonlocal left
        left -= 1
        if left < 0:
            raise Endless
        return step

    def enter(frame: FrameType, event: str, arg: object) -> Callable | None:
        if frame.f_globals is not space:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return step

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(before)


def told(error: Exception, task: Task) -> str:
    """The learner's error with the learner's line, without a frame of ours."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    name = f"{type(error).__name__}: {first_line(error)}"
    if not frames:
        return f"it cannot be called as {task.call} ({name})"
    own = frames[0]  # the learner's function, or what it calls in turn
    code = (own.line or linecache.getline(own.filename, own.lineno or 0)).strip()
    return f"it stops with {name}" + (f"\n  in line {own.lineno}: {code}" if code else "")


def unwritten(
    shell: Any, kind: type, error: NotImplementedError, trace: TracebackType, tb_offset: object = None
) -> None:
    """Shows a cell that needs an unwritten one in a sentence; the cell has failed all the same.

    An unwritten cell raises without a word; an error that has words of its own is shown as ever.
    """
    name = traceback.extract_tb(trace)[-1].name
    told = f"`{name}` is not written yet, and is needed here. Write it above, run its cell, then this one."
    if name == "<module>":
        told = "This cell is not written yet: your code replaces `raise NotImplementedError()`."
    if not str(error):
        error._render_traceback_ = lambda: [told]  # type: ignore[attr-defined]
    shell.showtraceback((kind, error, trace))


if "IPython" in sys.modules and (notebook := sys.modules["IPython"].get_ipython()):
    notebook.set_custom_exc((NotImplementedError,), unwritten)


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no reason given"])[0]
