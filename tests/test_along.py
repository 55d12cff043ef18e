"""A site that is there before the chapters are, and takes each of them when it is done."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lth.book import along, cli, runner, scorecard
from lth.errors import LthError, Stopped

ENDLESS = (
    "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler); print(flush=True); time.sleep(60)"
)


@pytest.fixture
def built(monkeypatch) -> list[tuple[str, ...]]:
    """The editions that sites were built of, where, and how."""
    seen: list[tuple[str, ...]] = []

    def start(program: list[object], **how: object) -> Ended:
        seen.append(("beside", *map(str, program[-3::2])))
        return Ended()

    def build(edition: Path, out: Path) -> Path:
        seen.append(("now", str(edition), str(out)))
        return out / "index.html"

    monkeypatch.setattr(along, "build", build)
    monkeypatch.setattr(along.subprocess, "Popen", start)
    monkeypatch.setattr(along, "PUBLISHED", Path("/published"))
    monkeypatch.setattr(along, "LEAST", 0.0)
    return seen


class Ended:
    pid = 0

    def poll(self) -> int:
        return 0

    def wait(self) -> int:
        return 0


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """run(*words) of `lth run` whose chapters are there at once."""

    def execute(chapter: str, *words: object, out: Path, **how: object) -> Path:
        (out / chapter).mkdir(parents=True)
        return out / chapter

    def call(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["lth", "run", *words])
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(runner, "execute", execute)
        monkeypatch.setattr(scorecard, "came_out", lambda folder: "no claims")
        with pytest.raises(SystemExit) as end:
            cli.app()
        told = capsys.readouterr()
        return told.err if end.value.code else told.out

    return call


def test_the_book_is_there_first_and_takes_each_chapter(run, built, tmp_path):
    site, edition = str(tmp_path / "site"), str(tmp_path / "build" / "edition")
    said = run("1", "2", "3", "--site", "site")
    assert built == [
        ("now", "/published", site),
        ("beside", edition, site),
        ("beside", edition, site),
        ("now", edition, site),
    ]
    assert said.splitlines()[0].startswith("site/index.html: the book")
    assert said.splitlines()[-1] == f"{site}/index.html"


def test_what_was_executed_before_is_in_the_first_one(run, built, tmp_path):
    (tmp_path / "build" / "edition" / "tweaks").mkdir(parents=True)
    run("3", "--site", "site")
    assert [told[:2] for told in built] == [("now", str(tmp_path / "build" / "edition"))] * 2


def test_without_pages_there_is_no_site(run, built):
    assert "--train-only makes no pages" in run("3", "--train-only", "--site", "site") and not built


def test_one_at_a_time(built, monkeypatch):
    monkeypatch.setattr(Ended, "poll", lambda self: None)
    book = along.Along(Path("edition"), Path("site"))
    book.again()
    book.again()
    assert built == [("beside", "edition", "site")]


def test_it_is_built_in_a_tenth_of_the_time(built, monkeypatch):
    """The first one takes three seconds: the others begin thirty seconds apart, or later."""
    monkeypatch.setattr(along, "LEAST", 10.0)
    clock = iter([100.0, 103.0, 110.0, 110.0, 139.0, 140.0, 140.0])
    monkeypatch.setattr(along.time, "monotonic", lambda: next(clock))
    book = along.Along(Path("edition"), Path("site"))
    book.begin()
    for _ in range(3):  # at 110, 139 and 140
        book.again()
    assert [told[0] for told in built] == ["now", "beside", "beside"]


@pytest.mark.parametrize("failure", [Stopped("stopped"), LthError("a chapter failed"), None])
def test_nothing_is_left_behind(failure):
    """Who stops does not wait for the site; whose chapter fails has the others in it."""
    book = along.Along(Path("edition"), Path("site"))
    program = ENDLESS if isinstance(failure, Stopped) else "import time; time.sleep(0.2)"
    try:
        with book:
            quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            book.building = subprocess.Popen([sys.executable, "-c", program], start_new_session=True, **quiet)
            if isinstance(failure, Stopped):
                book.building.stdout.readline()  # now it listens
            if failure:
                raise failure
    except (Stopped, LthError):
        pass
    ended = book.building.returncode
    assert ended == 0 if not isinstance(failure, Stopped) else ended in (-signal.SIGINT, 1, 130)
