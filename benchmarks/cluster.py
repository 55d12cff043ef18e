"""What going through Ray costs on this machine: a small population trained here, and the same on a local cluster.

One LeNet5 for each core, for about 20 seconds each, so that a shard is one network. The two ways take turns;
the cluster's workers have loaded what they need before, and how long connecting took is told apart.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from lth.cluster.machines import Cluster
from lth.data import Data, Split
from lth.methods.init import glorot_uniform
from lth.models import Model
from lth.parallel import cores
from lth.store.runs import Store, device_name
from lth.training.recipe import Recipe
from lth.training.train import train

BATCH = 128


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="of training for each network; default: 20")
    parser.add_argument("--turns", type=int, default=3, help="default: 3")
    parser.add_argument("--on", default="ray", help="the cluster's address; default: ray, this machine")
    given = parser.parse_args()
    if min(given.seconds, given.turns) < 1:
        parser.error("seconds and turns are at least 1")
    return given


def main() -> None:
    given = arguments()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (10_000, 1, 28, 28), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.randint(10, (10_000,), generator=generator))
    data = Data("random", split, split, 10, "random")
    population = glorot_uniform(Model("lenet5"), range(cores()))
    recipe = Recipe(steps=100, batch_size=BATCH)

    started = time.monotonic()
    cluster = Cluster(given.on, "cpu")
    print(f"{device_name(torch.device('cpu'))}, torch {torch.__version__}")
    print(f"connected in {time.monotonic() - started:.1f} s, workers ready")
    train(population, data, recipe)
    speed = recipe.steps / train(population, data, recipe).seconds
    recipe = Recipe(steps=round(speed * given.seconds), batch_size=BATCH)
    ways: dict[str, list[float]] = {"here": [], "cluster": []}
    for _ in range(given.turns):
        for way, times in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                store = Store(Path(folder), on=cluster if way == "cluster" else None)
                started = time.monotonic()
                store.train(population, data, recipe)
                times.append(time.monotonic() - started)
    ratio = statistics.median(b / a for a, b in zip(*ways.values(), strict=True))
    print(
        f"{len(population)} networks, {recipe.steps:,} steps: here {statistics.median(ways['here']):.1f} s, cluster "
        f"{statistics.median(ways['cluster']):.1f} s, ratio {ratio:.3f}"
    )
    print("turn by turn: " + ", ".join(f"{a:.1f} and {b:.1f} s" for a, b in zip(*ways.values(), strict=True)))


if __name__ == "__main__":
    main()
