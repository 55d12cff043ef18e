"""Execute chapters: validate first, run the notebook by papermill, put the results in place whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import default

from lth import distributed
from lth.book import CHAPTERS
from lth.book.presets import PRESETS, check_data, parameters, unknown
from lth.book.settings.base import IMAGES
from lth.book.training import training_cells
from lth.errors import LthError, Stopped, UsageError
from lth.files import ABANDONED, ROOT, default_root, shown, write_text

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager

KERNEL = "lth-runner"
GRACE = 30.0  # seconds a notebook has to write its checkpoint and stop


# Shows where a chapter stands: its name, and {section, cell, cells} or {replicas, step, steps, accuracy}.
Display = Callable[[str, Mapping[str, Any]], None]


def named(word: str) -> str:
    """The chapter of this name, or of this number in the book; UsageError where there is none."""
    chapter = dict(zip("123456789", CHAPTERS, strict=False)).get(word, word)
    if "=" in word:
        raise UsageError(f"{word} looks like a parameter: write -p {word}")
    if chapter not in CHAPTERS:
        raise UsageError(unknown("chapter", word, CHAPTERS))
    return chapter


def usual_out(preset: str, overrides: Mapping[str, str]) -> str:
    """Where results go if nobody says where: what was changed has a folder of its own, named by the changes."""
    if not overrides:
        return "build/edition"
    words = ",".join([preset, *(f"{name}={value}" for name, value in sorted(overrides.items()))])
    told = [f"{name}={shown(value) if name in IMAGES else value}" for name, value in sorted(overrides.items())]
    name = re.sub(r"[^\w.=,:+-]+", "-", ",".join([preset, *told]))
    if len(name) > 100 or name != words:  # which no longer tells it from all others
        name = f"{name[:90]}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
    return f"build/changed/{name}"


def prepare(
    chapters: list[str], preset: str, overrides: Mapping[str, str], device: str, out: Path, on: str = ""
) -> dict[str, dict]:
    """The validated parameters of each chapter, once everything that can be checked beforehand is well.

    `chapters` are names or numbers; paths, in `overrides` and `out`, are absolute.

    Raises UsageError or LthError in one line for: unknown chapter, preset or parameter; wrong type or range; no
    GPU where one was asked for; data that are not there, or too small; an `out` that cannot be written; no Ray, or no
    cluster at the address `on`.
    """
    chapters = [named(chapter) for chapter in chapters]
    if preset not in PRESETS:
        raise UsageError(unknown("preset", preset, PRESETS))
    plan = {chapter: parameters(chapter, preset, overrides).model_dump() for chapter in chapters}
    if on:
        from lth.cluster.machines import check

        check(on)
    elif device == "cuda":
        from lth.book.chapter import choose_device

        choose_device(device)
    elif preset == "imagenet":
        from lth.book.chapter import choose_device

        if device == "cpu" or choose_device(device).type == "cpu":
            raise UsageError("preset imagenet needs a GPU, better eight: what takes days on one takes years here")
    for chapter, values in plan.items():
        check_data(chapter, values)
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise UsageError(f"cannot write to --out {out}: {error.strerror}. Name another folder") from error
    return plan


def execute(
    chapter: str,
    values: Mapping[str, Any],
    *,
    preset: str,
    device: str,
    out: Path,
    deadline: float | None,
    display: Display,
    training: bool = False,
    nice: int = 0,
    on: str = "",
    threads: int | None = None,
    stop: threading.Event | None = None,
) -> Path:
    """Run one chapter's notebook with these parameters; returns its folder out/CHAPTER.

    training: only what its training needs (`lth.book.training`): the folder then has nothing but networks.json, which
    grows while it trains. nice: how much it lets others go first, 19 at most.
    on: the Ray cluster whose machines train and measure, see `lth.cluster.machines`.
    threads: how many cores it may use; all of them if not given. stop: what ends it when it is set, as `asked_to_stop`
    yields; by itself it listens to Ctrl-C and SIGTERM.

    The notebook is told the name of its data set: where that lies is nobody else's business, and on no page.
    The folder is replaced whole, at the end: whatever happens before, an older result stays. `stop` and the deadline
    (of `time.monotonic`) end training at a checkpoint and raise Stopped. Raises LthError with the cell and its error
    where the notebook fails; the failed notebook is kept in the store.
    """
    source = ROOT / CHAPTERS[chapter]
    _sweep(chapter, out)
    with tempfile.TemporaryDirectory(prefix=f"{_own(chapter)}-{os.getpid()}-", dir=out) as folder:
        partial, channel = Path(folder) / "result", Path(folder) / "control"
        partial.mkdir()
        channel.mkdir()
        settings = {
            "LTH_OUT": out / chapter if training else partial,
            "LTH_CONTROL": channel,
            **{f"LTH_{name.upper()}": values.get(name, "") for name in IMAGES},
            "LTH_PRESET": preset,
            "LTH_DEVICE": device,
            "LTH_NICE": nice or "",
            "LTH_ON": on,
            **({"OMP_NUM_THREADS": threads} if threads else {}),
        }
        kernel = _kernel(Path(folder) / "kernels", settings)
        if training:
            write_text(Path(folder) / source.name, json.dumps(_only_training(chapter)))
            source = Path(folder) / source.name
        failure: list[BaseException] = []
        told = {name: shown(value) if name in IMAGES else value for name, value in values.items()}
        arguments = (source, partial / source.name, told, kernel, failure)
        thread = threading.Thread(target=_papermill, args=arguments, daemon=True)
        with nullcontext(stop) if stop else asked_to_stop() as stop:
            thread.start()
            _watch(thread, chapter, partial / source.name, channel, deadline, stop, display)
        if (channel / "stop").exists() and (failure or thread.is_alive()):
            raise Stopped(f"{chapter}: stopped{_left(channel)}. The same command goes on from there")
        if failure:
            raise _explain(chapter, failure[0], partial / source.name) from failure[0]
        if training:
            return out / chapter
        _forget_paths(partial / source.name)
        target = out / chapter
        _swap(partial, target)
    return target


def _only_training(chapter: str) -> dict[str, Any]:
    """The chapter's notebook without its measures, tables and figures."""
    notebook = json.loads((ROOT / CHAPTERS[chapter]).read_text(encoding="utf-8"))
    first = next(cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", []))
    empty = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [empty | {"id": f"training-{n}", "source": code} for n, code in enumerate(training_cells(chapter))]
    return notebook | {"cells": [first, *cells]}


def _own(chapter: str) -> str:
    """How the names of folders begin in which this machine executes the chapter; others may share `out` with it."""
    return f".{chapter}-{socket.gethostname()}"


def _sweep(chapter: str, out: Path) -> None:
    """Removes what executions that were killed left unfinished; a result they had set aside comes back."""
    for folder in out.glob(f".{chapter}-*-*"):
        machine, process, _ = folder.name.rsplit("-", 2)
        if _alive(int(process)) if machine == _own(chapter) and process.isdecimal() else _touched(folder):
            continue
        with contextlib.suppress(OSError):  # another execution was quicker
            if (folder / "old").exists() and not (out / chapter).exists():
                (folder / "old").rename(out / chapter)
        shutil.rmtree(folder, ignore_errors=True)


def _alive(process: int) -> bool:
    """Whether this machine runs a process of this number."""
    try:
        os.kill(process, 0)
    except PermissionError:  # somebody else's
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _touched(folder: Path) -> bool:
    """Whether anything in the folder was written within a day: on another machine nothing else is known."""
    with contextlib.suppress(OSError):  # it goes away right now
        return time.time() - max(path.stat().st_mtime for path in [folder, *folder.rglob("*")]) < ABANDONED
    return True


def _kernel(folder: Path, settings: Mapping[str, Any]) -> type[AsyncKernelManager]:
    """What starts a kernel that is this very Python, whatever kernels the user has, and alone knows these settings."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=CRITICAL"]
    env = {name: str(value).replace("$", "$$") for name, value in settings.items()}  # $ would be another variable
    (folder / KERNEL).mkdir(parents=True)
    write_text(
        folder / KERNEL / "kernel.json",
        json.dumps({"argv": argv, "display_name": "lth", "language": "python", "env": env}),
    )

    class Manager(AsyncKernelManager):
        @default("kernel_spec_manager")
        def _only_this_one(self) -> KernelSpecManager:
            return KernelSpecManager(kernel_dirs=[str(folder)])

    return Manager


def _papermill(
    source: Path, target: Path, values: dict[str, Any], kernel: type[AsyncKernelManager], failure: list[BaseException]
) -> None:
    try:
        import papermill

        logging.getLogger("papermill").setLevel(logging.ERROR)
        # not `cwd`, which would change that of all threads
        place = {"kernel_name": KERNEL, "kernel_manager_class": kernel, "resources": {"metadata": {"path": str(ROOT)}}}
        papermill.execute_notebook(source, target, values, progress_bar=False, log_output=False, **place)
    except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
        failure.append(error)


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second one ends this process at once. Only the main thread hears them."""
    event = threading.Event()

    def ask(number: int, frame: object) -> None:
        if event.is_set() and distributed.size() == 1:  # torchrun sends each of its processes a second one
            os.write(2, b"\nlth: ended at once; the same command goes on from the last checkpoint\n")
            os._exit(128 + number)  # the kernels follow: they watch for their parent
        event.set()

    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(
    thread: threading.Thread,
    chapter: str,
    notebook: Path,
    channel: Path,
    deadline: float | None,
    asked: threading.Event,
    display: Display,
) -> None:
    """Waits for the notebook, showing its progress, and no longer than `GRACE` once it was told to stop."""
    stop, since = channel / "stop", None
    readers = {notebook: _section, channel / "progress.json": json.loads}
    seen = dict.fromkeys(readers, 0)
    while thread.is_alive():
        thread.join(0.2)
        for file, read in readers.items():
            if file.exists() and file.stat().st_mtime_ns != seen[file]:
                seen[file] = file.stat().st_mtime_ns
                with contextlib.suppress(ValueError):  # caught while it was being written
                    display(chapter, read(file.read_text(encoding="utf-8")))
        if asked.is_set() or (deadline is not None and time.monotonic() > deadline):
            stop.touch()
            since = since or time.monotonic()
            if time.monotonic() - since > GRACE:
                return


def _section(notebook: str) -> dict[str, Any]:
    """Which code cell is running, and under which heading, in a notebook that papermill is executing."""
    section, done, cells = "", 0, json.loads(notebook)["cells"]
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            if cell["metadata"].get("papermill", {}).get("status") != "completed":
                break
            done += 1
        elif headings := [line for line in source.splitlines() if line.startswith("#")]:
            section = headings[-1].lstrip("# ")
    total = sum(cell["cell_type"] == "code" for cell in cells)
    return {"section": section, "cell": min(done + 1, total), "cells": total}


def _left(channel: Path) -> str:
    """What the training that was stopped still had to do."""
    file = channel / "progress.json"
    if not file.exists():
        return ""
    told = json.loads(file.read_text(encoding="utf-8"))
    done, steps = int(told["step"]), told["steps"]
    return f" with {steps - done} of {steps} steps left for {told['replicas']} replicas" if done < steps else ""


def _explain(chapter: str, error: BaseException, notebook: Path) -> LthError:
    """One line about a notebook that failed, and where its copy with the whole traceback is."""
    where = default_root() / "failed" / notebook.name
    where.parent.mkdir(parents=True, exist_ok=True)
    copy = ""
    if notebook.exists():
        shutil.copyfile(notebook, where)
        copy = f". The notebook with the traceback: {where}"
    name, value = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error)).split("\n")[0]
    if name in ("UsageError", "LthError"):
        return LthError(f"{chapter}: {value}")
    if name == "DeadKernelError":
        return LthError(
            f"{chapter}: its process was killed, most likely because memory ran out: close other programs, take a "
            f"smaller preset, or fewer `seeds`; what was trained is kept{copy}"
        )
    cell = f"cell {error.exec_count} failed: " if getattr(error, "exec_count", None) else ""
    return LthError(f"{chapter}: {cell}{name}: {value}{copy}")


def _forget_paths(notebook: Path) -> None:
    """Takes this machine's folders out of what papermill noted in the notebook."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    noted = content["metadata"]["papermill"]
    noted |= {name: Path(noted[name]).name for name in ("input_path", "output_path")}
    write_text(notebook, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _swap(new: Path, target: Path) -> None:
    """`new` takes the place of the folder `target`."""
    old = new.with_name("old")
    if target.exists():
        target.rename(old)
    new.rename(target)
