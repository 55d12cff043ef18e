"""The commands `lth edition` and `lth networks`: the published edition, computed in parts, and its networks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from lth.errors import UsageError
from lth.files import absolute, default_root, seconds

networks_cli = typer.Typer(no_args_is_help=True, help="The networks that travel with the book: what is in them, more.")


@networks_cli.command("ls")
def networks_ls() -> None:
    """Every archive: its size, its networks and its measures."""
    from lth.store.archives import LIMIT, SHIPPED, Archives

    of: dict[Path, set[str]] = {path: set() for path in sorted(SHIPPED.glob("*.zip"))}
    for name, files in Archives(SHIPPED).files.items():
        for path in files.values():
            of[path].add(name)
    for path, names in of.items():
        runs = sum(name.startswith("runs/") for name in names)
        print(f"{path.name}  {path.stat().st_size / 1e6:.1f} MB  {runs} networks, {len(names) - runs} measures")
    total = sum(path.stat().st_size for path in of)
    print(f"{SHIPPED}: {total / 1e6:.1f} of {LIMIT / 1e6:.0f} MB")


@networks_cli.command("pack")
def networks_pack(
    chapter: Annotated[str, typer.Argument(help="Its name or number.")],
    edition: Annotated[
        Path, typer.Option(parser=absolute, metavar="FOLDER", help="The execution whose networks are packed.")
    ] = Path("build/edition"),
    store: Annotated[
        bool, typer.Option("--store", help="What `lth edition` has trained of the chapter so far, executed or not.")
    ] = False,
) -> None:
    """Add an archive with the networks and measures of a chapter that no earlier archive holds."""
    from lth.book.runner import named
    from lth.store.archives import SHIPPED, add, used

    chapter = named(chapter)
    if store:
        from lth.book.edition import trained

        names = trained(chapter, edition)
    else:
        names = used(edition / chapter)
    archive, parts, size = add(chapter, names, default_root(), SHIPPED)
    print(f"{archive}: {parts} parts, {size / 1e6:.1f} MB" if archive else f"{chapter}: nothing that is not packed yet")


@networks_cli.command("unpack")
def networks_unpack(
    chapter: Annotated[str | None, typer.Argument(help="Its name or number; all of them if not given.")] = None,
) -> None:
    """Put what the archives hold into the store, where it would come by itself as soon as it is asked for."""
    from lth.book.runner import named
    from lth.store.archives import SHIPPED, Archives

    archives, root = Archives(SHIPPED), default_root()
    wanted = named(chapter) if chapter else ""
    names = [name for name in archives.files if wanted in ("", archives.chapter(name))]
    if not names:
        raise UsageError(f"no archive in {archives.folder} has networks" + f" of {wanted}" * bool(wanted))
    new = [name for name in names if not (root / name).exists()]
    for name in new:
        archives.bring(name, root)
    print(f"{root}: {len(new)} parts more, {len(names) - len(new)} were there")


def edition_command(
    time_limit: Annotated[
        str | None, typer.Option(help="Stop cleanly after this long, e.g. 6h; the same command goes on (exit code 75).")
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Only tell what is there and what is left.")] = False,
    out: Annotated[
        Path, typer.Option(parser=absolute, metavar="FOLDER", help="For executed chapters; variants go beside it.")
    ] = Path("build/edition"),
) -> None:
    """Compute the published edition in the background of other work, most claims per hour first. It takes nights."""
    from lth.book import edition
    from lth.book.progress import Bar

    if status:
        lines = edition.status(out)
        widths = {name: max(len(name), *(len(str(line[name])) for line in lines)) for name in lines[0]}
        for line in [dict(zip(widths, widths, strict=True)), *lines]:
            print("  ".join(str(line[name]).ljust(width) for name, width in widths.items()).rstrip())
        return
    deadline = time.monotonic() + seconds(time_limit) if time_limit else None
    with Bar() as bar:
        for standing, claims in edition.run(out, deadline, bar):
            bar.end(*bar.chapters)  # of the row before
            print(f"{standing.row.name}: decides {claims} claims; by hand: {standing.row.command}", flush=True)
    print(f"The edition is in {out}. `lth networks pack CHAPTER` puts its networks beside the book.")
