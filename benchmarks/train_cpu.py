"""How fast `train()` is on a CPU beside a plain PyTorch loop: `python benchmarks/train_cpu.py [--json PATH]`.

Both train the same R networks for the same steps on random images of MNIST's size. The plain loop is what one would
write: a module, `torch.optim.SGD`, one network after another, float images in memory, all cores for each tensor
operation. The two take turns in one process, so that whatever else the machine does slows both.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from lth.data import Data, Split
from lth.methods.init import glorot_uniform
from lth.models import Model
from lth.population import Population
from lth.recipe import Recipe
from lth.train import train

EXAMPLES, BATCH, LR, MOMENTUM = 60_000, 128, 0.05, 0.9


def random_data() -> Data:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (EXAMPLES, 1, 28, 28), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.randint(10, (EXAMPLES,), generator=generator))
    return Data("random", split, split, 10, "random")


def plain_loop(population: Population, images: torch.Tensor, labels: torch.Tensor, steps: int) -> None:
    """`steps` steps of SGD on every network, one after another."""
    for r in range(len(population)):
        module = population.model.build("cpu")
        module.load_state_dict(population.module(r).state_dict())
        optimizer = torch.optim.SGD(module.parameters(), LR, MOMENTUM)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(r))
        for batch in order.split(BATCH)[:steps]:
            optimizer.zero_grad()
            F.cross_entropy(module(images[batch]), labels[batch]).backward()
            optimizer.step()


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(name: str, replicas: int, steps: int, rounds: int) -> dict[str, float]:
    """Replica-steps per second of both over all rounds, and their ratio."""
    data, recipe = random_data(), Recipe(steps=steps, batch_size=BATCH, lr=LR, momentum=MOMENTUM)
    population = glorot_uniform(Model(name), seeds=range(replicas))
    images = data.train.pixels(torch.arange(EXAMPLES))
    contenders = {
        "population": lambda: train(population, data, recipe),
        "plain": lambda: plain_loop(population, images, data.train.labels, steps),
    }
    for work in contenders.values():  # warm up
        work()
    spent = dict.fromkeys(contenders, 0.0)
    for _ in range(rounds):
        for contender, work in contenders.items():
            spent[contender] += seconds(work)
    speed = {contender: replicas * steps * rounds / t for contender, t in spent.items()}
    return speed | {"ratio": speed["population"] / speed["plain"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200, help=f"per round, at most {EXAMPLES // BATCH}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    if not 0 < options.steps <= EXAMPLES // BATCH:
        parser.error(f"--steps must lie between 1 and {EXAMPLES // BATCH}")
    found = {n: measure(n, options.replicas, options.steps, options.rounds) for n in ("lenet5", "lenet_300_100")}
    cores = torch.get_num_threads()
    table = Table(title=f"replica-steps/s, R = {options.replicas}, batch {BATCH}, {cores} cores")
    for column in ("model", "train()", "plain PyTorch", "ratio"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name, row in found.items():
        table.add_row(name, f"{row['population']:.0f}", f"{row['plain']:.0f}", f"{row['ratio']:.2f}")
    Console().print(table)
    if options.json:
        told = {"replicas": options.replicas, "batch": BATCH, "cores": cores, "torch": torch.__version__}
        options.json.write_text(json.dumps(told | {"replica_steps_per_second": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
