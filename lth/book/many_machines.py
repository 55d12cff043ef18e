"""The page "On many machines": the prose of book/many_machines.md, and what the papers' settings cost.

How much is trained is counted (`lth.book.cost`), how fast a machine is was measured (`make bench`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lth.book import CHAPTERS, cost
from lth.book.figures import Table
from lth.book.presets import parameters
from lth.book.text import escape
from lth.data.official import SETS

MARK = "% what it costs\n"
MACHINES = (1, 8, 64)
HOUR, DAY, YEAR = 3600.0, 86_400.0, 365.25 * 86_400.0


def write(source: Path) -> None:
    """Puts the tables, one for each machine that was measured, into the page of a staged source tree."""
    page, folder = source / "book" / "many_machines.md", source / "book" / "benchmarks"
    machines = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))}
    parts = [
        "Counted from what the chapters train with the preset `paper`, at the speeds of {doc}`speed`; measuring comes "
        "on top."
    ]
    if "cuda" not in {machine["kind"] for machine in machines.values()}:
        parts[0] += " **No GPU has been measured yet**: after `make bench` on one, its table stands here, too."
    for name, machine in machines.items():
        about = escape(machine["device"])
        caption = (
            f"Time of all trainings of a chapter on 1, 8 and 64 machines like this one: {about}. It never takes less "
            "than its longest chain of trainings, each of which begins where the one before it ended; more machines "
            "than the column *useful* says gain nothing."
        )
        parts.append(Table(table(machine), caption, f"machines-{name}")._repr_markdown_())
    page.write_text(page.read_text(encoding="utf-8").replace(MARK, "\n\n".join(parts) + "\n"), encoding="utf-8")


def table(machine: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each chapter at the papers' settings, on machines like one that was measured.

    Networks that were not measured there are left out, and named.
    """
    rows = []
    for chapter in CHAPTERS:
        settings = parameters(chapter, "paper")
        examples, precision = SETS[settings.dataset].train, getattr(settings, "precision", "fp32")
        many, alone = speeds(machine, precision)
        work = cost.images(settings, examples)
        model, trainings, images = cost.longest(settings, examples)
        missing = sorted(work.keys() - many.keys())
        whole = sum(count / many[name] for name, count in work.items() if name in many)
        chain = images / alone[model] if model in alone else math.nan
        over = "over " * bool(missing)
        row = {"chapter": chapter, "longest chain": f"{trainings} trainings, {span(chain)}"}
        row |= {f"on {count}": over + span(max(whole / count, chain)) for count in MACHINES}
        row["useful"] = over + (f"{math.ceil(whole / chain):,}" if math.isfinite(chain) else "?")
        rows.append(row | {"without": ", ".join(missing) or "–"})
    found = pd.DataFrame(rows)
    return found if (found["without"] != "–").any() else found.drop(columns="without")


def speeds(machine: Mapping[str, Any], precision: str) -> tuple[dict[str, float], dict[str, float]]:
    """Training images a second by architecture: with as many networks at a time as are fastest, and of one alone."""
    rows = [row for row in machine["rows"] if row["precision"] == precision and "images_per_second" in row]
    many: dict[str, float] = {}
    for row in rows:
        many[row["model"]] = max(many.get(row["model"], 0.0), row["images_per_second"])
    return many, {row["model"]: row["images_per_second"] for row in rows if row["replicas"] == 1}


def span(seconds: float) -> str:
    """«40 min», «7 h», «12 days», «3.1 years»; ? where it is not known."""
    if not math.isfinite(seconds):
        return "?"
    for unit, name in ((YEAR, "years"), (DAY, "days"), (HOUR, "h")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.2g} {name}" if seconds < 10 * unit else f"{seconds / unit:,.0f} {name}"
    return f"{max(seconds / 60, 1):.0f} min"
