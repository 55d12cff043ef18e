"""The commands `lth store`: what trained networks there are, and what to remove."""

from __future__ import annotations

import shutil
from typing import Annotated

import typer

from lth.errors import LthError, UsageError
from lth.files import default_root

store_cli = typer.Typer(no_args_is_help=True, help="The store of trained networks: what is in it, what to remove.")


@store_cli.command("ls")
def store_ls(
    words: Annotated[
        list[str] | None, typer.Argument(help="Only runs whose line has all of these, such as lenet5 RigL.")
    ] = None,
) -> None:
    """Every stored run: key, when, model, data, labels, weights left, steps (and those kept), size; what is unfinished.

    Example: `lth store ls lenet5 Pruned`, then `lth ticket export` with a key.
    """
    from lth.store.runs import Store

    store = Store(default_root())
    total = 0
    for folder in sorted((store.root / "runs").glob("*")):
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0
        total += size
        try:
            when, about = store.about(folder.name)
            line = f"{folder.name}  {when}  {about}, {size / 1e6:.2f} MB"
        except LthError:
            line = f"{folder.name}  damaged or not written by lth"
        if all(word.lower() in line.lower() for word in words or ()):
            print(line)
    for file in sorted((store.root / "checkpoints").glob("*.safetensors")):
        print(f"{file.stem}  unfinished training, {file.stat().st_size / 1e6:.1f} MB")
    print(f"{store.root}: {total / 1e6:.1f} MB in runs")


@store_cli.command("rm")
def store_rm(
    keys: Annotated[list[str] | None, typer.Argument(help="Keys that `lth store ls` shows.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every run and every unfinished training.")] = False,
) -> None:
    """Remove runs; what is needed again is trained again."""
    root = default_root()
    present = {path.name: path for path in (root / "runs").glob("[0-9a-f]" * 16)}
    present |= {path.stem: path for path in (root / "checkpoints").glob("*.safetensors")}
    chosen = list(present) if everything else keys or []
    if not chosen and not everything:
        raise UsageError("name the runs to remove, as `lth store ls` shows them, or --all")
    if missing := [key for key in chosen if key not in present]:
        raise UsageError(f"no run {missing[0]} in {root}: see `lth store ls`")
    if everything:
        shutil.rmtree(root / "partial", ignore_errors=True)
    for key in chosen:
        shutil.rmtree(present[key]) if present[key].is_dir() else present[key].unlink()
    print(f"removed {len(chosen)} of {len(present)} entries from {root}")
