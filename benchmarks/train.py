"""How fast `train()` is beside a plain PyTorch loop, network by network, on this machine.

A population of R networks is trained by `train()`; beside it runs the loop one would write: a module,
`torch.optim.SGD`, float images already in the device's memory, one network after another. The two take turns in one
process, so that whatever else the machine does slows both. Every row of the table has a process of its own.

  replica-steps/s   optimiser steps of single networks per second once training is under way (a step of 16 networks
                    counts 16), of the population and of the plain loop
  ratio             the one divided by the other
  memory            what training takes at its peak on top of data and initial weights: on a GPU
                    torch.cuda.max_memory_allocated, on a CPU the growth of the resident set
  first step        from calling train() to the end of the first step: set-up, and on a GPU compilation
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

from lth.data import Data, Split
from lth.files import file_name, write_text
from lth.methods.init import kaiming_normal
from lth.models import ARCHITECTURES, Model
from lth.population import Population
from lth.store.runs import device_name
from lth.training.compiling import compilations
from lth.training.plan import Progress
from lth.training.recipe import Recipe
from lth.training.train import train

EXAMPLES = 10_000
TURN = 0.25  # seconds that the population is ahead before the plain loop has its turn
MODELS = ("lenet_300_100", "lenet5", "conv4", "resnet20", "resnet18", "vgg16_bn", "mobilenet")
BOOK = Path(__file__).parents[1] / "book" / "benchmarks"
DISTURBED = 0.1  # cores that others may take without a word about it
OURS = ("lth", "benchmarks")  # folders whose warnings are for the reader


@dataclass(frozen=True)
class Contest:
    """What a row of the table compares."""

    model: str
    replicas: int
    batch: int
    precision: str
    device: str

    @property
    def architecture(self) -> Model:
        """On images of the size it is meant for; those of ImageNet are made smaller."""
        if self.model.startswith("lenet"):
            return Model(self.model)
        return Model(self.model, (3, 64, 64) if self.model.endswith("imagenet") else (3, 32, 32))

    @property
    def parameters(self) -> int:
        """Of one network."""
        return sum(shape.numel() for shape in self.architecture.shapes.params.values())

    def set_up(self, steps: int) -> tuple[Population, Data, Recipe]:
        """Networks, random images and a recipe, on the device."""
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.precision == "tf32"
        torch.backends.cudnn.benchmark = True  # for the plain loop; train() sees to itself
        model, generator = self.architecture, torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (EXAMPLES, *model.shape), generator=generator, dtype=torch.uint8)
        split = Split(images, torch.randint(model.classes, (EXAMPLES,), generator=generator))
        data = Data("random", split, split, model.classes, "random").to(self.device)
        recipe = Recipe(steps=steps, batch_size=self.batch, lr=0.01, schedule="constant", precision=self.precision)
        return kaiming_normal(model, range(self.replicas)).to(self.device), data, recipe


class Enough(Exception):
    """Measured for long enough."""


# --- what is measured, each in a process of its own -------------------------------------------------------


def plain_loop(population: Population, images: Tensor, labels: Tensor, recipe: Recipe) -> Iterator[None]:
    """Trains the first network of `population` the usual way, a step at each `next`. images: float."""
    device = population.device
    module = population.model.build(device)
    module.load_state_dict(population.module(0).state_dict())
    optimizer = torch.optim.SGD(module.parameters(), recipe.lr, recipe.momentum)
    generator = torch.Generator(device).manual_seed(0)
    while True:
        order = torch.randperm(len(labels), generator=generator, device=device)
        for batch in order.split(recipe.batch_size)[: len(labels) // recipe.batch_size]:
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                loss = F.cross_entropy(module(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            yield


def race(contest: Contest, seconds: float) -> dict[str, Any]:
    """Speed of both, each trained for `seconds` by turns, and the time to the first step.

    Counted from when every network has taken a step.
    """
    fastest, unwatched = (20_000, 20) if contest.device == "cuda" else (2_000, 1)  # steps a second, between two looks
    population, data, recipe = contest.set_up(steps=math.ceil(seconds * fastest))
    images = data.train.scaled(data.train.images)
    plain = plain_loop(population, images, data.train.labels, recipe)
    time_of = {"population": 0.0, "plain": 0.0}
    steps_of = {"population": 0.0, "plain": 0.0}
    first, since, before = 0.0, 0.0, 0.0

    def watch(progress: Progress) -> None:
        nonlocal first, since, before
        now, steps = clock(contest.device), progress.step * progress.replicas
        first = first or now - begun
        if before:
            time_of["population"] += now - since
            steps_of["population"] += steps - before
        elif progress.step >= 1:
            next(plain)  # so that both have begun
        if time_of["population"] - time_of["plain"] > TURN:
            while time_of["plain"] < time_of["population"]:
                start = clock(contest.device)
                for _ in range(unwatched):
                    next(plain)
                time_of["plain"] += clock(contest.device) - start
                steps_of["plain"] += unwatched
        if min(time_of.values()) >= seconds:
            raise Enough
        before = steps if progress.step >= 1 else 0.0
        since = clock(contest.device)

    begun, elsewhere = clock(contest.device), busy_elsewhere()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with contextlib.suppress(Enough):
            train(population, data, recipe, keep=[1], watch=watch)  # keep=[1]: watch is called after the first step
    others = max(0.0, busy_elsewhere() - elsewhere) / (clock(contest.device) - begun)
    notes = [str(w.message) for w in told if Path(w.filename).parent.name in OURS]
    if others > DISTURBED:
        notes.append(f"other programs took {others:.1f} cores meanwhile")
    speed = {contender: steps_of[contender] / time_of[contender] for contender in time_of}
    return {
        "replica_steps_per_second": speed["population"],
        "plain_replica_steps_per_second": speed["plain"],
        "ratio": speed["population"] / speed["plain"],
        "images_per_second": speed["population"] * contest.batch,
        "plain_images_per_second": speed["plain"] * contest.batch,
        "first_step_seconds": first,
        "cores_busy_elsewhere": round(others, 2),
        "note": "; ".join(dict.fromkeys(notes)),
    }


def peak(contest: Contest, contender: str) -> int:
    """Bytes that one contender's training takes on top of data and initial weights."""
    population, data, recipe = contest.set_up(steps=1)
    images, labels = data.train.scaled(data.train.images), data.train.labels
    small = kaiming_normal(Model("lenet5", population.model.shape), [0]).to(contest.device)
    next(plain_loop(small, images, labels, recipe.model_copy(update={"batch_size": 2})))  # for the libraries' own
    before = highest(contest.device, reset=True)
    if contender == "plain":
        loop = plain_loop(population, images, labels, recipe)
        next(loop), next(loop)  # only the second finds a momentum
    else:
        with warnings.catch_warnings(), patch.object(compilations, "at_once", True):  # as in `race`, which is longer
            warnings.simplefilter("ignore")  # told in `race`
            train(population, data, recipe)
    return highest(contest.device) - before


def clock(device: str) -> float:
    """Seconds, once the device has done what it was asked for."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def busy_elsewhere() -> float:
    """Core-seconds that other programs have used since the machine was started, but for those that yield (`nice`)."""
    ticks = [int(word) for word in Path("/proc/stat").read_text(encoding="utf-8").split("\n")[0].split()[1:9]]
    yielding, (idle, waiting) = ticks[1], ticks[3:5]
    return (sum(ticks) - yielding - idle - waiting) / os.sysconf("SC_CLK_TCK") - time.process_time()


def highest(device: str, reset: bool = False) -> int:
    """The most bytes that were in use so far, or since the last reset (on a GPU only)."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    if reset:
        torch.cuda.reset_peak_memory_stats()
    return torch.cuda.max_memory_allocated()


def compile_in(folder: str) -> None:
    """Keeps what is compiled in this folder, so that an earlier row does not shorten the first step."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder


def alone(cache: str, function: Callable[..., Any], *args: Any) -> Any:
    """The function's result, from a process of its own. Raises MemoryError where there was not memory enough.

    cache: folder of what is compiled on the way.
    """
    context = multiprocessing.get_context("forkserver")  # its processes find torch imported and no memory in use
    context.set_forkserver_preload(["lth.training.train", "lth.store.runs"])
    try:
        with ProcessPoolExecutor(1, context, compile_in, (cache,)) as pool:
            return pool.submit(function, *args).result()
    except torch.OutOfMemoryError as error:
        raise MemoryError("out of memory") from error
    except BrokenProcessPool as error:
        raise MemoryError("the system ended it, most likely for want of memory") from error
    except RuntimeError as error:
        if "allocate memory" in str(error):  # torch on a CPU
            raise MemoryError("out of memory") from error
        raise


# --- the table ------------------------------------------------------------------------------------------------


def free_memory(device: str) -> int:
    """Bytes."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    told = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
    return int(told["MemAvailable"].split()[0]) * 1024


def measure(contest: Contest, seconds: float) -> dict[str, Any]:
    """A row of the table; its `note` says what there is to say, such as why nothing was measured."""
    row: dict[str, Any] = {
        "model": contest.model,
        "parameters": contest.parameters,
        "image": "×".join(map(str, contest.architecture.shape)),
        "batch": contest.batch,
        "precision": contest.precision,
        "replicas": contest.replicas,
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_average": round(os.getloadavg()[0], 2),
    }
    needed = contest.replicas * contest.parameters * 4 * 5  # weights before and after, gradient, momentum, result
    if needed > free_memory(contest.device) / 3:
        return row | {"note": f"left out: about {needed / 2**30:.0f} GiB for weights alone"}
    try:
        with tempfile.TemporaryDirectory() as cache:
            row |= alone(cache, race, contest, seconds)
            row |= {"peak_bytes": alone(cache, peak, contest, "population")}
            return row | {"plain_peak_bytes": alone(cache, peak, contest, "plain")}
    except MemoryError as error:
        return row | {"note": str(error)}


HEADER = (
    f"{'network':18} {'batch':>5} {'R':>4}  {'replica-steps/s':>15} {'plain loop':>10} {'ratio':>6}  "
    f"{'images/s':>9}  {'memory':>9} {'plain loop':>10}  {'first step':>10}"
)


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    begin = f"{row['model']:18} {row['batch']:5} {row['replicas']:4}  "
    if "ratio" not in row:
        return begin + row["note"]
    peaks = [f"{row[key] / 2**20:,.0f} MiB" for key in ("peak_bytes", "plain_peak_bytes")]
    return begin + (
        f"{row['replica_steps_per_second']:15,.1f} {row['plain_replica_steps_per_second']:10,.1f} "
        f"{row['ratio']:5.2f}×  {row['images_per_second']:9,.0f}  {peaks[0]:>9} {peaks[1]:>10}  "
        f"{row['first_step_seconds']:8.2f} s" + (f"  {row['note']}" if row["note"] else "")
    )


def merged(path: Path, machine: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The content of a result file with one more row, which takes the place of an older one of the same kind.

    Rows of another machine or another torch do not stay.
    """
    told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = told["rows"] if told and {k: told[k] for k in machine} == machine else []
    kind = lambda row: [row[key] for key in ("precision", "model", "batch", "replicas")]  # noqa: E731
    names = list(ARCHITECTURES)
    rows = [other for other in rows if kind(other) != kind(row)] + [row]
    return machine | {"rows": sorted(rows, key=lambda r: (r["precision"], names.index(r["model"]), *kind(r)[2:]))}


def some(known: tuple[str, ...] | None = None) -> Callable[[str], list[Any]]:
    """Reads «a,b,c»: some of `known`, or positive whole numbers."""

    def read(text: str) -> list[Any]:
        words = text.split(",")
        if known is None:
            if not all(word.isdecimal() and int(word) for word in words):
                raise argparse.ArgumentTypeError(f"{text} is not a list of positive whole numbers, such as 1,4,16")
            return [int(word) for word in words]
        if unknown := [word for word in words if word not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known are {', '.join(known)}")
        return words

    return read


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cuda = torch.cuda.is_available()
    add = parser.add_argument
    add("--device", choices=("cpu", "cuda"), default="cuda" if cuda else "cpu")
    add("--models", type=some(tuple(ARCHITECTURES)), default=MODELS, metavar="A,B", help="default: " + ",".join(MODELS))
    add("--replicas", type=some(), metavar="R,R", help="default: 1,4,16,64")
    add("--batch", type=int, help="default: 128 on a GPU; on a CPU 128 for the LeNets and 32 for the others")
    add(
        "--precision",
        type=some(("fp32", "tf32", "bf16")),
        metavar="P,P",
        help="fp32,tf32,bf16: arithmetic of both contenders (lth.training.recipe); default: fp32, on a GPU fp32,bf16",
    )
    add("--seconds", type=float, help="of training that are measured, for each contender in each row; default: 5")
    add("--quick", action="store_true", help="only see whether it runs: R = 1 and 4, half a second, batches of 8")
    add("--json", type=Path, metavar="PATH", help="also write the numbers here; rows that are there already stay")
    add("--save", action="store_true", help="the same in book/benchmarks, from where the book's page takes them")
    given = parser.parse_args()
    if given.quick and given.save:
        parser.error("--quick measures too little for the book: leave out one of --quick and --save")
    if given.device == "cuda" and not cuda:
        parser.error("torch finds no GPU here: --device cpu")
    for name, small, usual in (("replicas", [1, 4], [1, 4, 16, 64]), ("seconds", 0.5, 5.0), ("batch", 8, None)):
        if getattr(given, name) is None:
            setattr(given, name, small if given.quick else usual)
    given.precision = given.precision or (["fp32", "bf16"] if given.device == "cuda" else ["fp32"])
    if given.seconds <= 0 or (given.batch is not None and not 0 < given.batch <= EXAMPLES):
        parser.error(f"--seconds must be above 0 and --batch between 1 and {EXAMPLES}")
    return given


def main() -> None:
    given = arguments()
    machine = {
        "device": device_name(torch.device(given.device)),
        "kind": given.device,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "memory": "torch.cuda.max_memory_allocated" if given.device == "cuda" else "growth of the resident set",
    }
    paths = [given.json] if given.json else []
    if given.save:
        BOOK.mkdir(exist_ok=True)
        paths.append(BOOK / file_name(machine["device"]))
    print(f"{machine['device']}, torch {machine['torch']}; memory is {machine['memory']}")
    for precision in given.precision:
        print(f"\n{precision}\n{HEADER}", flush=True)
        for model in given.models:
            usual = 128 if given.device == "cuda" or model.startswith("lenet") else 32
            for replicas in given.replicas:
                contest = Contest(model, replicas, given.batch or usual, precision, given.device)
                row = measure(contest, given.seconds)
                print(line(row), flush=True)
                for path in paths:
                    write_text(path, json.dumps(merged(path, machine, row), indent=1, ensure_ascii=False) + "\n")
    if paths:
        print(f"\nwritten to {', '.join(map(str, paths))}")


if __name__ == "__main__":
    main()
