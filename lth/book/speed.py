"""The page "How fast, and why": the prose of book/speed.md, and what `make bench` found on each machine."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import LogFormatter, NullLocator

from lth.book.figures import Table, house_style
from lth.book.scorecard import number_of
from lth.book.text import escape
from lth.files import ROOT
from lth.store.archives import SHIPPED
from lth.training.recipe import Recipe

MARK = "% what was measured\n"
BENCHMARKS = ROOT / "book" / "benchmarks"


def write(source: Path, networks: Path = SHIPPED) -> None:
    """Puts what was measured into the page of a staged source tree, with figures and data beside it.

    networks: the archives whose training is counted on it.
    """
    page, folder = source / "book" / "speed.md", source / "book" / "benchmarks"
    machines = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))}
    parts = [measured(list(machines.values()))]
    for name, machine in machines.items():
        rows = pd.DataFrame(machine["rows"])
        rows.to_csv(folder / f"{name}.csv", index=False)
        days = sorted({when[:10] for when in rows["measured"]})
        parts.append(
            f"### {escape(machine['device'])}\n\nMeasured {' to '.join(dict.fromkeys([days[0], days[-1]]))} with "
            f"torch {machine['torch']}. Memory is {machine['memory']}."
        )
        for precision, part in rows.groupby("precision", sort=False):
            parts += section(f"{name}-{precision}", part, folder)
    parts[1:1] = [examined(folder / "doctor"), spent(networks)]
    told = "\n\n".join(filter(None, parts))
    page.write_text(page.read_text(encoding="utf-8").replace(MARK, told + "\n"), encoding="utf-8")


def measured(machines: Sequence[dict[str, Any]]) -> str:
    """Which machines were measured, in a sentence or two, and which kind was not."""
    told = (
        ["Measured so far: " + "; ".join(escape(machine["device"]) for machine in machines) + "."] if machines else []
    )
    for kind, words in (("cuda", "GPU"), ("cpu", "CPU")):
        if kind not in {machine["kind"] for machine in machines}:
            told.append(
                f"**No {words} has been measured beside the plain loop yet**: this page says how one works, not by how "
                "much it is faster."
            )
    return " ".join(told)


def examined(folder: Path) -> str:
    """What `lth doctor --save` found on each machine, a sentence each."""
    told = []
    for file in sorted(folder.glob("*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        tried = [row for row in found["rows"] if row["result"] != "not tried"]
        wrong = sum(row["result"] == "wrong" for row in tried)
        names = ", ".join(dict.fromkeys(row["what"] for row in tried))
        told.append(
            f"`lth doctor` on {escape(found['device'])}, {found['measured'][:10]}: {len(tried)} checks ({names}), "
            f"{wrong or 'nothing'} wrong."
        )
    return " ".join(told)


def spent(folder: Path) -> str:
    """A table of what training the published networks took, from their archives in the folder; "" where none are."""
    runs = []
    for file in sorted(folder.glob("*.zip")):
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.endswith("/meta.json")]
            runs += [(file.stem.partition("-")[0], json.loads(archive.read(name))) for name in names]
    rows = [
        {
            "chapter": number_of(chapter),
            "trained on": meta["device"],
            "network (batch)": f"{meta['model']} ({Recipe.model_validate(meta['recipe']).batch_size})",
            "steps": meta["recipe"]["steps"] - meta["recipe"].get("first_step", 0),
            "seconds": meta["seconds"],
        }
        for chapter, meta in runs
    ]
    if not rows:
        return ""
    groups = pd.DataFrame(rows).groupby(["chapter", "trained on", "network (batch)"])
    sums = groups.agg(networks=("steps", "size"), steps=("steps", "sum"), seconds=("seconds", "sum")).reset_index()
    sums["replica-steps / s"] = [number(speed) for speed in sums.steps / sums.seconds]
    sums["hours"] = [number(hours) for hours in sums.seconds / 3600]
    caption = (
        "What training the networks took that travel with the book, those of earlier editions and what chapters share "
        "(counted with the first) included: of networks trained together each has its share of the time, with "
        "compiling, probes and whatever else the machine had to do meanwhile."
    )
    return Table(sums.drop(columns=["steps", "seconds"]), caption, "time-of-training")._repr_markdown_()


def section(name: str, rows: pd.DataFrame, folder: Path) -> list[str]:
    """Figure, tables and notes of one machine in one precision; `name` is their label."""
    precision = rows["precision"].iloc[0]
    data = f"[Data](benchmarks/{name.removesuffix(f'-{precision}')}.csv)."
    if "ratio" not in rows:
        return notes(rows)
    done = rows.dropna(subset="ratio")
    draw(done, folder / f"{name}.png")
    spread = f"{done['ratio'].min():.2g} to {done['ratio'].max():.2g}"
    figure = [
        f"```{{figure}} benchmarks/{name}.png",
        ":alt: Two panels over the number of replicas, one line for each network: replica-steps per second on a "
        f"logarithmic scale, and their ratio to the plain loop, which runs from {spread}.",
        f":name: fig-speed-{name}",
        ":class: wide",
        f"Training a population, {precision}. Left: how many steps of single networks a second. Right: the same, "
        f"as a multiple of what the plain loop does; above the line the population is faster. {data}",
        "```",
    ]
    speed = table(
        done,
        plain=lambda row: number(row["plain_replica_steps_per_second"]),
        cell=lambda row: f"{number(row['replica_steps_per_second'])} ({row['ratio']:.2f}×)",
    )
    cost = table(
        done,
        plain=lambda row: size(row["plain_peak_bytes"]),
        cell=lambda row: f"{size(row['peak_bytes'])}, {row['first_step_seconds']:.2g} s",
    )
    caption = (
        f"Replica-steps per second ({precision}), and in brackets their ratio to the plain loop beside it. Times the "
        "batch they are images per second. The plain loop's column is the mean over its rows."
    )
    costs = f"Peak memory on top of data and initial weights, and time to the end of the first step ({precision})."
    parts = ["\n".join(figure), Table(speed, caption, f"speed-{name}")._repr_markdown_()]
    return [*parts, Table(cost, costs, f"cost-{name}")._repr_markdown_(), *notes(rows)]


def table(rows: pd.DataFrame, plain: Callable[[Any], str], cell: Callable[[Any], str]) -> pd.DataFrame:
    """One line per network, one column per number of replicas."""
    lines = []
    for (model, batch), part in rows.groupby(["model", "batch"], sort=False):
        line = {"network (batch)": f"{model} ({batch})", "plain loop": plain(part.mean(numeric_only=True))}
        lines.append(line | {f"R = {row['replicas']}": cell(row) for _, row in part.iterrows()})
    columns = [f"R = {replicas}" for replicas in sorted(rows["replicas"].unique())]
    unbroken = pd.DataFrame(lines, columns=["network (batch)", "plain loop", *columns]).fillna("–")
    return unbroken.map(lambda text: text.replace(" ", "\N{NO-BREAK SPACE}"))


def notes(rows: pd.DataFrame) -> list[str]:
    """What there is to say about single rows, as a list."""
    told = [
        f"- {row['model']}, R = {row['replicas']}: {escape(row['note'])}." for _, row in rows.iterrows() if row["note"]
    ]
    return ["\n".join(told)] if told else []


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Speed and ratio over R, a line for each network."""
    house_style()
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 4.4))
    names = {"replica_steps_per_second": "replica-steps / s", "ratio": "ratio to the plain loop"}
    for ax, (column, label) in zip(axes, names.items(), strict=True):
        sns.lineplot(rows, x="replicas", y=column, hue="model", style="model", markers=True, dashes=False, ax=ax)
        ax.set(xlabel="replicas R", ylabel=label, xscale="log")
        ax.set_xticks(ticks := np.sort(rows["replicas"].unique()), ticks)
        ax.xaxis.set_minor_locator(NullLocator())
        handles, labels = ax.get_legend_handles_labels()
        ax.get_legend().remove()
    axes[0].set_yscale("log")
    axes[0].yaxis.set_major_formatter(LogFormatter())
    axes[1].set_ylim(bottom=0)
    axes[1].axhline(1, color="0.4", linewidth=1)
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    figure.savefig(path)
    plt.close(figure)


def number(value: float) -> str:
    """Three digits, thousands apart."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def size(count: float) -> str:
    """Bytes, as MiB or GiB."""
    return f"{count / 2**20:,.0f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"


def fastest(model: str) -> pd.DataFrame:
    """The most `images per second` of a network's training on each machine and in each precision that was measured."""
    rows = []
    for file in sorted(BENCHMARKS.glob("*.json")):
        told = json.loads(file.read_text(encoding="utf-8"))
        measured = pd.DataFrame(told["rows"]).assign(machine=told["device"])
        rows.append(measured[measured["model"] == model])
    speeds = pd.concat(rows).groupby(["machine", "precision"])["images_per_second"].max()
    return speeds.rename("images per second").reset_index()
