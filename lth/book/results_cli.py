"""The commands `lth show`, `lth compare` and `lth ticket`: what becomes of results once they are there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lth.files import absolute, default_root

ticket_cli = typer.Typer(no_args_is_help=True, help="Tickets as files that need nothing of lth to be read.")
Execution = typer.Argument(
    metavar="CHAPTER|FOLDER", help="A chapter's name or number, or a folder that `lth run` has made."
)
Edition = typer.Option(parser=absolute, metavar="FOLDER", help="Where a chapter that is named is looked for.")
Out = typer.Option(parser=absolute, metavar="FOLDER", help="Where the page goes.")


def show_command(
    execution: Annotated[str, Execution],
    edition: Annotated[Path, Edition] = Path("build/edition"),
    out: Annotated[Path, Out] = Path("build/pages"),
) -> None:
    """Make the page of one executed chapter and print where it is. The whole book takes longer: `lth book`.

    A chapter that the edition does not have is the published one. Example: `lth show 3`
    """
    from lth.book import pages

    folder = pages.execution(execution, edition)
    print(pages.show(folder, out / pages.place(folder, edition)))


def compare_command(
    one: Annotated[str, Execution],
    other: Annotated[str, Execution],
    edition: Annotated[Path, Edition] = Path("build/edition"),
    out: Annotated[Path, Out] = Path("build/pages"),
) -> None:
    """Make a page of two executions of a chapter side by side and print where it is.

    It shows which parameters differ, what each says of every claim, and the figures.
    Example: `lth compare lt_basin build/changed/quick,sparsity=0.9/lt_basin`
    """
    from lth.book import pages

    both = [pages.execution(word, edition) for word in (one, other)]
    print(pages.compare(*both, out / "-and-".join(pages.place(folder, edition) for folder in both)))


@ticket_cli.command("export")
def ticket_export(
    key: Annotated[str, typer.Argument(help="Of a run, as `lth store ls` shows it.")],
    path: Annotated[Path, typer.Argument(parser=absolute, metavar="FILE", help="Ends with .safetensors.")],
    step: Annotated[
        int | None, typer.Option(help="A kept step: its weights under the mask. The trained weights if not given.")
    ] = None,
) -> None:
    """Write a network of the store as a ticket: its mask, weights to start from, and a card that says what it is.

    Example: `lth ticket export 0123456789abcdef ticket.safetensors --step 100`
    """
    from lth.store import tickets
    from lth.store.runs import Store

    card = tickets.export(Store(default_root()), key, path, step)
    print(f"{path}: {card['weights_left']} of {card['weights']} weights, sparsity {card['sparsity']:.3f}")
