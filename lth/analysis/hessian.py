"""Hessians of the mean cross-entropy in the active parameters: products, spectra, top eigenpairs [E, App. E].

A pruned weight is no variable: rows and columns outside the mask are left out, where they would add false zeros to a
spectrum. What is never pruned (biases, batch norm's scale and shift) is active. Networks are in evaluation mode: batch
norm uses the statistics it has gathered, as with those of the batch the loss would no longer be a mean over images.
Of a network that failed in training, whose parameters are not numbers, everything is nan.
Small networks have an `exact` Hessian, others are known by what it does to vectors [Ghorbani et al. 2019].
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from lth import seeds as streams
from lth.analysis.hessian_matrix import matrix
from lth.analysis.lanczos import krylov
from lth.data import Split
from lth.errors import UsageError
from lth.memory import in_less_room, room
from lth.parallel import cores, map_replicas
from lth.population import Population
from lth.precision import full_precision

EXACT = 5000  # active parameters, at most, of an exact Hessian
PRODUCT = {"cpu": 2**20, "cuda": 2**28}  # numbers that layers put out for the images of one block
KEPT = {"cpu": 2**24, "cuda": 2**30}  # numbers that layers put out for all images, whose graphs stay between products
TOGETHER = 2**29  # numbers in the vectors of all replicas that are worked on together on a GPU
ENTRIES = {"cpu": 2**20, "cuda": 2**25}  # the same, where all entries of a Hessian are found


# --- products -----------------------------------------------------------------------------------------------


@in_less_room
@full_precision()
def hvp(population: Population, split: Split, v: Tensor) -> Tensor:
    """H v of each replica, with zeros outside the mask: (R, P) → (R, P), parameters in the order of `theta`."""
    _check(population, split)
    if v.shape != (want := population.theta().shape):
        raise UsageError(f"a Hessian is multiplied by one vector for each replica, {tuple(want)}, not {tuple(v.shape)}")
    return _each(lambda rows: [_products(population[rows], split)(v[None, rows])[0]], population)[0]


def _products(population: Population, split: Split) -> Callable[[Tensor], Tensor]:
    """Multiplies by H: maps K vectors of each replica, (K, R, P), to (K, R, P), by differentiating twice.

    The gradient and how it came about are kept from one product to the next, if there is room for them.
    """
    network, replicas = population.network().eval(), len(population)
    params, mask = list(network.parameters()), population.theta_mask()
    sizes = [p.numel() // replicas for p in params]
    blocks = split.pieces(_images(population, PRODUCT))

    def gradient(block: Tensor) -> tuple[Tensor, ...]:
        images = split.pixels(block).to(params[0].dtype).repeat(1, replicas, 1, 1)
        logits = network(images).reshape(len(block) * replicas, -1)
        loss = F.cross_entropy(logits, split.labels[block].repeat_interleave(replicas), reduction="sum")
        return torch.autograd.grad(loss, params, create_graph=True)

    small = population.model.outputs * replicas * len(split) <= room(KEPT[population.device.type])
    kept = [gradient(block) for block in blocks] if small else ()

    def multiply(vectors: Tensor) -> Tensor:
        vectors = vectors * mask
        directions = [[d.reshape(p.shape) for d, p in zip(v.split(sizes, 1), params, strict=True)] for v in vectors]
        total = torch.zeros_like(vectors)
        for gradients in kept or map(gradient, blocks):
            for sums, direction in zip(total, directions, strict=True):
                found = torch.autograd.grad(gradients, params, direction, retain_graph=True)
                sums += torch.cat([f.reshape(replicas, -1) for f in found], dim=1)
        return total * mask / len(split)

    return multiply


def _images(population: Population, numbers: dict[str, int]) -> int:
    """How many images to take at a time."""
    return max(room(16), room(numbers[population.device.type]) // (population.model.outputs * len(population)))


# --- spectra ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of each replica's Hessian, or what stands for them, in the order of the frame's rows.

    values:  (n,) float64 for each replica; from `spectrum` all of them, ascending.
    weights: (n,) float64 for each replica, the share of all eigenvalues that each stands for; they sum to 1.

    Both are kept on the CPU, wherever they come from.
    """

    frame: pd.DataFrame
    values: list[Tensor]
    weights: list[Tensor]

    def __post_init__(self) -> None:
        for name in ("values", "weights"):
            object.__setattr__(self, name, [t.cpu() for t in getattr(self, name)])

    def ends(self) -> pd.DataFrame:
        """The frame with `smallest` and `largest`, the outermost eigenvalues of each replica [E, Fig. 11a]."""
        ends = [(float(values.min()), float(values.max())) for values in self.values]
        return self.frame.assign(smallest=[low for low, _ in ends], largest=[high for _, high in ends])

    def density(self, grid: Sequence[float] | None = None, width: float | None = None) -> pd.DataFrame:
        """The spectrum smoothed by Gaussians: the frame's columns, `eigenvalue` and `density`, a row per grid point.

        width: standard deviation of the Gaussians; by default a 300th of the range of all replicas' values.
        grid:  where the density is given; by default as far as there is any, in steps of `width`. On it, the sum of
               `density` times the step is 1.
        """
        ends = self.ends()
        low, high = ends.smallest.min(), ends.largest.max()
        width = width or (high - low or abs(high) or 1.0) / 300
        if grid is None:
            grid = np.arange(low - 6 * width, high + 7 * width, width)
        points = torch.as_tensor(np.asarray(grid), dtype=torch.float64)
        tables = []
        for r, (values, weights) in enumerate(zip(self.values, self.weights, strict=True)):
            kernel = torch.exp(-((points[:, None] - values) / width).square() / 2) / (width * math.sqrt(2 * math.pi))
            row = self.frame.iloc[[r] * len(points)]
            tables.append(row.assign(eigenvalue=points.numpy(), density=(kernel @ weights).numpy()))
        return pd.concat(tables, ignore_index=True)


def exact(population: Population, split: Split) -> Iterator[Tensor]:
    """The Hessian of each replica in its n active parameters, in the order of `theta`, one at a time: (n, n) float64.

    Its entries have the precision of the parameters. Raises UsageError where a replica has more than 5,000 of them.
    """
    _check(population, split)
    if (most := int(population.theta_mask().sum(1).max())) > EXACT:
        raise UsageError(
            f"an exact Hessian of {most:,} active parameters has {most**2:,} entries, the most are {EXACT:,}²: "
            "lth.analysis.hessian.lanczos estimates the spectrum, and .top finds the largest eigenvalues"
        )
    images, sound = _images(population[[0]], ENTRIES), population.sound()
    sizes = population.theta_mask().sum(1).tolist()
    nothing = lambda n: torch.full((n, n), math.nan, dtype=torch.float64, device=population.device)  # noqa: E731
    return (matrix(population[[r]], split, images) if sound[r] else nothing(n) for r, n in enumerate(sizes))


def spectrum(population: Population, split: Split) -> Spectrum:
    """All eigenvalues of the Hessian of each replica [E, Figs. 10 and 11]; UsageError as for `exact`."""
    values = [
        torch.linalg.eigvalsh(hessian) if hessian.isfinite().all() else hessian.diagonal() * math.nan
        for hessian in exact(population, split)
    ]
    return Spectrum(population.frame, values, [torch.full_like(v, 1 / len(v)) for v in values])


# --- Lanczos ------------------------------------------------------------------------------------------------


def lanczos(population: Population, split: Split, steps: int = 100, probes: int = 1, seed: int = 0) -> Spectrum:
    """Ritz values and weights that stand for the spectrum, steps · probes of them for each replica, probe by probe.

    Stochastic Lanczos quadrature: `steps` steps of Lanczos, each a product with the Hessian, from each of `probes`
    random vectors. The outermost eigenvalues are met closely, and closer with every step, those between
    them as a density. Raises UsageError for more steps than active parameters.
    """
    return lanczos_at(population, split, [steps], probes, seed)[0]


@in_less_room
@full_precision()
def lanczos_at(
    population: Population, split: Split, steps: Sequence[int], probes: int = 1, seed: int = 0
) -> list[Spectrum]:
    """`lanczos` after several numbers of steps, at the price of the largest: do they still tell different things?

    One probe after another: in memory are as many vectors as there are steps, see `check_room`.
    """
    fewest = _check(population, split)
    if not 1 <= min(steps) <= max(steps) <= fewest or probes < 1:
        raise UsageError(
            f"Lanczos takes at least 1 probe and 1 to {fewest:,} steps, one for each active parameter: "
            f"not {probes} and {max(steps):,}"
        )

    def run(rows: slice) -> Sequence[Tensor]:
        part = population[rows]
        multiply, found = _products(part, split), {m: [] for m in steps}
        for probe in range(probes):
            for m, space in enumerate(krylov(multiply, _start(part, seed, probe)[None], max(steps)), start=1):
                if m in found:
                    values, vectors = (kept[0] for kept in space.ritz())
                    found[m].append((values, vectors[..., 0].square() / probes))
        return [torch.cat(kind, 1) for m in steps for kind in zip(*found[m], strict=True)]

    told = [list(some) for some in _each(run, population, max(steps))]
    return [Spectrum(population.frame, *told[2 * k : 2 * k + 2]) for k in range(len(steps))]


def check_room(population: Population, steps: int) -> None:
    """UsageError where the vectors of so many steps of `lanczos` do not fit into memory: known before any training.

    On a CPU each core works on a replica of its own. [P]'s 512 steps on ResNet-18 take 21 GiB for each.
    """
    gpu = population.device.type == "cuda"
    at_once = 1 if gpu else min(cores(), len(population))
    needed = at_once * steps * population.theta().shape[1] * population.theta().element_size()
    there = (
        torch.cuda.mem_get_info(population.device)[1]
        if gpu
        else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    )
    if needed > there:
        raise UsageError(
            f"{steps} steps of Lanczos on {population.model.name} keep {needed / 2**30:.0f} GiB of vectors, and "
            f"{there / 2**30:.0f} GiB are all there is: take fewer steps"
        )


class Top(NamedTuple):
    """k eigenpairs of each replica's Hessian, the outermost first.

    values: (R, k) float64. vectors: (R, k, P), of length 1, zero outside the mask. residuals: (R, k), ‖H v − λ v‖.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor


@in_less_room
@full_precision()
def top(
    population: Population,
    split: Split,
    k: int = 1,
    *,
    negative: bool = False,
    tolerance: float = 1e-3,
    steps: int = 200,
    seed: int = 0,
    scale: Tensor | None = None,
) -> Top:
    """The k largest eigenvalues of each replica with their eigenvectors; the k smallest if `negative`.

    Lanczos from one random vector until every residual, which bounds an eigenvalue's error, is at most `tolerance`
    times the largest |λ|, or for so many `steps`; then it warns. Of equal eigenvalues one is found. Raises UsageError
    for more eigenpairs than steps or active parameters. Where there are fewer different ones the rest is nan.

    scale: (R, P), units in which each parameter is counted: eigenpairs of D H D, D = diag(scale), are then found, such
           as curvatures in relative changes (`lth.analysis.calibration.layer_lengths`).
    """
    steps = min(steps, _check(population, split))
    if not 1 <= k <= steps:
        raise UsageError(f"{steps} steps of Lanczos give 1 to {steps} eigenpairs, not {k}")

    def run(rows: slice) -> Sequence[Tensor]:
        part, units = population[rows], None if scale is None else scale[rows]
        products = _products(part, split)
        multiply = products if units is None else lambda vectors: units * products(units * vectors)
        spaces = krylov(multiply, _start(part, seed, 0)[None], steps)
        for m, space in enumerate(spaces, start=1):
            if m < steps and (m < k or m % 5):
                continue
            values, vectors = (found[0] for found in space.ritz())
            none = (vectors.to(space.basis.dtype) @ space.basis[0]).norm(dim=-1) < 0.5  # where the vectors ran out
            values = values.masked_fill(none, math.inf if negative else -math.inf)
            order = values.argsort(dim=1, descending=not negative)
            values = values.gather(1, order)
            vectors = vectors.gather(1, order[..., None].expand_as(vectors))
            residuals = space.beta[0, :, -1:] * vectors[:, :k, -1].abs()
            found = values.isfinite()
            largest = values.abs().where(found, 0.0).amax(1, keepdim=True)
            good = (residuals <= tolerance * largest) & found[:, :k]
            if good.all():
                break
        return (
            values[:, :k].where(found[:, :k], math.nan),
            vectors[:, :k].to(space.basis.dtype) @ space.basis[0],
            residuals,
            good,
        )

    *found, good = _each(run, population, steps)
    if not good.all():
        warnings.warn(
            f"after {steps} steps of Lanczos {int((~good).sum())} of {good.numel()} eigenpairs are less accurate than "
            f"{tolerance:g}: see their residuals, or allow more steps",
            stacklevel=2,
        )
    return Top(*found)


def _start(population: Population, seed: int, probe: int) -> Tensor:
    """A random vector under the mask, the same numbers for all replicas: (R, P)."""
    theta, mask = population.theta(), population.theta_mask()
    drawn = torch.randn(theta.shape[1], generator=streams.torch_stream(seed, streams.PROBE, probe))
    return drawn.to(theta) * mask


def _each(run: Callable[[slice], Sequence[Tensor]], population: Population, vectors: int = 1) -> list[Tensor]:
    """What `run` gives for the replicas; on a CPU for one at a time, so that none depends on the others, on a GPU for
    as many as it may hold so many `vectors` of each. nan for replicas that are not sound."""
    rows = np.flatnonzero(population.sound())
    if population.device.type == "cpu":
        parts = map_replicas(run, [slice(r, r + 1) for r in rows])
    else:
        size = max(1, room(TOGETHER) // (vectors * population.theta().shape[1])) if len(rows) == len(population) else 1
        parts = [run(slice(r, r + size)) for r in rows[::size]]
    every = []
    for tensors in zip(*parts, strict=True):
        known = torch.cat(tensors)
        every.append(known.new_full((len(population), *known.shape[1:]), math.nan))
        every[-1][torch.as_tensor(rows, device=known.device)] = known
    return every


def _check(population: Population, split: Split) -> int:
    """The least number of active parameters; UsageError where these have no Hessian."""
    if not len(split):
        raise UsageError("the split has no images: a Hessian is a mean over at least one")
    if population.model.shape != (shape := split.shape):
        raise UsageError(f"{population.model.name} was made for {population.model.shape} images, the split has {shape}")
    if population.device != split.device:
        raise UsageError(f"the population is on {population.device}, the split on {split.device}")
    if not population.sound().any():
        raise UsageError("no replica has numbers for parameters: all of them failed in training")
    return int(population.theta_mask().sum(1).min())
