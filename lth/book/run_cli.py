"""The command `lth run`."""

from __future__ import annotations

import shlex
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from lth.book import CHAPTERS
from lth.errors import UsageError
from lth.files import absolute, data_set, default_root, seconds


def run_command(
    chapters: Annotated[
        list[str] | None, typer.Argument(help="Names or numbers; all of them if none is given.")
    ] = None,
    preset: Annotated[str, typer.Option(help="smoke, quick, night, gpu, paper or imagenet; see `lth list`.")] = "quick",
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", help="name=value, over the preset's. May be repeated."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    on: Annotated[
        str, typer.Option(metavar="ray|ray://HOST:PORT", help="A Ray cluster that trains: this machine, or a head.")
    ] = "",
    time_limit: Annotated[
        str | None,
        typer.Option(help="Stop cleanly after this long, e.g. 9m, 90s, 2h; the same command goes on (exit code 75)."),
    ] = None,
    together: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Chapters at a time, which share the cores; if not given one for two cores, two on two, one on a GPU.",
        ),
    ] = None,
    train_only: Annotated[
        bool, typer.Option("--train-only", help="Only train: no measures, tables and figures.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=absolute,
            metavar="FOLDER",
            help="For the results, a folder per chapter: build/edition if not given, with -p build/changed/…",
        ),
    ] = None,
    site: Annotated[
        Path | None,
        typer.Option(
            parser=absolute,
            metavar="FOLDER",
            help="Build the site there, too: before the first chapter, then with each one that is done in its place.",
        ),
    ] = None,
) -> None:
    """Execute chapters: train what the store does not hold yet, measure, write notebook, figures and data.

    With changed parameters the results have a folder of their own: what is in build/edition stays.
    Example: `lth run lt_basin -p sparsity=0.9 -p seeds=3`, then `lth show` with the folder that it tells.
    """
    from lth import distributed
    from lth.book import runner
    from lth.book.abreast import at_a_time, execute_all
    from lth.book.along import Along
    from lth.book.beside import told
    from lth.book.progress import Bar
    from lth.book.scorecard import came_out

    known_device(device)
    deadline = time.monotonic() + seconds(time_limit) if time_limit else None
    if train_only and site:
        raise UsageError("--train-only makes no pages: leave out --site")
    changed = pairs(parameter or [])
    if helps := distributed.rank() > 0:  # in a training that process 0 shows, and keeps
        train_only, site, out = True, None, default_root() / "helpers" / str(distributed.rank())
    else:
        out = default_root() / "trained" if train_only else out or absolute(runner.usual_out(preset, changed))
    plan = runner.prepare(chapters or list(CHAPTERS), preset, changed, device, out, on)
    how = {"preset": preset, "device": device, "out": out, "deadline": deadline, "training": train_only, "on": on}
    shows = nullcontext(lambda *told: None) if helps else Bar()
    with Along(out, site) if site else nullcontext() as along, shows as bar:
        if along:
            print(f"{short(along.begin())}: the book; each chapter takes its place there when it is done", flush=True)

        def execute(chapter: str, **share: Any) -> Path:
            return runner.execute(chapter, plan[chapter], display=bar, **how, **share)

        together = together or at_a_time(len(plan), device, on)
        for number, (chapter, folder, took) in enumerate(execute_all(list(plan), together, execute), 1):
            if helps:
                continue
            bar.end(chapter)
            if along and number < len(plan):
                along.again()
            if train_only:
                print(f"{chapter}: trained in {took:.0f} s: all networks are in {default_root()}", flush=True)
                continue
            print(f"{chapter}: done in {took:.0f} s: {short(folder)}\n  {came_out(folder)}", flush=True)
            if changed:
                print(*(f"    {line}" for line in told(folder)), sep="\n")
                print(f"  its page: lth show {shlex.quote(str(short(folder)))}")
                print(f"  beside another: lth compare {chapter} {shlex.quote(str(short(folder)))}", flush=True)
        if along:
            print(along.end())


def known_device(device: str) -> None:
    """UsageError for a device that there is not."""
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device}: one of auto, cpu, cuda")


def pairs(words: list[str]) -> dict[str, str]:
    """name=value arguments as a dictionary; a data set that is a path is an absolute one."""
    for word in words:
        if "=" not in word:
            raise UsageError(f"-p {word}: write name=value, for example -p seeds=3")
    from lth.book.settings.base import IMAGES

    pairs = dict(word.split("=", 1) for word in words)
    return {name: data_set(value) if name in IMAGES else value for name, value in pairs.items()}


def short(path: Path) -> Path:
    """Relative to the working directory where that is shorter."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
