"""What `lth run` shows of a chapter while it runs."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any


class Bar:
    """Progress of a chapter: a bar over its cells on a terminal, plain lines elsewhere.

    While a network trains, at most one line every ten seconds.
    """

    def __enter__(self) -> Bar:
        self.rich = None
        self.training: tuple[Any, float, float] | None = None  # which, and step and time when it was first seen
        self.step = 0.0  # the one seen last
        self.section, self.cell, self.cells, self.said = "", 0, 0, 0.0
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            title, now = (TextColumn(f"{{task.{what}}}", markup=False) for what in ("description", "fields[now]"))
            columns = (title, BarColumn(20), now, TimeElapsedColumn())
            self.rich = Progress(*columns, console=Console(stderr=True), transient=True)
            self.rich.start()
            self.task = self.rich.add_task("starting", total=None, now="")
        return self

    def __exit__(self, *exception: object) -> None:
        if self.rich:
            self.rich.stop()

    def __call__(self, chapter: str, progress: Mapping[str, Any]) -> None:
        if "section" in progress:
            now = (progress["section"], progress["cell"], progress["cells"])
            if now != (self.section, self.cell, self.cells):
                self.section, self.cell, self.cells = now
                self._show(chapter, self.section, 0.0, always=True)
            return
        step, steps, now = progress["step"], progress["steps"], time.monotonic()
        which = (progress["replicas"], steps)
        new = self.training is None or self.training[0] != which or step < self.step
        if new:  # the next round of a ladder is as long as the last one, but begins at its start
            self.training = (which, step, now)
        self.step = step
        words = [f"training {progress['replicas']} replicas: step {step:.0f}/{steps}"]
        if progress.get("where"):
            words.append(progress["where"])
        if progress["accuracy"] == progress["accuracy"]:  # not a number before the first hundred steps
            words.append(f"accuracy {progress['accuracy']:.3f}")
        done, spent = step - self.training[1], now - self.training[2]
        if done > 0 and spent > 2:
            words.append(duration((steps - step) * spent / done) + " left")
        self._show(chapter, ", ".join(words), step / steps, always=new)

    def _show(self, chapter: str, text: str, share: float, always: bool) -> None:
        """`share` of the cell that runs is done."""
        title = f"{chapter}, cell {self.cell} of {self.cells}" if self.cells else chapter
        if self.rich:
            done = max(self.cell - 1, 0) + share
            self.rich.update(self.task, description=title, total=self.cells or None, completed=done, now=text)
        elif always or time.monotonic() - self.said > 10:
            self.said = time.monotonic()
            print(f"{title}: {text}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """«40 s», «12 min», «3.5 h»; ? where it is not known."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
