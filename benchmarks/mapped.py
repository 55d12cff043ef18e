"""How fast networks train from a file that is mapped into memory, beside the same from memory, on this machine.

An image folder is made, 10,000 pictures of 64×64, and decoded by `lth.data.mapped`. A network is trained from the file
and from memory in turns, on the same images with the same random parts. Beside it stands what memory the file takes:
that of the host which cannot be given back (anonymous), before and after training.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lth import data as datasets
from lth.data import Data, mapped
from lth.methods import init
from lth.models import Model
from lth.population import Population
from lth.store.runs import device_name
from lth.training.recipe import Recipe
from lth.training.train import train


def pictures(folder: Path, count: int, side: int, classes: int = 10) -> None:
    """Coloured noise, sorted into classes; a tenth as many for the test."""
    random = np.random.default_rng(0)
    for split, images in (("train", count), ("test", count // 10)):
        for label in range(classes):
            (folder / split / str(label)).mkdir(parents=True)
        for i in range(images):
            pixels = random.integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
            Image.fromarray(pixels).save(folder / split / str(i % classes) / f"{i}.jpg", quality=90)


def seconds(networks: Population, data: Data, recipe: Recipe) -> float:
    """Of training, which waits for the device at its end."""
    started = time.perf_counter()
    train(networks, data, recipe)
    return time.perf_counter() - started


def anonymous() -> float:
    """Memory of this process that lies in no file, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    add("--images", type=int, default=10_000, help="default: 10,000")
    add("--side", type=int, default=64, help="default: 64")
    add("--model", default="resnet20", help="default: resnet20")
    add("--steps", type=int, default=10, help="of each turn; default: 10")
    add("--turns", type=int, default=5, help="default: 5")
    given = parser.parse_args()
    if min(given.images // 100, given.side // 16, given.steps, given.turns) < 1:
        parser.error("at least 100 images of 16 pixels, a step and a turn")
    return given


def main() -> None:
    given = arguments()
    print(f"{device_name(torch.device(given.device))}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LTH_DATA"] = folder
        pictures(Path(folder) / "pictures", given.images, given.side)
        started = time.perf_counter()
        path = mapped.decode("made", Path(folder) / "pictures", given.side)
        spent, size = time.perf_counter() - started, path.stat().st_size / 2**20
        print(f"decoded {given.images * 11 // 10:,} images in {spent:.1f} s: {size:.0f} MiB")

        start = anonymous()
        file = datasets.load("made", given.device)
        model = Model(given.model, file.shape, file.classes)
        networks = init.kaiming_normal(model, [0], method="dense").to(given.device)
        recipe = Recipe(steps=given.steps, batch_size=min(128, given.images), augment="resized")
        grown = []
        for _ in range(2):
            seconds(networks, file, recipe)
            grown.append(anonymous() - start)
        print(f"host memory, without the file: {grown[0]:.0f} MiB more after one turn, {grown[1]:.0f} after two")

        memory = replace(file, train=file.train.take(range(len(file.train))))
        pairs = [(seconds(networks, file, recipe), seconds(networks, memory, recipe)) for _ in range(given.turns)]
        one, other = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        print(
            f"{given.model}, {given.steps} steps of {recipe.batch_size}: {one:.2f} s from the file, {other:.2f} s from "
            f"memory: {ratio:.2f}× the speed ({', '.join(f'{b / a:.2f}' for a, b in pairs)})"
        )


if __name__ == "__main__":
    main()
