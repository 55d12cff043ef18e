"""What `test_distributed` does in one process and, started by torchrun, in two that share every batch."""

from __future__ import annotations

import contextlib
import math
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from conftest import double, toy_data
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from lth import distributed
from lth.analysis.gradient_flow import GradientFlow
from lth.data import Data
from lth.errors import LthError
from lth.methods import init, prune
from lth.methods.distribution import random_masks, uniform
from lth.methods.dst import DST
from lth.models import Model
from lth.population import Population, concat
from lth.store.runs import Store
from lth.training.batches import Batches
from lth.training.plan import Probe
from lth.training.recipe import Recipe
from lth.training.train import train

STEPS = 24
PLAIN = Recipe(steps=STEPS, batch_size=12, lr=0.1, weight_decay=1e-3, label_smoothing=0.1, augment="resized")
NORMED = Recipe(steps=9, batch_size=16, lr=0.05, weight_decay=1e-3)


def images(folder: Path) -> Data:
    """Images in a file, of which networks see the middle."""
    data = toy_data(160, (3, 10, 10), 4)
    path = folder / f"images-{distributed.rank()}.safetensors"
    save_file({"images": data.train.images}, path)
    with safe_open(path, "pt") as file:
        train_ = replace(data.train, images=file.get_tensor("images"), on_disk=True, seen=8)
    return replace(data, train=train_, test=replace(data.test, seen=8))


def networks() -> Population:
    """Two that RigL moves, one that SET moves, one that is pruned gradually."""
    dense = init.glorot_uniform(Model("lenet_300_100", (3, 8, 8), 4, widths=(20, 10)), seeds=range(4))
    dense = double(dense).label(method=["rigl", "rigl", "set", "gmp"])
    sparse = prune.apply(dense, random_masks(dense, uniform(dense.model, 0.5)))
    return concat([sparse[[0, 1, 2]], dense[[3]]])


def plain(folder: Path) -> dict[str, torch.Tensor]:
    """Stopped on the way, after that from the checkpoint: what lay in it, and what came out, names in a row."""
    rules = {"rigl": DST("gradient", 5, STEPS), "set": DST("random", 5, STEPS), "gmp": prune.Gradual(0.8, 4, 16, 4)}
    how = {"updates": rules, "probes": [Probe(5, GradientFlow(40))], "keep": [7], "checkpoint": folder / "checkpoint"}
    calls: list[object] = []

    def stop(progress: object) -> None:
        calls.append(progress)
        if len(calls) == 7 and distributed.rank() == 0:  # the others hear of it
            raise KeyboardInterrupt

    data = images(folder)
    # as two do, one is to stand between the same two steps however long they take
    with contextlib.suppress(KeyboardInterrupt), mock.patch("lth.training.group.STRETCH", math.inf):
        train(networks(), data, PLAIN, watch=stop, **how)
    distributed.wait()  # until the first has written it
    with safe_open(folder / "checkpoint", "pt") as file:
        found = {f"checkpoint.{name}": file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
    run = train(networks(), data, PLAIN, **how)
    for kind, population in (("final", run.final), ("kept", run.at(7))):
        found |= {f"{kind}.theta": population.theta(), f"{kind}.mask": population.theta_mask()}
    numbers = run.history.select_dtypes("number").to_numpy(np.float64)
    return found | {"history": torch.from_numpy(numbers)}


def normed() -> tuple[Population, Data]:
    """A network with batch norm, and images for it."""
    network = double(init.kaiming_normal(Model("resnet8", (3, 16, 16), 4), seeds=[0], method="dense"))
    return network, toy_data(160, (3, 16, 16), 4)


def with_batch_norm() -> dict[str, torch.Tensor]:
    """Ours, and the same by PyTorch's DistributedDataParallel."""
    network, data = normed()
    final = train(network, data, NORMED).final
    found = {f"ours.{n}": t[0] for n, t in (final.params | final.buffers).items()}
    module = normed()[0].module(0).train()
    whole = DistributedDataParallel(module)
    optimizer = torch.optim.SGD(module.parameters(), NORMED.lr, NORMED.momentum, weight_decay=NORMED.weight_decay)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, NORMED.steps)
    order, _ = Batches([0], len(data.train), NORMED.batch_size).between(0, NORMED.steps)
    for rows in order[:, 0].tensor_split(2, dim=1)[distributed.rank()]:
        optimizer.zero_grad()
        F.cross_entropy(whole(data.train.pixels(rows).double()), data.train.labels[rows]).backward()
        optimizer.step()
        scheduler.step()
    return found | {f"theirs.{n}": t.detach().clone() for n, t in module.state_dict().items()}


def refusals(folder: Path) -> list[str]:
    """What is told of a batch that cannot be shared, and of processes that were given different networks."""
    told = []
    network, data = networks()[[3]].label(method="dense"), toy_data(160, (3, 8, 8), 4)
    for population, batch in ((network, 15), (network.label(seed=100 + distributed.rank()), 16)):
        try:
            train(population, data, Recipe(steps=2, batch_size=batch))
            told.append("nothing")
        except LthError as error:
            told.append(str(error))
    return told


def stored(folder: Path) -> list[str]:
    """The first process trains into its store, and all read from it."""
    store, data = Store(folder / "store"), toy_data(160, (3, 8, 8), 4)
    recipe, told = Recipe(steps=3, batch_size=16), []
    for seeds in ([0], [1, 0, 2]):
        network = init.glorot_uniform(Model("lenet_300_100", (3, 8, 8), 4, widths=(6, 4)), seeds, method="dense")
        run = store.train(network, data, recipe)
        told.append(f"{len(run.final)} {run.final.theta().sum().item():.5f} {len(list(store.root.glob('runs/*')))}")
    return told


if __name__ == "__main__":
    out = Path(sys.argv[1])
    tensors = plain(out) | with_batch_norm()
    lines = [*refusals(out), *stored(out)]
    (out / f"told-{distributed.rank()}.txt").write_text("\n".join(lines), encoding="utf-8")
    if distributed.rank() == 0:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, out / "found.safetensors")
