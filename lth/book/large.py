"""The papers' networks for ImageNet: how [E, Table 4] trains them, shorter where that is asked, and what that costs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from lth.book.chapter import Chapter
from lth.book.comparison import by_unit, paper_table
from lth.book.settings.imagenet import ImageNet
from lth.book.speed import BENCHMARKS
from lth.methods import init, prune, sparse_init
from lth.methods.distribution import erk, random_masks
from lth.methods.dst import DST
from lth.models import Model
from lth.population import concat
from lth.training.plan import Run
from lth.training.recipe import Recipe

SPARSITY = 0.8
IMAGES = 1_281_167  # for training in ImageNet
SEEN = 128_000 * 1024  # images in a training of [E]: 102 epochs
DROPS, WARMUP = (30, 70, 90), 5  # epochs
ONE_SHOT = 90 * IMAGES  # images in a training of [M]
ONE_SHOT_PAPER = {0.4: (76.1, -2.4), 0.1: (72.1, -2.0)}  # learning rate → dense (%), ticket − dense [M, App. C]


@dataclass(frozen=True)
class Column:
    """A column of the paper's Table 1.

    drop, every, end: of SET and RigL, share of weights of the first update, steps between two, step of the last.
    rewind: step that tickets go back to. dense: the layer of which nothing is pruned.
    """

    model: str
    steps: int
    batch: int
    lr: float
    drop: float
    every: int
    end: int = 25_000
    rewind: int = 0
    dense: str = ""
    precision: str = "fp32"

    def recipe(self, first_step: int = 0) -> Recipe:
        """SGD with warm-up, a tenth of the learning rate after each of `DROPS`."""
        epoch = self.steps * IMAGES / SEEN
        drops = {min(max(1, round(drop * epoch)), self.steps - 1) for drop in DROPS}
        return Recipe(
            steps=self.steps,
            first_step=first_step,
            batch_size=self.batch,
            lr=self.lr,
            schedule="step",
            milestones=tuple(sorted(drops)),
            warmup=round(WARMUP * epoch),
            weight_decay=1e-4,
            augment="resized",
            precision=self.precision,
        )

    def gradual(self) -> prune.Gradual:
        """Magnitude pruning, for the ticket's mask: ResNet-50's schedule [E, Table 3], in proportion."""
        start, end, every = (max(1, round(self.steps * share)) for share in (5 / 32, 8 / 32, 2 / 32))
        return prune.Gradual(SPARSITY, start, max(end, start + 1), every, self.dense)

    def rules(self, block: int) -> dict[str, dict[str, DST]]:
        """Scratch, SET and RigL: the mask updates that `train` takes. block: images that give RigL's gradient."""
        how = (self.every, max(self.end, self.every + 1), self.drop, block)
        return {"Scratch": {}, "SET": {"SET": DST("random", *how)}, "RigL": {"RigL": DST("gradient", *how)}}


PAPER = {
    "E3": Column("vgg16", 128_000, 1024, 0.04, 0.1, 500),
    "E4": Column("resnet50_imagenet", 32_000, 4096, 1.6, 0.3, 100, rewind=5_000, dense="conv1.weight"),
}


def columns(settings: ImageNet) -> dict[str, Column]:
    """The columns by row of the ledger, with a chapter's networks and batches; steps are times `imagenet_length`."""
    steps = lambda count: math.ceil(count * settings.imagenet_length)  # noqa: E731
    chosen = zip(PAPER.items(), settings.imagenet_models, settings.imagenet_batches, strict=True)
    found = {}
    for (row, column), model, batch in chosen:
        scaled = {name: steps(getattr(column, name)) for name in ("steps", "every", "end", "rewind")}
        found[row] = replace(column, model=model, batch=batch, precision=settings.imagenet_precision, **scaled)
    return found


def smaller(model: Model, dense: str) -> Model:
    """The same architecture with as many parameters as its sparse networks have left, or a little fewer."""
    count = lambda one: sum(shape.numel() for shape in one.shapes.params.values())  # noqa: E731
    pruned = sum(model.shapes.params[name].numel() for name in model.prunable if name != dense)
    left = count(model) - SPARSITY * pruned
    widest = math.ceil(64 * math.sqrt(left / count(model))) + 4  # weights grow with the square of the width
    narrower = (replace(model, widths=(width,)) for width in range(widest, 0, -1))
    return next((one for one in narrower if count(one) <= left), replace(model, widths=(1,)))


def trained(chapter: Chapter, column: Column) -> list[Run]:
    """All that is trained for a column of the table: dense, pruned, tickets, small dense, and three ways to train under
    random masks (ERK) with three kinds of initial weights each (He's, factor 2 and fan-in)."""
    images, settings, how, early = chapter.imagenet, chapter.parameters, column.recipe(), column.rewind
    net = Model(column.model, images.shape, images.classes)
    some = range(settings.first_seed, settings.first_seed + settings.imagenet_seeds)
    first = init.kaiming_normal(net, some, init="dense").to(chapter.device)
    both = concat([first.label(method=method) for method in ["Baseline", "Pruned"]])
    pruning = chapter.train(both, how, images, updates={"Pruned": column.gradual()}, keep=[early])
    last, before = (some_of[both.frame.method == "Pruned"] for some_of in [pruning.final, pruning.at(early)])
    ticket = prune.rewind(last, before).label(method="ticket", init="ticket")
    little = init.kaiming_normal(smaller(net, column.dense), some, init="dense")
    little = little.to(chapter.device).label(method="Small dense")
    runs = [pruning, chapter.train(ticket, column.recipe(early), images), chapter.train(little, how, images)]
    masked = prune.apply(first, random_masks(first, erk(net, SPARSITY, {column.dense} - {""})))
    masked = masked.label(init="original")
    liu = sparse_init.normal(masked, "forward", "layer", scale=2).label(init="Liu")
    aware = sparse_init.normal(masked, "forward", scale=2).label(init="sparsity-aware")
    for method, rules in column.rules(settings.block).items():
        start = concat([masked, liu, aware]).label(method=method)
        runs.append(chapter.train(start, how, images, updates=rules))
    return runs


def samples(networks: Mapping[str, pd.DataFrame]) -> dict[str, pd.Series]:
    """The samples of the claims E3 and E4, in points, from the tables that `beside` takes."""
    found = {}
    for row, table in networks.items():
        cells = 100 * by_unit(table, "accuracy")
        masked, aware = (cells["Scratch", kind] for kind in ("original", "sparsity-aware"))
        rigl, random = (cells[method, "sparsity-aware"] for method in ("RigL", "SET"))
        ticket, little = cells["ticket", "ticket"], cells["Small dense", "dense"]
        found |= {f"{row}.scratch": aware - masked, f"{row}.rigl": rigl - aware}
        if row == "E3":
            found |= {"E3.lottery": ticket - masked, "E3.small": rigl - little}
        else:
            found |= {"E4.lottery": ticket - aware, "E4.small": np.minimum(rigl - little, little - aware)}
            found["E4.set"] = np.minimum(random - aware, rigl - random)
    return found


def beside(networks: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Test accuracy beside the paper's, row by row: mean ± standard deviation over networks, in per cent.

    networks: row of the ledger → `method`, `init`, `accuracy` of each network; {} where there are none, and the table
    has no column for them.
    """
    lines = []
    for row in PAPER:
        told = paper_table(row).set_index(["method", "init"])
        here = networks[row].groupby(["method", "init"]).accuracy if row in networks else ()
        ours = {cell: spread(100 * x) for cell, x in here}
        for cell, (mean, deviation) in told.iterrows():
            paper = f"{mean:.2f} ± {deviation:.2f}"
            line = {"row": row, "method": cell[0], "initial weights": cell[1], "paper": paper}
            lines.append(line | ({"here": ours.get(cell, "–")} if networks else {}))
    return pd.DataFrame(lines)


def spread(samples: pd.Series | np.ndarray) -> str:
    """«74.38 ± 0.01», mean and standard deviation, over n as in the tables of [E]."""
    return f"{np.mean(samples):.2f} ± {np.std(samples):.2f}"


def cost(images: Mapping[str, float], side: int = 224, classes: int = 1000) -> pd.DataFrame:
    """Days that training on so many images takes, architecture by architecture, on each machine that was measured.

    A machine is taken to multiply as fast as in the network of its benchmark that uses it best.
    """
    rows = []
    for file in sorted(BENCHMARKS.glob("*.json")):
        told = json.loads(file.read_text(encoding="utf-8"))
        for precision, part in pd.DataFrame(told["rows"]).groupby("precision"):
            rate = max(
                speed * flops(name, tuple(map(int, image.split("×"))), 10)
                for name, image, speed in zip(part["model"], part["image"], part["images_per_second"], strict=True)
                if speed == speed
            )
            for name, count in images.items():
                days = count * flops(name, (3, side, side), classes) / rate / 86_400
                rows.append({"network": name, "machine": told["device"], "precision": precision, "days": days})
    return pd.DataFrame(rows)


def in_words(costs: pd.DataFrame) -> pd.DataFrame:
    """What `cost` found, with the time as one would say it: «14 days», «56 years»."""

    def told(days: float) -> str:
        return f"{days / 365:,.0f} years" if days > 730 else f"{days:{'.0f' if days >= 10 else '.2g'}} days"

    return costs.drop(columns="days").assign(takes=list(map(told, costs.days)))


def flops(name: str, shape: tuple[int, int, int], classes: int) -> int:
    """Floating-point operations of a network's layers for one image, forwards."""
    with FlopCounterMode(display=False) as counter:
        Model(name, shape, classes).build().eval()(torch.zeros(1, *shape, device="meta"))
    return counter.get_total_flops()
