"""What `lth run` shows of a chapter while it runs."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class _Standing:
    """Where a chapter stands, as it was seen last."""

    task: Any  # its bar
    section: str = ""
    cell: int = 0
    cells: int = 0
    training: tuple[Any, float, float] | None = None  # which, and step and time when it was first seen
    step: float = 0.0
    said: float = 0.0  # when a line was last printed


class Bar:
    """Progress of chapters, one after another or several at a time: bars over their cells, or plain lines.

    Bars are for a terminal. While a network trains, at most one line every ten seconds.
    """

    def __enter__(self) -> Bar:
        self.rich = None
        self.chapters: dict[str, _Standing] = {}
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            title, now = (TextColumn(f"{{task.{what}}}", markup=False) for what in ("description", "fields[now]"))
            columns = (title, BarColumn(20), now, TimeElapsedColumn())
            how = {"transient": True, "redirect_stdout": sys.stdout.isatty()}  # else what is printed goes to a file
            self.rich = Progress(*columns, console=Console(stderr=True), **how)
            self.rich.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.rich:
            self.rich.stop()

    def end(self, *chapters: str) -> None:
        """These are shown no longer."""
        for chapter in chapters:
            here = self.chapters.pop(chapter, None)
            if self.rich and here:
                self.rich.remove_task(here.task)

    def __call__(self, chapter: str, progress: Mapping[str, Any]) -> None:
        if chapter not in self.chapters:
            self.chapters[chapter] = _Standing(self.rich and self.rich.add_task(chapter, total=None, now="starting"))
        here = self.chapters[chapter]
        if "section" in progress:
            now = (progress["section"], progress["cell"], progress["cells"])
            if now != (here.section, here.cell, here.cells):
                here.section, here.cell, here.cells = now
                self._show(chapter, here.section, 0.0, always=True)
            return
        step, steps, now = progress["step"], progress["steps"], time.monotonic()
        which = (progress["replicas"], steps)
        new = here.training is None or here.training[0] != which or step < here.step
        if new:  # the next round of a ladder is as long as the last one, but begins at its start
            here.training = (which, step, now)
        here.step = step
        words = [f"training {progress['replicas']} replicas: step {step:.0f}/{steps}"]
        if progress.get("where"):
            words.append(progress["where"])
        if progress["accuracy"] == progress["accuracy"]:  # not a number before the first hundred steps
            words.append(f"accuracy {progress['accuracy']:.3f}")
        done, spent = step - here.training[1], now - here.training[2]
        if done > 0 and spent > 2:
            words.append(duration((steps - step) * spent / done) + " left")
        self._show(chapter, ", ".join(words), step / steps, always=new)

    def _show(self, chapter: str, text: str, share: float, always: bool) -> None:
        """`share` of the cell that runs is done."""
        here = self.chapters[chapter]
        title = f"{chapter}, cell {here.cell} of {here.cells}" if here.cells else chapter
        if self.rich:
            done = max(here.cell - 1, 0) + share
            self.rich.update(here.task, description=title, total=here.cells or None, completed=done, now=text)
        elif always or time.monotonic() - here.said > 10:
            here.said = time.monotonic()
            print(f"{title}: {text}\n", end="", file=sys.stderr, flush=True)  # in one piece: others write there, too


def duration(seconds: float) -> str:
    """«40 s», «12 min», «3.5 h»; ? where it is not known."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
