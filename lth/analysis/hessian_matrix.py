"""Every entry of a network's Hessian, at a fraction of the cost of one Hessian-vector product per weight.

Let a be what goes into a layer, z what comes out, and δ = ∂L/∂z. As z is linear in the layer's own parameters,

    ∂L/∂w = Σᵢ ⟨δ(i), c_w(i)⟩,  c_w = ∂z/∂w,

summed over images, and neither this layer nor one that runs later has a part in c_w. So the entries of row w that
belong to these layers are the derivative of that sum with c_w held fixed, a backward pass through them alone; the
other entries are mirror images.

In the linear layers at the end, where most weights are, one pass serves all weights of a neuron. A weight from input
j to neuron o has c_w = a_j for that neuron and zero for the others; with the images kept apart,

    ∂²L/∂w∂w′ = Σᵢ a_j(i) [∂δ_o′(i)/∂z_o(i) · a_j′(i) + δ_o′(i) · ∂a_j′(i)/∂z_o(i)],

a matrix product over images. For the linear layers of LeNet5 that makes 214 passes, however many of their weights are
active; each active parameter of a convolution takes one of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.func import functional_call
from torch.nn import functional as F

from lth.data import Split
from lth.memory import in_less_room, room
from lth.parallel import cores, map_replicas
from lth.population import Population
from lth.precision import full_precision

LIMIT = {"cpu": 2**22, "cuda": 2**28}  # numbers that layers put out, over all directions of one backward pass


class Layer(NamedTuple):
    """A layer's n active parameters. As one matrix, its parameters have a row for each neuron or channel, and the bias
    is the last column."""

    params: dict[str, nn.Parameter]
    row: Tensor  # (n,), ascending
    column: Tensor  # (n,)
    place: Tensor  # (n,): where they are among all of the layer's parameters, one after another
    start: int  # where these begin in θ


class Passage(NamedTuple):
    """What happened at a layer when images ran through it: a, z, and δ with its graph (see above)."""

    module: nn.Module
    layer: Layer
    a: Tensor
    z: Tensor
    delta: Tensor


@in_less_room
@full_precision()
def matrix(population: Population, split: Split, images_at_once: int) -> Tensor:
    """Hessian of the first replica's mean cross-entropy in its n active parameters, in the order of θ: (n, n) float64.

    The network is in evaluation mode and computes in its own precision; blocks of images are summed in float64. On a
    CPU every core has its share of the blocks.
    """
    blocks = split.pieces(room(images_at_once))
    count = cores() if population.device.type == "cpu" else 1
    total = sum(map_replicas(lambda share: _sum(population, split, share), [blocks[k::count] for k in range(count)]))
    return total / len(split)


def _sum(population: Population, split: Split, blocks: Sequence[Tensor]) -> Tensor | float:
    """Sum of the Hessians of the cross-entropy over some blocks of images: (n, n) float64."""
    module = population.module(0).eval()
    layers, dtype = _layers(module, population.theta_mask()[0]), population.theta().dtype
    tape: dict[nn.Module, tuple[Tensor, Tensor]] = {}  # in the order in which the layers run
    for part in layers:
        part.register_forward_hook(lambda part, args, out: tape.update({part: (args[0], out)}))
    total: Tensor | float = 0.0
    for block in blocks:
        tape.clear()
        loss = F.cross_entropy(module(split.pixels(block).to(dtype)), split.labels[block], reduction="sum")
        total = total + _upper([(part, layers[part], a, z) for part, (a, z) in tape.items()], loss).double()
    if not blocks:
        return total
    order = torch.cat([layers[part].start + layers[part].place for part in tape]).argsort()
    return (total.triu() + total.triu(1).mT)[order][:, order]


def _layers(module: nn.Module, mask: Tensor) -> dict[nn.Module, Layer]:
    """The layers of a network whose mask, in the order of θ, is (P,)."""
    layers, start = {}, 0
    for part in module.modules():
        if params := dict(part.named_parameters(recurse=False)):
            sizes = [p.numel() for p in params.values()]
            places = torch.arange(sum(sizes), device=mask.device)
            parts = zip(places.split(sizes), params.values(), strict=True)
            places = torch.cat([part.view(len(p), -1) for part, p in parts], dim=1)
            active = mask[start + places]
            layers[part] = Layer(params, *active.nonzero().T, places[active], start)
            start += sum(sizes)
    return layers


def _upper(run: Sequence[tuple[nn.Module, Layer, Tensor, Tensor]], loss: Tensor) -> Tensor:
    """Second derivatives of `loss` in the order in which layers ran; what is left of the diagonal blocks is zero."""
    modules, layers, a, z = zip(*run, strict=True)
    end = 1 + max((i for i, part in enumerate(modules) if not isinstance(part, nn.Linear)), default=-1)
    # terms that are zero: the derivative of δ by a probe is that of a layer's input by z
    probes = [torch.zeros_like(x, requires_grad=True) for x in a[end + 1 :]]
    terms = [(probe * x).sum() for probe, x in zip(probes, a[end + 1 :], strict=True)]
    deltas = grad(sum(terms, loss), z, create_graph=True)
    passages = [Passage(*found) for found in zip(modules, layers, a, z, deltas, strict=True)]
    sizes = [len(layer.row) for layer in layers]
    upper, start = loss.new_zeros(sum(sizes), sum(sizes)), 0
    for i, size in enumerate(sizes):
        rows = upper[start : start + size, start:]
        if i < end:
            _by_weight(rows, passages[i:])
        else:
            _by_neuron(rows, passages[i:], probes[i - end :])
        start += size
    return upper


def _by_weight(rows: Tensor, passages: Sequence[Passage]) -> None:
    """Fills the rows of the first layer, a pass for each parameter; the columns are those of all the layers."""
    module, layer, a, z, delta = passages[0]
    params, columns, start = [], [], 0
    for passage in passages:
        params += passage.layer.params.values()
        columns.append(start + passage.layer.place)
        start += sum(p.numel() for p in passage.layer.params.values())
    columns, sizes = torch.cat(columns), [p.numel() for p in layer.params.values()]
    for k, place in enumerate(layer.place):
        one = z.new_zeros(sum(sizes)).index_fill_(0, place, 1.0).split(sizes)
        parts = {name: part.view_as(p) for (name, p), part in zip(layer.params.items(), one, strict=True)}
        c = functional_call(module, parts, a.detach())
        found = grad(delta, params, c, retain_graph=True, materialize_grads=True)
        rows[k] = torch.cat([f.flatten() for f in found])[columns]


def _by_neuron(rows: Tensor, passages: Sequence[Passage], probes: Sequence[Tensor]) -> None:
    """Fills the rows of the first layer, a pass for each neuron; all layers are linear, and their columns follow."""
    first = passages[0]
    a = torch.cat([F.pad(passage.a.detach(), (0, 1), value=1.0).mT for passage in passages])  # 1 goes into a bias
    delta = torch.cat([passage.delta.detach().mT for passage in passages])
    row, column, neurons, inputs = [], [], 0, 0
    for passage in passages:
        row.append(passage.layer.row + neurons)
        column.append(passage.layer.column + inputs)
        neurons, inputs = neurons + passage.z.shape[1], inputs + passage.a.shape[1] + 1
    row, column, own = torch.cat(row), torch.cat(column), len(first.layer.row)
    a, delta, above = a[column], delta[row[own:]], column[own:] - first.a.shape[1] - 1
    z = [passage.z for passage in passages]
    together, start = max(1, room(LIMIT[rows.device.type]) // sum(out.numel() for out in z)), 0
    counts = list(enumerate(first.layer.row.bincount(minlength=first.z.shape[1]).tolist()))
    for at in range(0, len(counts), together):
        some = counts[at : at + together]
        directions = a.new_zeros(len(some), *first.z.shape)
        for v, (neuron, _) in enumerate(some):
            directions[v, :, neuron] = 1
        found = grad(first.delta, [*z, *probes], directions, retain_graph=True, is_grads_batched=True)
        d_delta = torch.cat(found[: len(z)], -1).mT
        d_a = torch.cat([F.pad(f, (0, 1)) for f in found[len(z) :]], -1).mT if probes else None
        for v, (_, count) in enumerate(some):
            y = d_delta[v].index_select(0, row).mul_(a)
            if probes:
                y[own:].addcmul_(delta, d_a[v].index_select(0, above))
            rows[start : start + count] = a[start : start + count] @ y.mT
            start += count
