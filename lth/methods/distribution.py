"""How sparsity is shared out among the layers, and random masks that follow it.

A distribution is a dict, name of a prunable parameter → its sparsity. Layers named in `dense` keep all their
weights and do not count: the sparsity asked for is that of the others together ([E] keeps the first layer of
ResNet-50 so).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod

import torch

from lth import seeds as streams
from lth.errors import UsageError
from lth.methods.prune import check_sparsity, kept, largest
from lth.models import Model
from lth.population import Population, Tensors


def uniform(model: Model, sparsity: float, dense: Collection[str] = ()) -> dict[str, float]:
    """The same sparsity in every layer: name → sparsity."""
    return {name: 0.0 if name in dense else sparsity for name in _shapes(model, sparsity, dense)}


def erk(model: Model, sparsity: float, dense: Collection[str] = ()) -> dict[str, float]:
    """Erdős–Rényi-Kernel [Evci et al. 2020, used by E for its ImageNet networks]: name → sparsity.

    A layer of shape (out, in, height, width) has ε·(out + in + height + width) weights, a linear one
    ε·(out + in), with one ε for all. Where that is more than there are, the layer is dense and ε grows, so
    that the number of weights in all is that of `uniform`, up to rounding.
    """
    shapes = _shapes(model, sparsity, dense)
    open_ = {name: shape for name, shape in shapes.items() if name not in dense}
    weights = (1 - sparsity) * sum(map(prod, open_.values()))  # left to share out
    sparsities = dict.fromkeys(shapes, 0.0)
    while open_:
        epsilon = weights / sum(map(sum, open_.values()))
        full = [name for name, shape in open_.items() if epsilon * sum(shape) >= prod(shape)]
        if not full:
            break
        weights -= sum(prod(open_.pop(name)) for name in full)
    return sparsities | {name: 1 - epsilon * sum(shape) / prod(shape) for name, shape in open_.items()}


def random_masks(population: Population, sparsities: Mapping[str, float], uneven: bool = False) -> Tensors:
    """For each replica its own random masks with exact counts: name → (R, *shape) bool.

    A layer of n weights keeps max(1, round(n·(1 − sparsity))), as in `lth.methods.prune`. The masks depend on a
    replica's `seed` alone; of two sparsities with one seed, the sparser mask lies inside the other.
    uneven: each weight draws a number, and the largest stay; that of output i is from U(0, i), not U(0, 1), so that
    the last outputs are hubs and the first have no inputs at all. So the authors' program draws [E, Fig. 1c].
    Raises UsageError where a layer is missing or foreign, or would be left without weights.
    """
    if wrong := sorted(sparsities.keys() ^ population.masks.keys()):
        raise UsageError(f"sparsities do not fit {population.model.name}: missing or foreign {', '.join(wrong)}")
    masks = {}
    for layer, (name, old) in enumerate(population.masks.items()):
        check_sparsity(sparsities[name])
        size = old[0].numel()
        generators = [streams.torch_stream(seed, streams.MASK, layer) for seed in population.seeds]
        scores = torch.stack([torch.rand(size, generator=generator) for generator in generators]).view(old.shape)
        if uneven:
            scores *= torch.arange(1.0, 1 + old.shape[1]).view(-1, *[1] * (old.ndim - 2))
        masks[name] = largest(scores.flatten(1), kept(size, sparsities[name])).view(old.shape).to(old.device)
    return masks


def _shapes(model: Model, sparsity: float, dense: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of the prunable parameters; UsageError where `sparsity` or `dense` make no sense for them."""
    check_sparsity(sparsity)
    if unknown := sorted(set(dense) - set(model.prunable)):
        raise UsageError(f"{model.name} has no layer {', '.join(unknown)}: it has {', '.join(model.prunable)}")
    return {name: tuple(model.shapes.params[name]) for name in model.prunable}
