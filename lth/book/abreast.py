"""Several chapters at a time, each a process with its share of the cores.

A chapter by itself leaves cores idle: while the last networks of a group train, while its notebook starts and draws.
Several fill them. On a GPU, and on a cluster, chapters follow one another: there a single one takes what there is.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from lth import distributed
from lth.book.runner import asked_to_stop
from lth.errors import LthError, Stopped

# those first that are long, or waited for, so that none is left over at the end (as measured under `quick`)
ORDER = ("rti_repulsion", "gradient_flow", "tweaks", "dst_updates", "lcs_geometry", "lt_basin")
SHARES = {"dst_updates": "gradient_flow"}  # has networks that the other one trains, and waits for them
Execute = Callable[..., Path]  # execute(chapter, threads=…, stop=…)


def at_a_time(chapters: int, device: str, on: str) -> int:
    """How many chapters are executed at a time: one on a GPU, on a cluster and by torchrun.

    On processors as many as there are cores, two cores each where there are four or more: a chapter uses two well.
    """
    if chapters < 2 or on or device == "cuda" or distributed.size() > 1:
        return 1
    from lth.book.chapter import choose_device
    from lth.parallel import cores

    if choose_device(device).type != "cpu":
        return 1
    return min(chapters, cores() if cores() < 4 else cores() // 2)


def execute_all(chapters: list[str], count: int, execute: Execute) -> Iterator[tuple[str, Path, float]]:
    """Executes the chapters, `count` at a time; yields each as it is done, with its folder and its seconds.

    execute(chapter, threads=…, stop=…) does one; `lth.book.runner.execute` tells what these are.

    Where one fails, no other begins, those that run are awaited, and then LthError tells what failed; a failure that is
    waited for is told on stderr at once. Where they are stopped, Stopped tells what is left of each.
    """
    count = min(count, max(1, len(chapters)))
    waiting = sorted(chapters, key=ORDER.index) if count > 1 else list(chapters)
    running: dict[Future[Path], tuple[str, float]] = {}
    failures: list[LthError] = []
    with asked_to_stop() as stop, ThreadPoolExecutor(count) as pool:
        how = {"threads": _share(count), "stop": stop}
        try:
            while running or (waiting and not failures and not stop.is_set()):
                while len(running) < count and not (failures or stop.is_set()) and (chapter := _next(waiting, running)):
                    running[pool.submit(execute, chapter, **how)] = (chapter, time.monotonic())
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    chapter, begun = running.pop(done)
                    try:
                        folder = done.result()
                    except LthError as error:
                        failures.append(error)
                        if running and not isinstance(error, Stopped):
                            others = ", ".join(other for other, _ in running.values())
                            print(f"lth: {error}\nlth: first {others} will be done", file=sys.stderr, flush=True)
                        continue
                    yield chapter, folder, time.monotonic() - begun
        finally:
            stop.set()  # whoever no longer asks for the others
    told = [str(error) for error in failures]
    if waiting:
        told.append(f"{', '.join(waiting)}: not begun")
    if failed := [error for error in failures if not isinstance(error, Stopped)]:
        raise LthError("\n".join(told)) from failed[0]
    if told:
        raise Stopped("\n".join(told if failures else [f"{told[0]}. The same command goes on from there"]))


def _next(waiting: list[str], running: dict[Future[Path], tuple[str, float]]) -> str | None:
    """Takes the first chapter that waits for none of those before it."""
    unfinished = {*waiting, *(chapter for chapter, _ in running.values())}
    for chapter in waiting:
        if SHARES.get(chapter) not in unfinished:
            waiting.remove(chapter)
            return chapter
    return None


def _share(count: int) -> int | None:
    """Cores of each of `count` chapters; None: as many as it likes."""
    if count == 1:
        return None
    from lth.parallel import cores

    return max(1, cores() // count)
