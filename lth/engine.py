"""The training loop: groups of replicas, each advanced from event to event.

A group holds a working copy of its replicas, their optimiser's state and their history. On a GPU all replicas
are one group and their gradients come from one vectorised backward pass; on a CPU, where a stacked pass is
slower than a loop, each replica is a group of its own and its gradient comes from a plain module whose
parameters are views of the stacked tensors. All else is the same code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional as F

from lth import optim, seeds
from lth.data import Data
from lth.errors import LthError, UsageError
from lth.population import Population, Tensors, load_tensors, save_tensors
from lth.recipe import PER_REPLICA, Recipe

if TYPE_CHECKING:
    from lth.train import MaskUpdate, Probe

LOG_EVERY = 100  # steps between two rows of the history
STRETCH = 1.0  # seconds a group trains at most before others get their turn


def batch_order(seed: int, examples: int, batch: int, start: int, stop: int) -> Tensor:
    """Which examples the steps start … stop−1 see: (stop−start, batch) int64.

    One endless stream: a new permutation of all examples each epoch, cut into full batches, so that a batch
    may hold the end of one epoch and the beginning of the next.
    """
    first, last = start * batch, stop * batch
    epochs = range(first // examples, -(-last // examples))
    stream = np.concatenate([seeds.numpy_stream(seed, seeds.ORDER, e).permutation(examples) for e in epochs])
    offset = epochs[0] * examples
    return torch.from_numpy(stream[first - offset : last - offset]).view(stop - start, batch)


class Group:
    """Replicas that are trained together: a working copy of them, their optimiser's state, their history."""

    def __init__(
        self,
        population: Population,
        data: Data,
        recipe: Recipe,
        updates: Mapping[str, MaskUpdate],
        probes: Sequence[Probe],
        keep: Sequence[int],
    ) -> None:
        self.data, self.recipe, self.updates, self.probes, self.keep = (
            data,
            recipe,
            updates,
            probes,
            set(keep),
        )
        self.work = replace(
            population,
            params={n: _channels_last(p) for n, p in population.params.items()},
            masks={n: _channels_last(m) for n, m in population.masks.items()},
            buffers={n: b.clone() for n, b in population.buffers.items()},
        )
        self.states = {n: optim.new_state(recipe, p) for n, p in self.work.params.items()}
        self.sums = torch.zeros(2, len(population), dtype=torch.float64, device=population.device)
        self.step, self.logged = 0, 0  # steps done, and steps done at the last row of the history
        self.history: list[dict[str, Any]] = []
        self.kept: dict[int, Population] = {}
        self.midway = False  # whether it stands inside a step, where nothing of it may be saved
        self.gradients = _replica_gradients(self.work) if len(population) == 1 else _stacked_gradients(self.work)
        self.rates = {n: self._column(n) for n in PER_REPLICA}
        self.note_masks()
        self._events()

    def _column(self, name: str) -> Tensor:
        """A per-replica field of the recipe, from the frame where it has that column: (r,)."""
        values = self.work.frame.get(name, [getattr(self.recipe, name)] * len(self.work))
        like = next(iter(self.work.params.values()))
        return torch.tensor(np.asarray(values, float), dtype=like.dtype, device=like.device)

    def note_masks(self) -> None:
        """Which parameters have something to mask; as numbers, which are multiplied faster than truth values."""
        masks = self.work.masks.items()
        self.masked = {n: m.to(self.work.params[n].dtype) for n, m in masks if not bool(m.all())}

    def advance(self) -> None:
        """Train until the next event, or for about `STRETCH` seconds."""
        self.midway = True
        stop = next(t for t in range(self.step + 1, self.recipe.steps + 1) if self._event_at(t))
        orders = [
            batch_order(seed, len(self.data.train), self.recipe.batch_size, self.step, stop) for seed in self.work.seeds
        ]
        index = torch.stack(orders, dim=1).to(self.work.device)  # (steps, r, batch)
        shaped = {d: {n: v.view(-1, *[1] * d) for n, v in self.rates.items()} for d in range(1, 5)}
        decays = bool((self.rates["weight_decay"] != 0).any())
        started = time.monotonic()
        dtype = self.rates["lr"].dtype
        for batch in index:
            images, labels = self.data.train.pixels(batch).to(dtype), self.data.train.labels[batch]
            grads, loss, accuracy = self.gradients(images, labels)
            for name, param in self.work.params.items():
                rates, scale = shaped[param.ndim - 1], self.recipe.decay_scale(param.ndim - 1)
                decay = rates["weight_decay"] * scale if decays and scale else None
                mask = self.masked.get(name)
                optim.step_(self.recipe, self.step, param, grads[name], mask, self.states[name], rates["lr"], decay)
            self.sums += torch.stack([loss, accuracy])
            self.step += 1
            if time.monotonic() - started > STRETCH:
                break
        if self._event_at(self.step):
            self._events()
        self.midway = False

    def _event_at(self, step: int) -> bool:
        """Whether something other than training happens after `step` steps."""
        return (
            step == self.recipe.steps
            or step % LOG_EVERY == 0
            or step in self.keep
            or any(step % probe.every == 0 for probe in self.probes)
            or any(rule.due(step) for rule in self.updates.values())
        )

    def _events(self) -> None:
        """What happens after `self.step` steps: mask updates, then keeping, then recording."""
        for method, rule in self.updates.items():
            if rule.due(self.step) and (rows := np.flatnonzero(self.work.frame["method"] == method)).size:
                for name, mask in rule.masks(self.work[rows], self.step).items():
                    self.work.masks[name][rows] = mask
                    optim.erase_(self.work.params[name], self.work.masks[name], self.states[name])
                self.note_masks()
        if self.step in self.keep:
            self.kept[self.step] = self.result()
        last = self.step == self.recipe.steps
        measured: dict[str, Any] = {}
        for probe in self.probes:
            if last or self.step % probe.every == 0:
                measured |= probe.measure(self.work)
        if measured or (self.step and self.step % LOG_EVERY == 0) or last:
            count = self.step - self.logged
            mean = (self.sums / count if count else self.sums * float("nan")).tolist()
            values = {
                "loss": mean[0],
                "accuracy": mean[1],
                **{k: _numbers(v) for k, v in measured.items()},
            }
            for r in range(len(self.work)):
                self.history.append({"replica": r, "step": self.step, **{k: v[r] for k, v in values.items()}})
            self.sums.zero_()
            self.logged = self.step

    def result(self) -> Population:
        """A contiguous copy of the replicas as they are now."""
        copy = lambda ts: {n: t.clone(memory_format=torch.contiguous_format) for n, t in ts.items()}  # noqa: E731
        work = self.work
        return replace(work, params=copy(work.params), masks=copy(work.masks), buffers=copy(work.buffers))

    def table(self) -> pd.DataFrame:
        """The history, replica by replica, with the replicas' own columns in front."""
        history = pd.DataFrame(self.history).sort_values("replica", kind="stable", ignore_index=True)
        rows = self.work.frame.iloc[history.pop("replica")].reset_index(drop=True)
        return rows.assign(**history)

    def tensors(self) -> Tensors:
        """All that changes in training, by name; writing into these tensors restores it."""
        work = {"params": self.work.params, "masks": self.work.masks, "buffers": self.work.buffers}
        named = {f"{kind}.{n}": t for kind, ts in work.items() for n, t in ts.items()}
        named |= {f"state.{i}.{n}": t for n, ts in self.states.items() for i, t in enumerate(ts)}
        return named | {"sums": self.sums}


def _numbers(measured: Any) -> list[float]:
    """What a probe measured, a tensor on any device or anything numpy knows, as a list."""
    return measured.tolist() if isinstance(measured, Tensor) else np.asarray(measured).tolist()


def _channels_last(stack: Tensor) -> Tensor:
    """A copy in which each replica's convolution kernel is channels-last, the layout convolutions like best."""
    if stack.ndim != 5:
        return stack.detach().clone()
    return stack.detach().permute(0, 1, 3, 4, 2).clone(memory_format=torch.contiguous_format).permute(0, 1, 4, 2, 3)


Gradients = Callable[[Tensor, Tensor], tuple[Tensors, Tensor, Tensor]]


def _replica_gradients(work: Population) -> Gradients:
    """(1, B, C, H, W), (1, B) → gradients (1, *shape) by name, loss (1,), accuracy (1,): one plain module."""
    module = work.module(0).train()
    names, params = zip(*module.named_parameters(), strict=True)

    def gradients(images: Tensor, labels: Tensor) -> tuple[Tensors, Tensor, Tensor]:
        logits = module(images[0])
        loss = F.cross_entropy(logits, labels[0])
        grads = torch.autograd.grad(loss, params)
        hits = (logits.detach().argmax(1) == labels[0]).float().mean()
        return {n: g[None] for n, g in zip(names, grads, strict=True)}, loss.detach()[None], hits[None]

    return gradients


def _stacked_gradients(work: Population) -> Gradients:
    """(r, B, C, H, W), (r, B) → gradients (r, *shape) by name, loss (r,), accuracy (r,): one vectorised pass."""
    module = work.model.build().train()

    def loss(params: Tensors, buffers: Tensors, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = functional_call(module, (params, buffers), (images,))
        hits = (logits.detach().argmax(1) == labels).to(logits.dtype).mean()
        return F.cross_entropy(logits, labels), hits

    stacked = vmap(grad_and_value(loss, has_aux=True))

    def gradients(images: Tensor, labels: Tensor) -> tuple[Tensors, Tensor, Tensor]:
        grads, (losses, hits) = stacked(work.params, work.buffers, images, labels)
        return grads, losses.detach(), hits

    return gradients


def save(groups: Sequence[Group], path: Path, name: str, seconds: float) -> None:
    """Writes where every group stands, after `seconds` of training, to one file, whole or not at all."""
    tensors, header = {}, []
    for g, group in enumerate(groups):
        tensors |= {f"{g}.{n}": t.contiguous().cpu() for n, t in group.tensors().items()}
        for step, kept in group.kept.items():
            for kind, parts in (("params", kept.params), ("masks", kept.masks), ("buffers", kept.buffers)):
                tensors |= {f"{g}.kept.{step}.{kind}.{n}": t.cpu() for n, t in parts.items()}
        header.append({"step": group.step, "logged": group.logged, "history": group.history})
    save_tensors(path, tensors, {"name": name, "seconds": seconds, "groups": header})


def restore(groups: Sequence[Group], path: Path, name: str) -> float:
    """Puts every group back where `save` found it and returns the seconds trained until then.

    Raises LthError where the file is damaged, UsageError where it belongs to another run.
    """
    try:
        tensors, header = load_tensors(path)
        found, told_groups, seconds = header["name"], header["groups"], float(header["seconds"])
    except (LthError, KeyError, TypeError) as error:
        raise LthError(f"{path} is no whole checkpoint: remove it, and training begins anew ({error})") from error
    if found != name or len(told_groups) != len(groups):
        raise UsageError(f"{path} is the checkpoint of another run or device: remove it or name another file")
    for g, (group, told) in enumerate(zip(groups, told_groups, strict=True)):
        group.step, group.logged, group.history = told["step"], told["logged"], told["history"]
        for n, tensor in group.tensors().items():
            tensor.copy_(tensors[f"{g}.{n}"])
        group.note_masks()
        for step in sorted(step for step in group.keep if step <= group.step):
            parts: dict[str, Tensors] = {"params": {}, "masks": {}, "buffers": {}}
            for kind, part in parts.items():
                prefix = f"{g}.kept.{step}.{kind}."
                part |= {n[len(prefix) :]: t.to(group.work.device) for n, t in tensors.items() if n.startswith(prefix)}
            group.kept[step] = replace(group.work, **parts)
    return seconds
