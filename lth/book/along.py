"""The site of an edition that is being computed: there from the beginning, each chapter in its place once done."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from lth.book import CHAPTERS
from lth.book.site import build
from lth.book.verdicts import PUBLISHED
from lth.errors import Stopped

LEAST = 10.0  # times as long as it takes: it is built no more often


class Along:
    """Builds the site of `edition` in the folder `out` beside the chapters that are executed.

    As a context it waits for what is still being built; where the run was stopped it stops that, too, and the older
    site stays.
    """

    def __init__(self, edition: Path, out: Path) -> None:
        self.edition, self.out = edition, out
        self.building: subprocess.Popen[bytes] | None = None
        self.begun, self.took = -math.inf, 0.0  # when it was last begun, and seconds that the first one took

    def begin(self) -> Path:
        """Builds it with the published edition where chapters are not executed yet; returns the path of its index."""
        some = any((self.edition / chapter).is_dir() for chapter in CHAPTERS)
        begun = time.monotonic()
        index = build(self.edition if some else PUBLISHED, self.out)
        self.took = time.monotonic() - begun
        return index

    def again(self) -> None:
        """Builds it again in the background, unless it was just built: the next one then has both chapters."""
        enough = time.monotonic() - self.begun >= LEAST * self.took
        if enough and (self.building is None or self.building.poll() is not None):
            self.begun = time.monotonic()
            words = ["book", "--edition", self.edition, "--out", self.out]
            program = [sys.executable, "-m", "lth.book.cli", *words]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            self.building = subprocess.Popen(program, start_new_session=True, **quiet)

    def end(self) -> Path:
        """Builds it for the last time, and tells what went wrong."""
        if self.building is not None:
            self.building.wait()
        return build(self.edition, self.out)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failure: type[BaseException] | None, *told: object) -> None:
        if self.building is not None:
            if failure in (Stopped, KeyboardInterrupt):
                with suppress(ProcessLookupError):  # it has ended
                    os.killpg(self.building.pid, signal.SIGINT)
            self.building.wait()
