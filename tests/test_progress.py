"""What is shown of a chapter while it runs."""

from __future__ import annotations

import time

from lth.book.progress import Bar


def test_time_left_is_counted_anew_for_each_round_of_a_ladder(monkeypatch, capsys):
    clock = [0.0, 50.0, 100.0, 150.0, 200.0, 250.0]
    with Bar() as bar:
        for step, now in zip([10, 60, 100, 20, 60, 100], clock, strict=True):
            monkeypatch.setattr(time, "monotonic", lambda now=now: now)
            bar("a", {"replicas": 3, "step": step, "steps": 100, "accuracy": 0.5})
    told = capsys.readouterr().err.splitlines()
    left = [line.partition("accuracy 0.500")[2] for line in told]
    assert left == ["", ", 40 s left", ", 0 s left", "", ", 50 s left", ", 0 s left"]


def test_every_line_says_how_much_of_the_chapter_is_left(capsys):
    with Bar() as bar:
        bar("a", {"section": "Data", "cell": 2, "cells": 9})
        bar("a", {"section": "Data", "cell": 2, "cells": 9})  # nothing new
        bar("a", {"section": "Training", "cell": 3, "cells": 9})
        bar("a", {"replicas": 3, "step": 5.0, "steps": 60, "accuracy": float("nan")})
    assert capsys.readouterr().err.splitlines() == [
        "a, cell 2 of 9: Data",
        "a, cell 3 of 9: Training",
        "a, cell 3 of 9: training 3 replicas: step 5/60",
    ]


def test_the_bar_of_a_terminal_fills_with_the_cells_of_the_chapter(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Bar() as bar:
        bar("a", {"section": "A [b] section", "cell": 3, "cells": 8})
        task = bar.rich.tasks[0]
        assert (task.total, task.completed) == (8, 2)
        bar("a", {"replicas": 3, "step": 15.0, "steps": 60, "accuracy": 0.5})
        assert (task.total, task.completed) == (8, 2.25)
        assert task.description == "a, cell 3 of 8" and task.fields["now"].startswith("training 3 replicas: step 15/60")
    capsys.readouterr()


def test_each_of_several_chapters_has_a_bar_for_as_long_as_it_runs(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Bar() as bar:
        bar("a", {"section": "Data", "cell": 3, "cells": 8})
        bar("b", {"section": "Data", "cell": 2, "cells": 4})
        bar("a", {"replicas": 3, "step": 15.0, "steps": 60, "accuracy": 0.5})
        assert [(task.total, task.completed) for task in bar.rich.tasks] == [(8, 2.25), (4, 1)]
        bar.end("a", "never shown")
        assert [task.description for task in bar.rich.tasks] == ["b, cell 2 of 4"]
    capsys.readouterr()


def test_lines_of_several_chapters_are_kept_apart(monkeypatch, capsys):
    """One chapter's training is no new training because another one's step was higher."""
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    with Bar() as bar:
        for step in (10.0, 12.0):
            bar("a", {"replicas": 3, "step": step, "steps": 60, "accuracy": 0.5})
            bar("b", {"replicas": 2, "step": step + 40, "steps": 90, "accuracy": 0.5})
    assert len(capsys.readouterr().err.splitlines()) == 2
