"""The command `lth`."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from lth.book import CHAPTERS
from lth.book.course_cli import course_cli
from lth.book.edition_cli import edition_command, networks_cli
from lth.book.results_cli import compare_command, show_command, ticket_cli
from lth.book.run_cli import known_device, run_command, short
from lth.book.store_cli import store_cli
from lth.errors import LthError, Stopped, UsageError
from lth.files import ROOT, absolute, settle_environment

TIME_IS_UP = 75  # stopped and kept: the same command goes on for as long as it ends with this code

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Reproduce the lottery-ticket literature: run chapters with your own parameters, build the book.",
)
cli.add_typer(store_cli, name="store")
cli.add_typer(networks_cli, name="networks")
cli.add_typer(ticket_cli, name="ticket")
cli.add_typer(course_cli, name="course")
cli.command("run")(run_command)
cli.command("edition")(edition_command)
cli.command("show")(show_command)
cli.command("compare")(compare_command)


def app() -> None:
    """Entry point: a known failure is one line on stderr; exit code 2 for usage, 1 for the rest."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a sign that the terminal cannot show is a question mark
    warnings.formatwarning = lambda message, *_, **__: f"lth: {message}\n"  # where in the code is nobody's concern here
    try:
        settle_environment()
        cli()
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(TIME_IS_UP)
    except UsageError as error:
        print(f"lth: {error}", file=sys.stderr)
        sys.exit(2)
    except LthError as error:
        print(f"lth: {error}", file=sys.stderr)
        sys.exit(1)


@cli.command("list")
def list_chapters(
    only: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CHAPTERS]...", help="Names or numbers; all of them if none is given."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """The chapters, and every parameter with its type, meaning and value in each preset."""
    from lth.book.presets import PRESETS, parameters
    from lth.book.runner import named
    from lth.book.settings import CHAPTER_PARAMETERS

    wanted = [named(word) for word in only or CHAPTERS]
    chapters: dict[str, Any] = {}
    for name in dict.fromkeys(wanted):
        kind = CHAPTER_PARAMETERS[name]
        presets = {preset: parameters(name, preset).model_dump() for preset in PRESETS}
        schema = kind.model_json_schema()["properties"]
        chapters[name] = {
            "notebook": CHAPTERS[name],
            "about": (kind.__doc__ or "").splitlines()[0],
            "parameters": {
                field: {
                    "type": schema[field].get("type", "choice"),
                    **({"choices": schema[field]["enum"]} if "enum" in schema[field] else {}),
                    "meaning": info.description,
                    "default": presets["quick"][field],
                    "presets": {preset: values[field] for preset, values in presets.items()},
                }
                for field, info in kind.model_fields.items()
            },
        }
    if as_json:
        print(json.dumps(chapters, indent=1))
        return
    for name, chapter in chapters.items():
        print(f"{name}: {chapter['about']}")
        for field, about in chapter["parameters"].items():
            kind = " | ".join(map(str, about.get("choices", [about["type"]])))
            values = ", ".join(f"{preset} {value}" for preset, value in about["presets"].items())
            print(f"  {field}  ({kind}) {about['meaning']}\n      {values}")
    print("Run one: lth run lt_basin --preset quick -p sparsity=0.9 -p seeds=3")


@cli.command()
def book(
    edition: Annotated[
        Path | None,
        typer.Option(
            parser=absolute, metavar="FOLDER", help="What `lth run` wrote; chapters it lacks are the published ones."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(parser=absolute, metavar="FOLDER", help="Where the site goes.")] = Path(
        "build/site"
    ),
    pdf: Annotated[
        Path | None,
        typer.Option(parser=absolute, metavar="FILE", help="Print the whole book into this file, too, with a browser."),
    ] = None,
) -> None:
    """Build the site from executed chapters and print where it is."""
    from lth.book import pdf as printer
    from lth.book.site import build
    from lth.book.verdicts import PUBLISHED

    if pdf:
        printer.browser()  # or say at once that there is none
    print(build(edition or PUBLISHED, out))
    if pdf:
        print(printer.write(out, pdf))


@cli.command()
def data(
    name: Annotated[str, typer.Argument(help="digits, mnist, fashion_mnist, cifar10, cifar100, a name or a path.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", parser=absolute, metavar="FOLDER", help="Decode this image folder to one file, NAME."),
    ] = None,
    side: Annotated[int, typer.Option(help="With --from: the side of all images in pixels.")] = 256,
) -> None:
    """Fetch a data set, check it, and say what it is. It is kept under LTH_DATA.

    Images that fit no memory are decoded to a file first, from which networks are trained: `lth data imagenet --from
    /data/ILSVRC --side 256`. Stopped, the same command goes on.
    """
    from lth.data import available, load, mapped
    from lth.data.sources import KNOWN, find

    if source is not None:
        if name in KNOWN or Path(name).name != name:
            raise UsageError(f"{name}: what is decoded needs a name of its own, without folders")
        mapped.decode(name, source, side, lambda told: print(told, flush=True))
    available(name)  # which tells what is noteworthy, each time
    found = load(name)
    if found.train.on_disk and source is None:
        mapped.verify(find(name))
    print(
        f"{found.name}: {len(found.train)} training and {len(found.test)} test images, {found.shape}, "
        f"{found.classes} classes, fingerprint {found.fingerprint[:16]}\nclasses: {', '.join(found.names)}"
    )


@cli.command()
def claims(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    edition: Annotated[
        Path | None,
        typer.Option(
            parser=absolute, metavar="FOLDER", help="Whose findings to show; the published edition's if not given."
        ),
    ] = None,
) -> None:
    """The ledger: every claim with its test, fixed beforehand, and what is known of it."""
    from lth.book.claims import ledger
    from lth.book.verdicts import PUBLISHED, findings, interval, verdict_words

    if edition and not edition.is_dir():
        raise UsageError(f"no edition at {edition}: `lth run --out {edition}` makes one")
    found = findings(edition or PUBLISHED)
    if as_json:
        entries = [
            {
                **claim.model_dump(),
                "test": claim.test,
                "needed": claim.needed,
                "chance if right": claim.chance(found[claim.id].n) if claim.id in found else None,
                "chance if nil": claim.chance(claim.needed, nil=True) if claim.needed else None,
                "verdict": verdict_words(found.get(claim.id)),
                "finding": found[claim.id].model_dump() if claim.id in found else None,
            }
            for claim in ledger().values()
        ]
        print(json.dumps(entries, indent=1))
        return
    for claim in ledger().values():
        finding = found.get(claim.id)
        print(f"{claim.id}: {claim.statement}" + (" [main]" if claim.main else " [check]" if claim.check else ""))
        print(f"    paper: {claim.paper}")
        print(f"    test:  {claim.metric}: {claim.test} {claim.unit}; n counts {claim.replication}s")
        print(f"    power: {claim.planned}")
        if claim.changed:
            print(f"    changed on {claim.changed.date}: {claim.changed.reason}")
        print(f"    here:  {verdict_words(finding)}" + (f", {interval(finding)}" if finding else ""))


@cli.command()
def doctor(
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    minutes: Annotated[float, typer.Option(min=0, help="How long it may take; what is left then is not tried.")] = 2,
    path: Annotated[
        Path | None, typer.Option("--json", parser=absolute, metavar="PATH", help="Also write all of it here.")
    ] = None,
    save: Annotated[bool, typer.Option("--save", help="And in book/benchmarks/doctor, as `make bench` does.")] = False,
) -> None:
    """Does everything work on this machine? A few steps of every network, beside those of the processor.

    The table says, for each network, how far a step is off ("loss off", "weights off": 0 is best, the tolerance is
    told at the end) and how long it takes: as it stands (eager), compiled, and compiled and recorded, which is how a
    GPU trains. "halved" is what happens where networks do not fit into the memory together. The last paragraph can be
    pasted into a report. Ends with code 1 where something is wrong.

    Example: `lth doctor`, or `lth doctor --minutes 10` on a GPU, where compiling all networks takes longer.
    """
    from lth.book.chapter import choose_device
    from lth.book.doctor import examine
    from lth.files import file_name, write_text

    known_device(device)
    told = examine(choose_device(device).type, minutes, lambda text: print(text, flush=True))
    print(f"\n{told['report']}")
    for file in [path] * bool(path) + [ROOT / "book" / "benchmarks" / "doctor" / file_name(told["device"])] * save:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
        print(f"\nwritten to {short(file)}")
    if not told["well"]:
        raise typer.Exit(1)


@cli.command()
def gpu(
    minutes: Annotated[float, typer.Option(min=1, help="How long the GPU is yours.")] = 30,
    out: Annotated[Path, typer.Option(parser=absolute, metavar="FOLDER", help="The edition that it makes.")] = Path(
        "build/gpu"
    ),
) -> None:
    """Half an hour on a GPU, spent on what decides most claims per minute.

    First `lth doctor`, then the speed of the networks that the preset `gpu` trains: from that and the ledger it says
    how long each chapter takes and how many claims it can decide, and runs them, the best first, each within a limit.
    Nothing is lost when the time is up, or at Ctrl-C: the same command goes on (exit code 75) and repeats nothing.

    Example: `lth gpu --minutes 60`, then `lth book --edition build/gpu`.
    """
    from lth.book.gpu import spend_well

    spend_well(minutes, out)


if __name__ == "__main__":
    app()
