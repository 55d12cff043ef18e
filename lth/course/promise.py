"""A claim of one's own: fixed in writing before the run, dated, and not to be changed afterwards."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lth.course.check import NotYet
from lth.files import write_text


def fix(
    path: str | Path, statement: str = "", unit: str = "", least: float = -math.inf, most: float = math.inf
) -> dict[str, Any]:
    """Writes down what you claim, of which unit, and from where to where the mean has to lie for you to be right.

    Raises NotYet where something is missing or of another kind, or where this file already holds another claim.
    """
    path = Path(path)
    if not all(isinstance(words, str) and words.strip() for words in (statement, unit)):
        raise NotYet("A claim is a sentence, and it counts something: give `statement` and `unit`, in words.")
    if not all(isinstance(limit, (int, float)) and limit == limit for limit in (least, most)):
        raise NotYet("`least` and `most` are numbers, such as 2.0, without quotes.")
    if math.isinf(least) and math.isinf(most):
        raise NotYet("A claim that nothing could contradict is none: give `least` or `most`, or both.")
    if not least < most:
        raise NotYet(f"No mean lies above {least:g} and below {most:g}: `least` is the lower limit.")
    if not path.resolve().parent.is_dir():
        raise NotYet(f"There is no folder {path.parent}: give the name of a file beside your notebook.")
    new = {"statement": statement, "unit": unit, "least": _told(least), "most": _told(most)}
    if path.exists():
        old = _read(path)
        if _content(old) != new:
            raise NotYet(
                f"{path.name} holds a claim that was fixed on {old['fixed']}. What is fixed stays as it is; another "
                "claim gets a file of another name, and a run of its own."
            )
        return old
    claim = new | {"fixed": _now()}
    write_text(path, json.dumps(claim, indent=1))
    return claim


def begin(path: str | Path) -> dict[str, Any]:
    """To be called where the run begins: notes when, and of which claim, the first time. NotYet if none was fixed."""
    path = Path(path)
    if not path.exists():
        raise NotYet(f"No claim is fixed in {path.name}: write it down before you run anything (`fix`).")
    claim = _read(path)
    if "begun" not in claim:
        claim |= {"begun": _now(), "was": _content(claim)}
        write_text(path, json.dumps(claim, indent=1))
    return claim


def judged(path: str | Path) -> tuple[dict[str, Any], float, float]:
    """The claim with its two limits, once it was run; NotYet unless it is older than its run and what it was then.

    Whoever writes into the file by hand can deceive it: a date is worth what its owner is.
    """
    path = Path(path)
    claim = _read(path) if path.exists() else begin(path)
    if "begun" not in claim:
        raise NotYet("Your claim is fixed, and nothing was run yet: run the cell that begins with `promise.begin`.")
    if not claim["fixed"] < claim["begun"]:
        raise NotYet(
            f"Your claim is dated {claim['fixed']}, after its run began ({claim['begun']}): it predicts nothing."
        )
    if claim.get("was") != _content(claim):
        raise NotYet(f"{path.name} was changed after its run began: what you claimed then was {claim.get('was')}.")
    least, most = claim["least"], claim["most"]
    return claim, -math.inf if least is None else least, math.inf if most is None else most


def in_time(path: str | Path) -> str:
    """One line if the claim is older than its run, and the same; NotYet otherwise."""
    claim, *_ = judged(path)
    return f"✓ claim: fixed {claim['fixed']}, run begun {claim['begun']}"


def _content(claim: dict[str, Any]) -> dict[str, Any]:
    return {name: claim.get(name) for name in ("statement", "unit", "least", "most")}


def _read(path: Path) -> dict[str, Any]:
    try:
        claim = json.loads(path.read_text(encoding="utf-8"))
        return claim | {"fixed": claim["fixed"]}
    except (ValueError, KeyError, TypeError) as error:
        raise NotYet(f"{path.name} is not a claim that `fix` wrote: give another name.") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _told(limit: float) -> float | None:
    return None if math.isinf(limit) else limit
