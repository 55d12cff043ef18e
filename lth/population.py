"""A population: R networks of one architecture, their parameters stacked, beside a table of what each is.

Every tensor has the replica as its first axis. The table (`frame`) has one row per replica, in the same
order; every measurement in `lth.analysis` returns a table that carries these columns, so that seaborn can
plot it as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lth.data import Split
from lth.errors import LthError, UsageError
from lth.memory import in_less_room, room
from lth.models import Model
from lth.models.stacked import stack
from lth.parallel import map_replicas
from lth.precision import full_precision
from lth.tensor_files import Tensors, save_tensors, unpacked

Result = TypeVar("Result")
BATCH = {"cpu": 100, "cuda": 500}  # images at a time; a CPU's cache holds no more
TOGETHER = 2**31  # numbers that layers put out, for the images and replicas that a GPU works on together


@dataclass(frozen=True)
class Population:
    """R replicas of `model`.

    params:  name → (R, *shape), float. Zero wherever the mask is False.
    masks:   name → (R, *shape), bool, for the prunable parameters (True: the weight is there).
    buffers: name → (R, *shape), e.g. batch-norm statistics.
    frame:   R rows, index 0 … R−1. `seed` is a replica's own seed for whatever is random in its training
             (data order); other columns say what it is. A column named as a per-replica field of
             `lth.training.train.Recipe` (`lr`, `weight_decay`) overrides the recipe for that replica.
    """

    model: Model
    params: Tensors
    masks: Tensors
    buffers: Tensors
    frame: pd.DataFrame

    def __post_init__(self) -> None:
        if not len(self.frame):
            raise UsageError("a population needs at least one replica")
        of = self.model.shapes
        masks = {n: of.params[n] for n in of.prunable}
        for kind, shapes in (("params", of.params), ("masks", masks), ("buffers", of.buffers)):
            tensors = getattr(self, kind)
            if kind == "masks" and (odd := [n for n, t in tensors.items() if t.dtype != torch.bool]):
                raise UsageError(f"masks: {odd[0]} holds {tensors[odd[0]].dtype}, expected bool")
            if wrong := sorted(tensors.keys() ^ shapes.keys()):
                raise UsageError(f"{kind} do not fit {self.model.name}: missing or foreign {', '.join(wrong)}")
            for name, shape in shapes.items():
                if tuple(tensors[name].shape) != (want := (len(self.frame), *shape)):
                    raise UsageError(f"{kind}: {name} has shape {tuple(tensors[name].shape)}, expected {want}")
            # one order for all, the module's: `theta` concatenates in it, files do not keep it
            object.__setattr__(self, kind, {name: tensors[name] for name in shapes})

    # --- what it is -------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def device(self) -> torch.device:
        return next(iter(self.params.values())).device

    @property
    def seeds(self) -> list[int]:
        return [int(seed) for seed in self.frame["seed"]]

    def sound(self) -> np.ndarray:
        """Which replicas are networks at all, with parameters that can be computed with: (R,) bool.

        ‖θ‖² must be a number in their precision. The other replicas failed in training; whatever is measured of them is
        nan, so that means leave them out.
        """
        squares = [p.detach().flatten(1).square().sum(1) for p in self.params.values()]
        return torch.stack(squares).sum(0).isfinite().cpu().numpy()

    def without(self, failed: np.ndarray) -> Population:
        """The same replicas with nan for all parameters of those that `failed`, (R,) bool: networks no more."""
        if not np.any(failed):
            return self
        gone = torch.as_tensor(np.asarray(failed, bool), device=self.device)
        void = lambda p: p.masked_fill(gone.view(-1, *[1] * (p.ndim - 1)), math.nan)  # noqa: E731
        return replace(self, params={name: void(p) for name, p in self.params.items()})

    def theta(self) -> Tensor:
        """All parameters of each replica as one vector θ: (R, P)."""
        return torch.cat([p.flatten(1) for p in self.params.values()], dim=1)

    def theta_mask(self) -> Tensor:
        """The mask m of each replica in the order of `theta`, True for what is never pruned: (R, P) bool."""
        rows = [self.masks.get(n, torch.ones_like(p, dtype=torch.bool)) for n, p in self.params.items()]
        return torch.cat([m.flatten(1) for m in rows], dim=1)

    def with_theta(self, theta: Tensor) -> Population:
        """The same networks with other parameters, given as (R, P); the masks stay."""
        parts = theta.split([p[0].numel() for p in self.params.values()], dim=1)
        shaped = zip(self.params.items(), parts, strict=True)
        return replace(self, params={n: part.reshape(p.shape) for (n, p), part in shaped})

    def sparsity(self) -> Tensor:
        """Fraction of zeros among the prunable weights of each replica: (R,) float64, exact up to its last digit."""
        return 1 - self.weights_left().double() / sum(m[0].numel() for m in self.masks.values())

    def weights_left(self) -> Tensor:
        """How many prunable weights of each replica its masks leave: (R,) int64."""
        return sum(m.flatten(1).sum(1) for m in self.masks.values())

    # --- choosing and combining -------------------------------------------------------------------------

    def __getitem__(self, rows: Any) -> Population:
        """Some replicas: by a boolean column (`pop[pop.frame.method == "scratch"]`), indices or a slice."""
        if not isinstance(rows, slice):
            rows = np.asarray(rows) if np.size(rows) else []
        index = np.arange(len(self))[rows].reshape(-1)
        if not len(index):
            raise UsageError("the selection has no replicas: compare with pop.frame")
        at = torch.as_tensor(index, device=self.device)
        pick = lambda tensors: {n: t.index_select(0, at) for n, t in tensors.items()}  # noqa: E731
        frame = self.frame.iloc[index].reset_index(drop=True)
        return Population(self.model, pick(self.params), pick(self.masks), pick(self.buffers), frame)

    def repeat(self, times: int) -> Population:
        """Each replica `times` times over, in the order 0 … R−1, 0 … R−1, …"""
        return self[list(range(len(self))) * times]

    def label(self, **columns: Any) -> Population:
        """The same networks with these columns set in the frame."""
        return replace(self, frame=self.frame.assign(**columns))

    def with_plus_zeros(self) -> Population:
        """The same networks with +0, and never −0, for every pruned weight: the same to the bit when only the weights
        under the masks are kept."""
        params = {n: p.masked_fill(~self.masks[n], 0) if n in self.masks else p for n, p in self.params.items()}
        return replace(self, params=params)

    def to(self, device: str | torch.device) -> Population:
        move = lambda tensors: {n: t.to(device) for n, t in tensors.items()}  # noqa: E731
        return replace(self, params=move(self.params), masks=move(self.masks), buffers=move(self.buffers))

    # --- what it computes -------------------------------------------------------------------------------

    def module(self, replica: int) -> nn.Module:
        """Replica number `replica` as a plain module whose parameters are views of the stacked tensors."""
        one = lambda tensors: {n: t[replica] for n, t in tensors.items()}  # noqa: E731
        return _filled(self.model.build(), one(self.params), one(self.buffers))

    def network(self) -> nn.Module:
        """All replicas as one module, (B, R·C, H, W) → logits (B, R, classes), on the stacked tensors themselves.

        A single replica is a plain module, which is faster: its logits are (B, classes).
        """
        return self.module(0) if len(self) == 1 else _filled(stack(self.model.build()), self.params, self.buffers)

    def in_parts(self, run: Callable[[slice], Result], images: int) -> list[Result]:
        """`run(rows)` for slices of the replicas that together are all: one replica each on a CPU, so that none
        depends on the others; on a GPU as many as there is memory for when each is given so many `images` at once."""
        if self.device.type == "cpu":
            return map_replicas(run, [slice(r, r + 1) for r in range(len(self))])
        size = max(1, room(TOGETHER) // (self.model.outputs * images))
        return [run(slice(r, r + size)) for r in range(0, len(self), size)]

    @in_less_room
    @torch.no_grad()
    def logits(self, split: Split) -> Tensor:
        """Outputs before the softmax on all images of `split`, in full precision: (R, N, classes)."""
        dtype = next(iter(self.params.values())).dtype
        pieces = split.pieces(room(BATCH[self.device.type]))
        if self.device.type == "cpu":

            def forward(replica: int) -> Tensor:
                module = self.module(replica).eval().to(memory_format=torch.channels_last)  # half as fast again
                return torch.cat([module(split.pixels(piece).to(dtype)) for piece in pieces])

            return torch.stack(map_replicas(torch.no_grad()(forward), range(len(self))))
        network, replicas = self.network().eval(), len(self)
        images = (split.pixels(piece).to(dtype).repeat(1, replicas, 1, 1) for piece in pieces)
        with full_precision():
            return torch.cat([network(x).reshape(len(x), replicas, -1).transpose(0, 1) for x in images], dim=1)

    def evaluate(self, split: Split, together: int = 16) -> pd.DataFrame:
        """The frame with three more columns: mean cross-entropy `loss` (nats), `error` and `accuracy` (0 … 1).

        An image whose logits are not numbers is an error, and the loss is not a number then either. All three are nan
        for a replica that is not `sound`. `together` replicas are held in memory at a time.
        """
        losses, errors = [], []
        for at in range(0, len(self), together):
            logits = self[at : at + together].logits(split)
            labels = split.labels.expand(len(logits), -1)
            losses += F.cross_entropy(logits.mT, labels, reduction="none").double().mean(1).tolist()
            errors += (classes(logits) != labels).double().mean(1).tolist()
        sound = self.sound()
        loss, error = (np.where(sound, values, math.nan) for values in (losses, errors))
        return self.frame.assign(loss=loss, error=error, accuracy=1 - error)

    # --- keeping it -------------------------------------------------------------------------------------

    def save(self, path: Path, compact: bool = False, **more: Any) -> None:
        """Writes the population as one safetensors file, whole or not at all.

        Tensors are named `params.NAME`, `masks.NAME`, `buffers.NAME`; model and frame are JSON in the header, and
        `more` beside them. compact: of parameters with a mask `values.NAME`, those under it, and `bits.NAME`, the mask
        eight to a byte; a twentieth of the size where a twentieth of the weights is left. The header then has their
        shapes, so that `unpacked` needs no architecture.
        """
        groups = {"params": dict(self.params), "masks": dict(self.masks), "buffers": self.buffers}
        if compact:
            groups |= {"values": {}, "bits": {}}
            for name in self.masks:
                mask = groups["masks"].pop(name).cpu()
                if not mask.all():
                    groups["values"][name] = groups["params"].pop(name).cpu()[mask]
                    groups["bits"][name] = torch.from_numpy(np.packbits(mask.numpy()))
        tensors = {f"{g}.{n}": t.contiguous().cpu() for g, ts in groups.items() for n, t in ts.items()}
        shapes = {"shapes": {name: self.masks[name].shape[1:] for name in self.masks}} if compact else {}
        save_tensors(path, tensors, {**self.header, "compact": compact, **shapes, **more})

    @property
    def header(self) -> dict[str, Any]:
        """What a file says beside the tensors, as JSON: the model, and the row of each replica."""
        model = {"name": self.model.name, "shape": self.model.shape, "classes": self.model.classes}
        return {"model": model | self.model.options, "frame": self.frame.to_dict("list")}

    @classmethod
    def load(cls, path: Path, device: str | torch.device = "cpu") -> Population:
        """Reads what `save` wrote. Raises LthError, naming the file, where it is damaged or foreign."""
        groups, header = unpacked(path)
        try:
            model, frame = Model(**header["model"]), pd.DataFrame(header["frame"])
            groups = {kind: {n: t.to(device) for n, t in tensors.items()} for kind, tensors in groups.items()}
            return cls(model, **groups, frame=frame)
        except (KeyError, TypeError, ValueError, RuntimeError, UsageError) as error:
            raise LthError(f"{path} holds no population: {error}") from error


def _filled(module: nn.Module, params: Tensors, buffers: Tensors) -> nn.Module:
    """The module with these tensors in the place of its own."""
    for name, tensor in params.items():
        owner, _, leaf = name.rpartition(".")
        module.get_submodule(owner).register_parameter(leaf, nn.Parameter(tensor))
    for name, tensor in buffers.items():
        owner, _, leaf = name.rpartition(".")
        module.get_submodule(owner).register_buffer(leaf, tensor)
    return module


def classes(logits: Tensor) -> Tensor:
    """The class that each example is given: (…, K) → (…) int64; −1, which is no class, where a logit is no number."""
    return torch.where(logits.isfinite().all(-1), logits.argmax(-1), -1)


def concat(populations: Sequence[Population]) -> Population:
    """All replicas of several populations of the same model as one."""
    first = populations[0]
    for other in populations[1:]:
        if other.model != first.model:
            raise UsageError(f"cannot join {first.model} and {other.model}: a population has one architecture")
    join = lambda part: {n: torch.cat([part(p)[n] for p in populations]) for n in part(first)}  # noqa: E731
    frame = pd.concat([p.frame for p in populations], ignore_index=True)
    return Population(first.model, join(lambda p: p.params), join(lambda p: p.masks), join(lambda p: p.buffers), frame)
