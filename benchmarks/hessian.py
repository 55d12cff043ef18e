"""How fast spectra of the Hessian are beside PyHessian, on this machine: LeNet5 with 95 % of its weights pruned.

Density: steps of Lanczos from one random vector, on the same images. `lth.analysis.hessian.lanczos` takes the replicas
together and gives a density; of PyHessian, which knows no masks, it is the products alone, a network after another (its
own density no longer runs with this torch). Both take turns, three times.
Exact: all entries of one Hessian in the active parameters, and its eigenvalues (the paper's way, on 60,000 images).
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from pyhessian import hessian as PyHessian
from pyhessian.utils import hessian_vector_product, normalization
from torch.nn import functional as F

from lth.analysis import hessian
from lth.data import Split
from lth.methods import prune
from lth.methods.init import glorot_uniform
from lth.models import Model
from lth.population import Population
from lth.store.runs import device_name


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long it takes, until the device has done it."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def theirs(population: Population, split: Split, steps: int) -> None:
    """So many of PyHessian's Hessian-vector products for each network, from a random vector on."""
    pixels = split.pixels(torch.arange(len(split), device=population.device))
    for r in range(len(population)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about the way in which it asks for derivatives
            data = pixels, split.labels
            network = PyHessian(population.module(r), F.cross_entropy, data=data, cuda=pixels.is_cuda)
        v = normalization([torch.randn_like(p) for p in network.params])
        for _ in range(steps):
            v = normalization(hessian_vector_product(network.gradsH, network.params, v))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cuda = torch.cuda.is_available()
    add = parser.add_argument
    add("--device", choices=("cpu", "cuda"), default="cuda" if cuda else "cpu")
    add("--replicas", type=int, default=8)
    add("--steps", type=int, default=20, help="of Lanczos; default: 20")
    add("--images", type=int, default=10_000 if cuda else 1_000, help="for the density; default: 1,000, GPU: 10,000")
    add("--exact-images", type=int, default=60_000 if cuda else 2_000, help="default: 2,000, on a GPU 60,000")
    given = parser.parse_args()
    if given.device == "cuda" and not cuda:
        parser.error("torch finds no GPU here: --device cpu")
    if min(given.replicas, given.steps, given.images, given.exact_images) < 1:
        parser.error("replicas, steps and images are positive whole numbers")
    return given


def main() -> None:
    given = arguments()
    device = torch.device(given.device)
    generator = torch.Generator().manual_seed(0)
    count = max(given.images, given.exact_images)
    images = torch.randint(0, 256, (count, 1, 28, 28), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.randint(10, (count,), generator=generator)).to(device)
    few = Split(split.images[: given.images], split.labels[: given.images])
    dense = glorot_uniform(Model("lenet5"), range(given.replicas)).to(device)
    population = prune.apply(dense, prune.magnitude_masks_per_layer(dense, 0.95))

    print(f"{device_name(device)}, torch {torch.__version__}")
    ours = lambda: hessian.lanczos(population, few, given.steps)  # noqa: E731
    other = lambda: theirs(population, few, given.steps)  # noqa: E731
    ours(), other()  # so that both have begun
    pairs = [(seconds(ours, device), seconds(other, device)) for _ in range(3)]
    mine, pyhessian = (statistics.median(times) / given.replicas for times in zip(*pairs, strict=True))
    print(
        f"density, {given.replicas} replicas, {given.steps} steps, {given.images:,} images: {mine:.2f} s a replica, "
        f"PyHessian {pyhessian:.2f} s, ratio {statistics.median(b / a for a, b in pairs):.2f}×"
    )
    many = Split(split.images[: given.exact_images], split.labels[: given.exact_images])
    spent = seconds(lambda: hessian.spectrum(population[[0]], many), device)
    print(
        f"exact, one replica of {int(population[[0]].theta_mask().sum()):,} active parameters, "
        f"{given.exact_images:,} images: {spent:.1f} s"
    )


if __name__ == "__main__":
    main()
