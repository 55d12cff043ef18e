"""From an edition to a website: check it, stage a source tree, run Jupyter Book, swap the result in whole."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lth.book import CHAPTERS
from lth.errors import LthError, UsageError
from lth.files import ROOT

GITHUB = re.compile(r"(?:https://|ssh://git@|git@)github\.com[/:]([\w.-]+/[\w.-]+?)(?:\.git)?/?$")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
TROUBLE = re.compile(r"WARNING|ERROR|Error|error:")


def build(edition: Path, out: Path) -> Path:
    """Build the site of one edition in the folder `out` and return the path of its index.html.

    Chapters that the edition does not have come from the published one, and say so. Everything is checked before
    any work starts: UsageError where no chapter is there, one is unfinished or failed, or where `out` holds
    something that is not a site. LthError where Jupyter Book fails or warns. In every such case an older site in
    `out` stays as it was.
    """
    from lth.book import came_out, gallery, many_machines, scorecard, speed
    from lth.book.verdicts import home

    edition, out = Path(edition).resolve(), Path(out).resolve()
    for chapter, notebook in CHAPTERS.items():
        check(home(edition, chapter), chapter, Path(notebook).name)
    with replacing(out, "book/intro.html") as source:
        stage(edition, source)
        card = scorecard.page(edition, gallery.where(edition))
        (source / "book" / "scorecard.md").write_text(card, encoding="utf-8")
        came_out.write(edition, source)
        gallery.write(edition, source)
        speed.write(source)
        many_machines.write(source)
    return out / "index.html"


@contextmanager
def replacing(out: Path, page: str) -> Iterator[Path]:
    """A folder to lay out what Jupyter Book reads; what it makes of that takes the place of `out`, whole or not at all.

    UsageError, before, where `out` holds something else: a folder without the file `page`. LthError where Jupyter Book
    fails or warns; an older `out` then stays as it was.
    """
    if out.exists() and not (out / page).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} holds something that is not pages of this book; name a new or empty folder")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent)
    except OSError as error:
        raise UsageError(f"cannot write pages to {out} ({error.strerror}); name another folder") from error
    with work as folder:
        yield (source := Path(folder, "source"))
        jupyter_book(source, Path(folder))
        if out.exists():
            os.replace(out, Path(folder, "old"))
        os.replace(Path(folder, "_build", "html"), out)


def check(edition: Path, chapter: str, name: str) -> None:
    """Raise UsageError unless the edition holds the chapter's notebook, run to its end, and its stamp."""
    mend = f"run it again with: lth run {chapter} --preset quick --out {edition}"
    path = edition / chapter / name
    if not path.is_file():
        raise UsageError(f"chapter {chapter} is not in the edition {edition}; {mend}")
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        outputs = [output for cell in cells for output in cell["outputs"]]
        failed = notebook["metadata"].get("papermill", {}).get("exception")
        failed = failed or any(output["output_type"] == "error" for output in outputs)
        unfinished = any(cell["execution_count"] is None for cell in cells if "".join(cell["source"]).strip())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"chapter {chapter}: {path} is not a notebook; {mend}") from error
    if failed:
        raise UsageError(f"chapter {chapter} failed while it ran ({path}); {mend}")
    if unfinished:
        raise UsageError(f"chapter {chapter} was not run to its end ({path}); {mend}")
    if not (path.parent / "provenance.json").is_file():
        raise UsageError(f"chapter {chapter} has no provenance.json beside {path}; {mend}")


def stage(edition: Path, source: Path) -> None:
    """Lay out what Jupyter Book reads: configuration, prose, executed notebooks, their data for download."""
    import yaml

    from lth.book import finishing, what_runs
    from lth.book.verdicts import home

    shutil.copytree(ROOT / "book", source / "book", ignore=shutil.ignore_patterns("editions", "__pycache__"))
    shutil.copy(ROOT / "_toc.yml", source)
    rerun = source / "book" / "rerun.md"
    rerun.write_text(rerun.read_text(encoding="utf-8").replace(what_runs.MARK, what_runs.table()), encoding="utf-8")
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    if url := repository():
        config["repository"] = {"url": url, "branch": "HEAD"}
        config["html"]["use_repository_button"] = True
        config["launch_buttons"]["binderhub_url"] = "https://mybinder.org"
    (source / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    for chapter, notebook in CHAPTERS.items():
        data = source / "notebooks" / "data" / chapter
        data.mkdir(parents=True)
        own = home(edition, chapter)
        content = json.loads((own / chapter / Path(notebook).name).read_text(encoding="utf-8"))
        finishing.finish(content, chapter, own / chapter, borrowed=own != edition, url=url)
        (source / notebook).write_text(json.dumps(content), encoding="utf-8")
        for table in sorted((own / chapter / "data").glob("*.csv")):
            shutil.copy(table, data)


def repository() -> str | None:
    """The project's address on GitHub, from the git remote `origin`; None where there is none."""
    git = ["git", "-C", str(ROOT), "remote", "get-url", "origin"]
    try:
        remote = subprocess.run(git, capture_output=True, encoding="utf-8", errors="replace").stdout.strip()
    except OSError:
        return None
    match = GITHUB.match(remote)
    return f"https://github.com/{match[1]}" if match else None


def jupyter_book(source: Path, out: Path) -> None:
    """Run Jupyter Book with warnings as errors into out/_build/html, or raise LthError with its words."""
    program = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", program, "build", str(source), "--path-output", str(out)]
    command += ["--warningiserror", "--keep-going", "--nitpick"]
    how = {"encoding": "utf-8", "errors": "replace", "env": {**os.environ, "PYTHONIOENCODING": "utf-8"}}
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **how)
    if result.returncode or not (out / "_build" / "html" / "index.html").is_file():
        lines = COLOUR.sub("", result.stdout).replace(f"{source}{os.sep}", "").splitlines()
        said = [line for line in lines if TROUBLE.search(line)] or lines[-20:]
        raise LthError("Jupyter Book could not build the site:\n" + "\n".join(said))
