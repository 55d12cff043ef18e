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

from lth.book.comparison import paper_table
from lth.book.settings import ImageNet
from lth.book.speed import BENCHMARKS
from lth.methods.dst import DST
from lth.methods.prune import Gradual
from lth.models import Model
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

    def gradual(self) -> Gradual:
        """Magnitude pruning, for the ticket's mask: ResNet-50's schedule [E, Table 3], in proportion."""
        start, end, every = (max(1, round(self.steps * share)) for share in (5 / 32, 8 / 32, 2 / 32))
        return Gradual(SPARSITY, start, max(end, start + 1), every, self.dense)

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


def beside(networks: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Test accuracy beside the paper's, row by row: mean ± standard deviation over networks, in per cent.

    networks: row of the ledger → `method`, `init`, `accuracy` of each network; {} where there are none.
    """
    lines = []
    for row in PAPER:
        told = paper_table(row).set_index(["method", "init"])
        here = networks[row].groupby(["method", "init"]).accuracy if row in networks else ()
        ours = {cell: spread(100 * x) for cell, x in here}
        for cell, (mean, deviation) in told.iterrows():
            paper = f"{mean:.2f} ± {deviation:.2f}"
            line = {"row": row, "method": cell[0], "initial weights": cell[1], "paper": paper}
            lines.append(line | {"here": ours.get(cell, "–")})
    return pd.DataFrame(lines)


def spread(samples: pd.Series | np.ndarray) -> str:
    """«74.38 ± 0.01», mean and standard deviation."""
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


def flops(name: str, shape: tuple[int, int, int], classes: int) -> int:
    """Floating-point operations of a network's layers for one image, forwards."""
    with FlopCounterMode(display=False) as counter:
        Model(name, shape, classes).build().eval()(torch.zeros(1, *shape, device="meta"))
    return counter.get_total_flops()
