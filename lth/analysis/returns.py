"""Whether a network has found an old solution again, where its signal goes: by layer, by pixel, by neuron.

The angle between whole weight vectors [M, Sec. 4.1] counts a weight on a pixel that is dark in every image like any
other. Such weights may turn it to whatever a penalty asks for, and the network does what it did before. So here weights
are compared in groups, and networks by what their neurons say, which no rescaling of layers or logits changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from lth.data import Split
from lth.errors import UsageError
from lth.gradients import mean_gradients
from lth.parallel import map_replicas
from lth.population import Population, Tensors
from lth.training.losses import Penalty

Groups = dict[str, Tensors]  # group → parameter → which of its weights: bool, broadcast over (R, *shape)


def lit(split: Split) -> Tensor:
    """Share of the images in which each number of the input is not zero: (C·H·W,), 0 … 1."""
    counts = [(split.images[piece] != 0).flatten(1).sum(0) for piece in split.pieces(5000)]
    return torch.stack(counts).sum(0) / len(split)


def groups(population: Population, split: Split, edges: Sequence[float] = (0.01, 0.1)) -> Groups:
    """The prunable weights of each layer; of a first layer with a weight for every pixel, by how often that is lit.

    The pixels are parted into those lit in no image, in up to edges[0] of them, …, in more than the last edge.
    Convolutions see all pixels through the same weights: they are one group each.
    """
    names, often = list(population.masks), lit(split)
    found = {name.removesuffix(".weight"): {name: torch.ones_like(population.masks[name][:1])} for name in names}
    first = population.masks[names[0]]
    if first.shape[2:] == often.shape:
        bounds = [-1.0, 0.0, *edges, 1.0]
        words = ["never lit", *(f"lit in up to {100 * edge:g} %" for edge in edges)]
        words += [f"in more than {100 * edges[-1]:g} %"]
        inside = [(often > low) & (often <= high) for low, high in zip(bounds[:-1], bounds[1:], strict=True)]
        layer = names[0].removesuffix(".weight")
        bands = {f"{layer}, {word}": {names[0]: band[None, None]} for word, band in zip(words, inside, strict=True)}
        found = bands | {name: group for name, group in found.items() if name != layer}
    return found


def cosines(a: Population, b: Population, groups: Groups) -> pd.DataFrame:
    """cos ∠(θ_a ⊙ m, θ_b ⊙ m) group by group, m: the weights of the group that both keep, replica by replica.

    A row per replica and group: the columns of `a`, `group`, `cosine` (NaN where nothing is shared or all is zero),
    `shared` (how many weights) and `share` (of all that the two share, 0 … 1).
    """
    if a.model != b.model or len(a) != len(b):
        raise UsageError("networks are compared replica by replica: as many of one as of the other, of one model")
    tables = []
    both = {name: mask & b.masks[name] for name, mask in a.masks.items()}
    total = sum(mask.flatten(1).sum(1) for mask in both.values())
    for title, group in groups.items():
        kept = {name: both[name] & some for name, some in group.items()}
        x, y = (_flat({name: p.params[name] * m for name, m in kept.items()}).double() for p in (a, b))
        cosine = (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))
        shared = _flat(kept).sum(1)
        columns = {"cosine": cosine, "shared": shared, "share": shared / total}
        tables.append(a.frame.assign(group=title, **{n: values.cpu().numpy() for n, values in columns.items()}))
    return pd.concat(tables, ignore_index=True)


def pulls(population: Population, penalty: Penalty, split: Split, groups: Groups) -> pd.DataFrame:
    """How strongly the loss and a penalty pull at the weights left, group by group.

    A row per replica and group: the frame's columns, `group`, `left` (how many weights), `reached` (how many have a
    gradient of the cross-entropy that is not exactly zero: a signal goes through these) and the root mean squares
    `cross_entropy` and `penalty` of the two gradients on all of `split`.
    """
    loss, _ = mean_gradients(population, split)
    params = {name: p.clone().requires_grad_() for name, p in population.params.items()}
    terms = penalty(params, population.masks).sum()
    push = dict(zip(population.masks, torch.autograd.grad(terms, [params[n] for n in population.masks]), strict=True))
    tables = []
    for title, group in groups.items():
        kept = _flat({name: population.masks[name] & some for name, some in group.items()})
        left = kept.sum(1)
        found = {"left": left}
        for word, grads in (("cross_entropy", loss), ("penalty", push)):
            flat = _flat({name: grads[name] for name in group}).double() * kept
            found[word] = (flat.square().sum(1) / left).sqrt()
            if word == "cross_entropy":
                found["reached"] = (flat != 0).sum(1)
        tables.append(population.frame.assign(group=title, **{n: values.cpu().numpy() for n, values in found.items()}))
    return pd.concat(tables, ignore_index=True)


def correlations(a: Population, b: Population, split: Split, batch: int = 500) -> pd.DataFrame:
    """How much the same neurons of two networks say the same: correlation of what they hold before the activation.

    Pearson's, over all images of `split` (and places, in a convolution), its mean over the neurons or channels of a
    layer; those that never change in one of the networks are left out. A row per replica and layer: the columns of
    `a`, `layer`, `correlation`. Networks that started from different weights have nothing to do with each other
    neuron by neuron, and come out near 0 before the last layer.
    """
    if a.model != b.model or len(a) != len(b):
        raise UsageError("networks are compared replica by replica: as many of one as of the other, of one model")
    names = [name.removesuffix(".weight") for name in a.masks]

    @torch.no_grad()
    def compare(replica: int) -> pd.DataFrame:
        modules = [population.module(replica).eval() for population in (a, b)]
        said: list[Tensors] = [{}, {}]
        sums: dict[str, Tensor] = {}
        for module, heard in zip(modules, said, strict=True):
            for name in names:
                module.get_submodule(name).register_forward_hook(_listen(heard, name))
        for piece in split.pieces(batch):
            for module in modules:
                module(split.pixels(piece).to(next(module.parameters()).dtype))
            for name in names:
                x, y = (heard[name].double().transpose(0, 1).flatten(1) for heard in said)
                moments = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y]).sum(2)
                sums[name] = sums.get(name, 0) + moments
        row = a.frame.iloc[[replica] * len(names)].reset_index(drop=True)
        return row.assign(layer=names, correlation=[_correlation(sums[name]) for name in names])

    return pd.concat(map_replicas(compare, range(len(a))), ignore_index=True)


def _listen(heard: Tensors, name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
    def hook(layer: nn.Module, given: tuple[Tensor], out: Tensor) -> None:
        heard[name] = out

    return hook


def _correlation(sums: Tensor) -> float:
    """Mean over neurons, from their sums of 1, x, y, x², y² and xy: (6, neurons)."""
    n, x, y, xx, yy, xy = sums
    spread = ((xx - x * x / n) / n).clamp_min(0).sqrt(), ((yy - y * y / n) / n).clamp_min(0).sqrt()
    alive = (spread[0] > 1e-9 * (xx / n).sqrt()) & (spread[1] > 1e-9 * (yy / n).sqrt())
    return float((((xy - x * y / n) / n) / (spread[0] * spread[1]))[alive].mean())


def _flat(tensors: Tensors) -> Tensor:
    return torch.cat([t.flatten(1) for t in tensors.values()], dim=1)
