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
    path: str | Path, statement: str, unit: str, least: float = -math.inf, most: float = math.inf
) -> dict[str, Any]:
    """Writes down what you claim, of which unit, and from where to where the mean has to lie for you to be right.

    Raises NotYet where something is missing, or where this file already holds another claim.
    """
    path = Path(path)
    if not statement.strip() or not unit.strip():
        raise NotYet("A claim is a sentence, and it counts something: give `statement` and `unit`.")
    if not least < most or (math.isinf(least) and math.isinf(most)):
        raise NotYet("A claim that nothing could contradict is none: give `least` or `most`, or both, in this order.")
    new = {"statement": statement, "unit": unit, "least": _told(least), "most": _told(most)}
    if path.exists():
        old = _read(path)
        if {name: old.get(name) for name in new} != new:
            raise NotYet(
                f"{path.name} holds a claim that was fixed on {old['fixed']}. What is fixed stays as it is; another "
                "claim gets a file of another name."
            )
        return old
    claim = new | {"fixed": _now()}
    write_text(path, json.dumps(claim, indent=1))
    return claim


def begin(path: str | Path) -> dict[str, Any]:
    """To be called where the run begins: notes when, the first time. NotYet where no claim was fixed before."""
    path = Path(path)
    if not path.exists():
        raise NotYet(f"No claim is fixed in {Path(path).name}: write it down before you run anything (`fix`).")
    claim = _read(path)
    if "begun" not in claim:
        claim["begun"] = _now()
        write_text(path, json.dumps(claim, indent=1))
    return claim


def in_time(path: str | Path) -> str:
    """One line if the claim is older than its run; NotYet otherwise."""
    claim = begin(path) if not Path(path).exists() else _read(Path(path))
    if "begun" not in claim:
        raise NotYet("Your claim is fixed, and nothing was run yet.")
    if not claim["fixed"] < claim["begun"]:
        raise NotYet(
            f"Your claim is dated {claim['fixed']}, after its run began ({claim['begun']}): it predicts nothing."
        )
    return f"✓ claim: fixed {claim['fixed']}, run begun {claim['begun']}"


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
