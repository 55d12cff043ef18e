"""The command `lth course`: a course of six sessions, its notebooks made from their sources."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lth.files import absolute

course_cli = typer.Typer(no_args_is_help=True, help="A course of six sessions: notebooks for students and teachers.")


@course_cli.callback()
def course() -> None:
    """A course of six sessions: notebooks for students and teachers."""


@course_cli.command("build")
def course_build(
    sessions: Annotated[
        list[int] | None, typer.Argument(metavar="[SESSIONS]...", help="Their numbers; all of them if none is given.")
    ] = None,
    out: Annotated[Path, typer.Option(parser=absolute, metavar="FOLDER", help="Where the notebooks go.")] = Path(
        "build/course"
    ),
    book: Annotated[
        bool, typer.Option("--book", help="Put them on the book's pages instead, with chapter 0.")
    ] = False,
) -> None:
    """Run the sessions from their solutions and make of each what students, teachers and, afterwards, all get.

    Needs nbgrader: `pip install -c requirements.lock -e '.[course]'`. The sources in `course/` can be given to it as
    they are.
    """
    from lth.course import build

    chosen = sessions or list(build.SESSIONS)
    for path in build.publish(chosen, by_hand=not sessions) if book else build.build(chosen, out):
        print(path)
