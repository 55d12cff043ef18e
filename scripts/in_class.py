"""Does the preset `quick` show what the sessions are about? Seed by seed, into the table of the course's guide.

    .venv/bin/python scripts/in_class.py [FOLDER]

runs the chapters of sessions 2 to 5 with ten networks each, if FOLDER has not got them yet (some twenty minutes on two
cores), and counts in how many of the ten an effect has the sign that it has in the paper.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from lth.files import ROOT, write_text

SEEDS = 10
TABLE = ROOT / "book" / "course" / "in_class.csv"


def lt_basin(data: Path) -> Iterator[tuple[str, pd.Series]]:
    """Means over the two networks on each pruning solution's mask."""
    ticket, fresh = "ticket", "Scratch (diff. init.)"
    ends = pd.read_csv(data / "distances.csv").groupby(["method", "solution"])[["accuracy", "d_final"]].mean()
    barriers = pd.read_csv(data / "barriers.csv")
    barriers = barriers[barriers.line != "ticket to ticket"].groupby(["method", "solution"]).barrier.mean()
    yield "Tickets end nearer to the pruning solution than fresh weights", ends.d_final[fresh] - ends.d_final[ticket]
    yield "Tickets are more accurate", ends.accuracy[ticket] - ends.accuracy[fresh]
    yield "The way from a ticket has the lower barrier", barriers[fresh] - barriers[ticket]


def gradient_flow(data: Path) -> Iterator[tuple[str, pd.Series]]:
    flow = pd.read_csv(data / "onset.csv").set_index(["method", "init", "seed"]).flow_start["Scratch"]
    accuracy = pd.read_csv(data / "accuracy.csv").set_index(["method", "init", "seed"]).accuracy["Scratch"]
    for what, measured in {"start with a stronger gradient": flow, "end more accurate": accuracy}.items():
        gain = pd.Series(measured["sparsity-aware"].to_numpy() - measured["original"].to_numpy())
        yield f"Networks from sparsity-aware weights {what}", gain


def dst_updates(data: Path) -> Iterator[tuple[str, pd.Series]]:
    """Means over the updates of the first half of training, and the end."""
    changes, accuracy = pd.read_csv(data / "changes.csv"), pd.read_csv(data / "accuracy.csv")
    changes = changes[(changes.init == "sparsity-aware") & (changes.every == changes.every.max())]
    raised = changes[changes.step <= changes.step.max() / 2].groupby(["method", "mask"]).powers.mean()
    accuracy = accuracy[(accuracy.init == "sparsity-aware") & (accuracy.every == accuracy.every.max())]
    accuracy = accuracy.set_index(["method", "mask"]).accuracy
    yield "RigL's updates raise the gradient", raised["RigL"]
    yield "They raise it more than SET's", raised["RigL"] - raised["SET"]
    yield "RigL-Inverted ends less accurate than RigL", accuracy["RigL"] - accuracy["RigL-Inverted"]
    yield "RigL ends more accurate than SET", accuracy["RigL"] - accuracy["SET"]


def rti_repulsion(data: Path) -> Iterator[tuple[str, pd.Series]]:
    """Means over the levels with 2 to 30 % of the weights, SGD and the better rate of Adam."""
    forced = pd.read_csv(data / "forced.csv").query("2 <= left <= 30")
    accuracy = forced.groupby(["arm", "method", "network"]).accuracy.mean()
    for name, arm in {"SGD": "sgd:0.1:60", "Adam": "adam:0.005:60"}.items():
        imp = accuracy[arm, "ticket"]
        yield f"{name}: tickets are more accurate than reinitialised networks", imp - accuracy[arm, "reinit"]
        yield f"{name}: tickets are more accurate than repelled ones", imp - accuracy[arm, "repelled"]


SESSIONS = {2: lt_basin, 3: gradient_flow, 4: dst_updates, 5: rti_repulsion}


def table(folder: Path) -> pd.DataFrame:
    """A row for each effect: session, what it is, and in how many networks it has its sign."""
    rows = []
    for session, effects in SESSIONS.items():
        for effect, gains in effects(folder / effects.__name__ / "data"):
            rows.append({"session": session, "effect": effect, f"of {SEEDS}": int((gains > 0).sum())})
            assert len(gains) == SEEDS, (effect, len(gains))
    return pd.DataFrame(rows)


def main(folder: Path) -> None:
    for chapter in [effects.__name__ for effects in SESSIONS.values()]:
        if not (folder / chapter / "claims.json").is_file():
            run = [Path(sys.executable).with_name("lth"), "run", chapter, "--preset", "quick", "--out", folder]
            subprocess.run([*run, "-p", f"seeds={SEEDS}"], check=True)
    write_text(TABLE, (found := table(folder)).to_csv(index=False))
    print(found.to_string(index=False))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "in_class"))
