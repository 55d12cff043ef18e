"""One training step of all replicas of a group, and on a GPU the same step recorded as a graph.

Everything a step reads or writes lies in tensors that stay where they are: weights, masks, optimiser state, rates,
the learning rates of all steps, the examples of the next steps, and a cursor that says which step it is. So the step
asks the host for nothing. On a GPU it is compiled and then recorded once as a CUDA graph; replaying the graph is the
training loop, and masks and rates may change under it. On a CPU the same code runs as it stands.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from lth import losses, optim
from lth.batches import crop_and_flip
from lth.data import Data
from lth.losses import Penalty
from lth.population import Population, Tensors, classes
from lth.recipe import PER_REPLICA, Recipe

WIDE = 5_000_000  # parameters; larger networks get all cores of a CPU (`lth.train.threads_each`)
BLOCK = 100  # steps whose examples are put on the device at a time


class Step:
    """Trains `work` in place, a step at each call, on the examples that `load` puts in line."""

    def __init__(
        self,
        work: Population,
        data: Data,
        recipe: Recipe,
        teacher: Population | None,
        penalty: Penalty | None,
        masks_change: bool,
    ) -> None:
        """`masks_change`: a rule may put a mask where there is none yet."""
        self.work, self.data, self.recipe, self.penalty = work, data, recipe, penalty
        self.states = {n: optim.new_state(recipe, p) for n, p in work.params.items()}
        like, replicas, device = next(iter(work.params.values())), len(work), work.device
        self.dtype = like.dtype
        # as numbers, which are multiplied faster than truth values
        masks = {n: m for n, m in work.masks.items() if masks_change or not bool(m.all())}
        self.masked = {n: m.to(self.dtype) for n, m in masks.items()}
        self.rates = {n: self._column(n) for n in PER_REPLICA}
        self.used = {n: bool((rate != 0).any()) for n, rate in self.rates.items()}
        self.table = torch.tensor(recipe.factors(), dtype=self.dtype, device=device)
        self.network = work.network().train()
        named = dict(self.network.named_parameters())
        self.variables = [named[name] for name in work.params]
        self.teacher = teacher.network().eval() if teacher is not None and self.used["distill"] else None
        self.channels_last = likes_channels_last(work)
        self.clock = torch.zeros(2, dtype=torch.int64, device=device)
        self.cursor, self.slot = self.clock  # the step it is, and its place among the examples in line
        self.order = torch.zeros(BLOCK, replicas, recipe.batch_size, dtype=torch.int64, device=device)
        self.moves = torch.zeros(*self.order.shape, 3, dtype=torch.uint8, device=device) if recipe.augment else None
        self.sums = torch.zeros(replicas, 2, dtype=torch.float64, device=device)  # of loss and accuracy
        self.alive = torch.ones(replicas, dtype=torch.bool, device=device)  # whether the loss is a number so far
        self.lasted = torch.full((replicas,), recipe.first_step, dtype=torch.int64, device=device)  # steps until then
        self.ones = torch.ones(replicas, dtype=self.dtype, device=device)
        self.optimised = self._optimised()
        self.take = self._take

    def _column(self, name: str) -> Tensor:
        """A per-replica field of the recipe, from the frame where it has that column: (r,)."""
        values = self.work.frame.get(name, [getattr(self.recipe, name)] * len(self.work))
        return torch.tensor(np.asarray(values, float), dtype=self.dtype, device=self.work.device)

    def _optimised(self) -> dict[str, list]:
        """What `optim.step_` works on, parameter by parameter, all in the shape of the network's own parameters."""
        lists: dict[str, list] = {"params": [], "masks": [], "states": [], "lrs": [], "decays": []}
        for variable, (name, param) in zip(self.variables, self.work.params.items(), strict=True):
            column = (-1, *[1] * (variable.ndim - 1))
            mask, scale = self.masked.get(name), self.recipe.decay_scale(param.ndim - 1)
            decays = self.used["weight_decay"] and scale
            lists["params"].append(variable.detach())
            lists["masks"].append(None if mask is None else mask.view(variable.shape))
            lists["states"].append([state.view(variable.shape) for state in self.states[name]])
            lists["lrs"].append(self.rates["lr"].view(column))
            lists["decays"].append(self.rates["weight_decay"].view(column) * scale if decays else None)
        return lists

    def note_masks(self) -> None:
        """To be called when the masks of `work` have changed."""
        for name, mask in self.masked.items():
            mask.copy_(self.work.masks[name])

    def load(self, step: int, order: Tensor, moves: Tensor | None) -> None:
        """Puts the examples of the steps from `step` on in line (see `lth.batches.Batches.between`)."""
        self.cursor.fill_(step)
        self.slot.zero_()
        self.order[: len(order)].copy_(order, non_blocking=True)
        if moves is not None:
            self.moves[: len(moves)].copy_(moves, non_blocking=True)

    def tensors(self) -> Tensors:
        """All that changes in training, by name, replica first; writing into these tensors restores it."""
        work = {"params": self.work.params, "masks": self.work.masks, "buffers": self.work.buffers}
        named = {f"{kind}.{n}": t for kind, ts in work.items() for n, t in ts.items()}
        named |= {f"state.{i}.{n}": t for n, ts in self.states.items() for i, t in enumerate(ts)}
        return named | {"sums": self.sums, "alive": self.alive, "lasted": self.lasted}

    # --- the step ---------------------------------------------------------------------------------------

    def _take(self) -> None:
        objective, loss, accuracy = self._objective()
        grads = torch.autograd.grad(objective, self.variables, self.ones)  # a replica's loss knows its own weights
        self._update(grads, loss.detach(), accuracy)

    def _objective(self) -> tuple[Tensor, Tensor, Tensor]:
        """What is minimised, the loss that is part of it, and the accuracy, on this step's batch: (r,) each."""
        index = self.order.index_select(0, self.slot)[0].T  # (B, r)
        images = self.data.train.images.index_select(0, index.reshape(-1))
        if self.moves is not None:
            images = crop_and_flip(images, self.moves.index_select(0, self.slot)[0].transpose(0, 1).flatten(0, 1))
        labels = self.data.train.labels[index]
        images = self.data.train.scaled(images).to(self.dtype).view(*index.shape, *images.shape[1:]).flatten(1, 2)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with self._products():
            logits = self.network(images)
            taught = None
            if self.teacher is not None:
                with torch.no_grad():
                    taught = self.teacher(images)
        logits = logits.to(self.dtype).reshape(*index.shape, -1)  # (B, r, K)
        smoothing = self.rates["label_smoothing"] if self.used["label_smoothing"] else None
        loss = losses.cross_entropy(logits, labels, smoothing)
        if taught is not None:
            other = losses.distillation(logits, taught.to(self.dtype).reshape(logits.shape), self.recipe.temperature)
            loss = torch.lerp(loss, other, self.rates["distill"])
        accuracy = (classes(logits.detach()) == labels).to(self.dtype).mean(0)
        if self.penalty is None:
            return loss, loss, accuracy
        stacked = {n: v.reshape(p.shape) for v, (n, p) in zip(self.variables, self.work.params.items(), strict=True)}
        return loss + self.penalty(stacked, self.work.masks), loss, accuracy

    def _products(self) -> contextlib.AbstractContextManager:
        """In which precision matrices are multiplied."""
        if self.recipe.precision != "bf16":
            return contextlib.nullcontext()
        return torch.autocast(self.work.device.type, torch.bfloat16, cache_enabled=False)

    @torch.no_grad()
    def _update(self, grads: Sequence[Tensor], loss: Tensor, accuracy: Tensor) -> None:
        """The optimiser's part, and the bookkeeping."""
        factors = self.table.index_select(0, self.cursor)[0]
        optim.step_(self.recipe, factors, grads=grads, **self.optimised)
        self.sums += torch.stack([loss, accuracy], dim=1)
        self.alive &= loss.isfinite()
        self.lasted += self.alive
        self.clock += 1

    # --- on a GPU ---------------------------------------------------------------------------------------

    def record(self) -> None:
        """Compiles the step and records it as a CUDA graph, which `take` then replays. Nothing is trained.

        Raises torch.OutOfMemoryError where the replicas do not fit into the device's memory together.
        """
        # what is compiled serves all populations of the same kind; by default eight kinds at most
        kinds = torch._dynamo.config.patch(recompile_limit=1000, accumulated_recompile_limit=10_000)
        with kinds, _arithmetic(self.recipe.precision), torch.cuda.device(self.work.device):
            aside = torch.cuda.Stream()  # recording asks for a stream that is not the default one
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                self.compile()
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._take()
        self.take = graph.replay

    def compile(self) -> None:
        """Compiles the step where that is possible, and says so where it is not."""
        parts = self._objective, self._update
        self._objective, self._update = (torch.compile(part, dynamic=False) for part in parts)
        try:
            self._rehearse()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # no compiler on this machine, or something it does not know
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            warnings.warn(f"torch.compile failed; training goes on without it, slower: {reason}", stacklevel=2)
            self._objective, self._update = parts
            self._rehearse()

    def _rehearse(self) -> None:
        """A few times the same step, then undone: the first ones compile and choose kernels."""
        changing = [*self.tensors().values(), self.clock]
        before = [tensor.clone() for tensor in changing]
        try:
            for _ in range(3):
                self._take()
                self.clock.copy_(before[-1])
        finally:
            for tensor, old in zip(changing, before, strict=True):
                tensor.copy_(old)


def likes_channels_last(population: Population) -> bool:
    """Whether convolutions are fastest with the channels as last axis: those of large networks on a CPU are not."""
    convolves = any(p.ndim == 5 for p in population.params.values())
    return convolves and not (population.device.type == "cpu" and is_wide(population))


def is_wide(population: Population) -> bool:
    """Whether a network has more than `WIDE` parameters."""
    return sum(shape.numel() for shape in population.model.shapes.params.values()) > WIDE


@contextlib.contextmanager
def _arithmetic(precision: str) -> Iterator[None]:
    """Whether fp32 products may be rounded to tf32, and kernels are chosen by trying; as it was before, afterwards."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    cudnn.benchmark = True
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before
