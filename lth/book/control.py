"""How the runner and the notebook that it executes talk: a folder, named by LTH_CONTROL, with two files.

`progress.json` is written by the notebook while it trains; `stop` is made by the runner when the notebook
shall stop, and reaches it as a KeyboardInterrupt, so that training writes its checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from tqdm import tqdm

from lth.training.plan import Progress


def folder() -> Path | None:
    """The control folder, or None where a reader runs the notebook by hand."""
    return Path(os.environ["LTH_CONTROL"]) if "LTH_CONTROL" in os.environ else None


def obey_stop() -> None:
    """From now on, turn the runner's `stop` into a KeyboardInterrupt."""
    control = folder()
    if control is None:
        return

    def listen() -> None:
        while not (control / "stop").exists():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=listen, daemon=True).start()


def step_back() -> None:
    """Lets everybody else's work go first, where LTH_NICE says so (19: the most).

    A kernel is a session of its own, and Linux shares cores fairly among sessions, whatever the niceness of processes
    in them: the session's own niceness counts, too.
    """
    if nice := int(os.environ.get("LTH_NICE") or 0):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, nice)
        with contextlib.suppress(OSError):  # no Linux, or one without groups
            Path("/proc/self/autogroup").write_text(str(nice), encoding="utf-8")


class Reporter:
    """A watcher for one training run: tells the runner, or draws a bar where there is none."""

    def __init__(self) -> None:
        self.control = folder()
        self.told = 0.0
        self.bar: tqdm | None = None

    def __call__(self, progress: Progress) -> None:
        if self.control is None:
            self.bar = self.bar or tqdm(total=progress.steps, unit="step", file=sys.stdout)
            known = progress.accuracy == progress.accuracy  # not a number before the first hundred steps
            accuracy = f", accuracy {progress.accuracy:.3f}" if known else ""
            where = f" ({progress.where})" if progress.where else ""
            self.bar.set_description(f"{progress.replicas} replicas{where}{accuracy}")
            self.bar.update(int(progress.step) - self.bar.n)
        elif time.monotonic() - self.told > 0.5:
            self.told = time.monotonic()
            partial = self.control / f"progress.{threading.get_ident()}.partial"
            partial.write_text(json.dumps(vars(progress)), encoding="utf-8")
            partial.replace(self.control / "progress.json")
