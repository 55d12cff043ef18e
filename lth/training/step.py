"""One training step of all replicas of a group, and on a GPU the same step recorded as a graph.

Everything a step reads or writes lies in tensors that stay where they are: weights, masks, optimiser state, rates,
the learning rates and the examples of the next steps, and a number that says which of them it is. So the step asks
the host for nothing. On a GPU it is compiled and then recorded once as a CUDA graph; replaying the graph is the
training loop, and masks and rates may change under it. On a CPU the same code runs as it stands.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lth import distributed, memory
from lth.data import Data
from lth.models import stacked
from lth.population import Population, Tensors, classes
from lth.precision import products
from lth.training import losses, optim
from lth.training.batches import MOVES, crop_and_flip, resized_crop
from lth.training.compiling import compilations, leave_open
from lth.training.feed import Feed
from lth.training.layout import likes_channels_last
from lth.training.losses import Penalty
from lth.training.recipe import PER_REPLICA, Recipe

BLOCK = 100  # steps whose examples are put on the device at a time
SPARE = 1.2  # how much more memory a recording is given than its rehearsal took


class Step:
    """Trains `work` in place, a step at each call, on the examples that `load` puts in line."""

    recordable = True  # until a recording fails: afterwards torch takes no other in the same process

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
        masks = {n: m for n, m in work.masks.items() if masks_change or not bool(m.all())}
        # a CPU multiplies faster by numbers than by truth values, of which a GPU reads a quarter of the bytes
        self.masked = masks if stacked.on_gpu(like) else {n: m.to(self.dtype) for n, m in masks.items()}
        self.rates = {n: self._column(n) for n in PER_REPLICA}
        self.used = {n: bool((rate != 0).any()) for n, rate in self.rates.items()}
        self.table = torch.tensor(recipe.factors(), dtype=self.dtype, device=device)
        self.factors = self.table[:1].repeat(BLOCK, 1)  # of the steps in line: as many rows in every run
        self.slot = torch.zeros(1, dtype=torch.int64, device=device)  # the place of this step among those in line
        self.rounded = self._rounded(work) if penalty is None else {}  # a penalty sees the weights as they are
        self.network = replace(work, params=work.params | self.rounded).network().train()
        named = dict(self.network.named_parameters())
        self.variables = [named[name] for name in work.params]
        self.teacher, self.taught_by = None, None
        if teacher is not None and self.used["distill"]:
            self.teacher = replace(teacher, params=teacher.params | self._rounded(teacher)).network().eval()
            self.taught_by = teacher.model
        self.channels_last = likes_channels_last(work, recipe.precision)
        share = recipe.batch_size // distributed.size()  # of every batch, for this process
        self.order = torch.zeros(BLOCK, replicas, share, dtype=torch.int64, device=device)
        numbers, kind = MOVES.get(recipe.augment, (0, torch.uint8))
        self.moves = torch.zeros(*self.order.shape, numbers, dtype=kind, device=device) if recipe.augment else None
        self.feed = self.arrived = None  # where the images lie in a file: what gathers them, and those of this step
        if data.train.on_disk:
            self.feed = Feed(data.train.images, replicas * share, device)
            self.arrived = torch.zeros(
                replicas * share, *data.train.images.shape[1:], dtype=torch.uint8, device=device
            )
        self.sums = torch.zeros(replicas, 2, dtype=torch.float64, device=device)  # of loss and accuracy
        self.alive = torch.ones(replicas, dtype=torch.bool, device=device)  # whether the loss is a number so far
        self.lasted = torch.full((replicas,), recipe.first_step, dtype=torch.int64, device=device)  # steps until then
        self.ones = torch.ones(replicas, dtype=self.dtype, device=device)
        self.optimised = self._optimised()
        self.compiled = False
        self.run = self._take

    def _column(self, name: str) -> Tensor:
        """A per-replica field of the recipe, from the frame where it has that column: (r,)."""
        values = self.work.frame.get(name, [getattr(self.recipe, name)] * len(self.work))
        return torch.tensor(np.asarray(values, float), dtype=self.dtype, device=self.work.device)

    def _rounded(self, networks: Population) -> Tensors:
        """On a GPU with bf16: copies of the weights as they are multiplied.

        Otherwise each pass reads the weights to round them, and writes their gradients once more at full length. The
        copies are written by the same kernel that updates the weights, and the gradients of both are the same.
        """
        if self.recipe.precision != "bf16" or not stacked.on_gpu(self.slot) or self.dtype != torch.float32:
            return {}
        return {n: p.detach().to(torch.bfloat16) for n, p in networks.params.items() if p.ndim > 2}

    def _optimised(self) -> list[tuple[list[str], dict[str, list]]]:
        """Names, and what `optim.step_` works on: those that have a rounded copy, and the others; a kernel each."""
        parts = [[n for n in self.work.params if (n in self.rounded) == rounded] for rounded in (True, False)]
        return [(names, self._lists(names)) for names in parts if names]

    def _lists(self, names: Sequence[str]) -> dict[str, list]:
        """Parameter by parameter, all in the shape of the network's own parameters."""
        lists: dict[str, list] = {"params": [], "masks": [], "states": [], "lrs": [], "decays": []}
        shapes = {name: variable.shape for name, variable in zip(self.work.params, self.variables, strict=True)}
        for name in names:
            param, shape = self.work.params[name], shapes[name]
            column = (-1, *[1] * (len(shape) - 1))
            mask, scale = self.masked.get(name), self.recipe.decay_scale(param.ndim - 1)
            decays = self.used["weight_decay"] and scale
            lists["params"].append(param.view(shape))
            lists["masks"].append(None if mask is None else mask.view(shape))
            lists["states"].append([state.view(shape) for state in self.states[name]])
            lists["lrs"].append(self.rates["lr"].view(column))
            lists["decays"].append(self.rates["weight_decay"].view(column) * scale if decays else None)
        return lists

    def note_changes(self) -> None:
        """To be called when masks or weights of `work` have been changed by anything but a step."""
        for name, mask in self.masked.items():
            mask.copy_(self.work.masks[name])
        for name, copy in self.rounded.items():
            copy.copy_(self.work.params[name])

    def load(self, step: int, order: Tensor, moves: Tensor | None) -> None:
        """Puts the examples of the steps from `step` on in line (see `lth.training.batches.Batches.between`): of each
        batch the share of this process."""
        self.slot.zero_()
        self.factors[: len(order)].copy_(self.table[step : step + len(order)])
        self.order[: len(order)].copy_(order, non_blocking=True)
        if moves is not None:
            self.moves[: len(moves)].copy_(moves, non_blocking=True)
        self.expect(step, order)

    def expect(self, step: int, order: Tensor) -> None:
        """Says beforehand which examples the steps from `step` on will see, so that a file is read in time."""
        if self.feed is not None:
            self.feed.expect(step, order.transpose(1, 2).flatten(1))

    def take(self) -> None:
        """Takes the next step."""
        if self.feed is not None:
            self.feed.next(self.arrived)
        self.run()

    def tensors(self) -> Tensors:
        """All that changes in training, by name, replica first; writing into these tensors restores it."""
        work = {"params": self.work.params, "masks": self.work.masks, "buffers": self.work.buffers}
        named = {f"{kind}.{n}": t for kind, ts in work.items() for n, t in ts.items()}
        named |= {f"state.{i}.{n}": t for n, ts in self.states.items() for i, t in enumerate(ts)}
        return named | {"sums": self.sums, "alive": self.alive, "lasted": self.lasted}

    # --- the step ---------------------------------------------------------------------------------------

    def _take(self) -> None:
        loss, accuracy = self._objective()
        objective = loss if self.penalty is None else loss + self._penalty()
        grads = torch.autograd.grad(objective, self.variables, self.ones)  # a replica's loss knows its own weights
        *grads, loss, accuracy = distributed.mean([*grads, loss.detach(), accuracy])
        self._update(grads, loss, accuracy)

    def _objective(self) -> tuple[Tensor, Tensor]:
        """Loss, without the penalty, and accuracy on this step's batch: (r,) each."""
        index = self.order.index_select(0, self.slot)[0].T  # (B, r)
        train = self.data.train
        images = train.rows(index.reshape(-1)) if self.arrived is None else self.arrived
        if self.moves is not None:
            moves = self.moves.index_select(0, self.slot)[0].transpose(0, 1).flatten(0, 1)
            resized = self.recipe.augment == "resized"
            images = resized_crop(images, moves, *train.shape[1:]) if resized else crop_and_flip(images, moves)
        labels = train.labels[index]
        images = train.scaled(images).to(self.dtype).view(*index.shape, *train.shape).flatten(1, 2)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with self._halves():
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
        return loss, accuracy

    def _penalty(self) -> Tensor:
        """(r,). Not compiled: its tensors have other shapes in every round of a ladder."""
        stacked = {n: v.reshape(p.shape) for v, (n, p) in zip(self.variables, self.work.params.items(), strict=True)}
        return self.penalty(stacked, self.work.masks)

    def _halves(self) -> contextlib.AbstractContextManager:
        """With bf16: what is multiplied is rounded to half of its bits."""
        if self.recipe.precision != "bf16":
            return contextlib.nullcontext()
        return torch.autocast(self.work.device.type, torch.bfloat16, cache_enabled=False)

    @torch.no_grad()
    def _update(self, grads: Sequence[Tensor], loss: Tensor, accuracy: Tensor) -> None:
        """The optimiser's part, and the bookkeeping."""
        factors = self.factors.index_select(0, self.slot)[0]
        gradient = dict(zip(self.work.params, grads, strict=True))
        for names, lists in self.optimised:
            optim.step_(self.recipe, factors, grads=[gradient[n].to(self.dtype) for n in names], **lists)
            if copies := [self.rounded[n] for n in names if n in self.rounded]:
                torch._foreach_copy_(copies, [self.work.params[n] for n in names])
        self.sums += torch.stack([loss, accuracy], dim=1)
        self.alive &= loss.isfinite()
        self.lasted += self.alive
        self.slot += 1

    # --- on a GPU ---------------------------------------------------------------------------------------

    def record(self) -> None:
        """Compiles the step and records it as a CUDA graph, which is then replayed. Nothing is trained.

        Where it cannot be recorded, it goes on without a graph, and a warning says so. Raises what
        `lth.memory.is_short` knows, before recording, where the replicas do not fit into the device's memory together.
        """
        self.rehearse()
        self.run = self._take_unrecorded
        if not Step.recordable:
            return
        memory.free()
        free, _ = torch.cuda.mem_get_info(self.work.device)
        if self.needed * SPARE > free:
            raise torch.OutOfMemoryError(f"a step takes {self.needed / 2**30:.2f} GiB, {free / 2**30:.2f} are free")
        stream, graph = torch.cuda.current_stream(self.work.device), torch.cuda.CUDAGraph()
        try:
            # processes that train together have threads that look after the GPU meanwhile
            how = {} if distributed.size() == 1 else {"capture_error_mode": "thread_local"}
            with products(self.recipe.precision), torch.cuda.device(self.work.device), torch.cuda.graph(graph, **how):
                self._take()
            self.run = graph.replay
        except Exception as error:
            torch.cuda.set_stream(stream)  # which a recording that failed may have left
            Step.recordable = False
            warnings.warn(f"no graph of the step, which is slower: recording it failed: {_told(error)}", stacklevel=2)

    def _take_unrecorded(self) -> None:
        with products(self.recipe.precision):
            self._take()

    def rehearse(self) -> float:
        """Compiles the step, if that has not been done, and takes it a few times without training anything.

        Returns the seconds of one step, and notes in `needed` the bytes of memory that it takes on the way.
        """
        with products(self.recipe.precision), torch.cuda.device(self.work.device):
            aside = torch.cuda.Stream()  # recording asks for a stream that is not the default one
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                seconds = self._rehearse() if self.compiled else self.compile()
            torch.cuda.current_stream().wait_stream(aside)
        return seconds

    def compile(self) -> float:
        """Compiles the step where that is possible and pays; seconds of a step, see `rehearse`.

        A warning says so where it is not possible.
        """
        kind, size, parameters = self.kind(), len(self.work), len(self.variables)
        if not compilations.serves(kind, size):
            try:
                seconds = self._rehearse()
                if not compilations.pays(kind, parameters, seconds * (self.recipe.steps - self.recipe.first_step)):
                    return seconds
            except RuntimeError as error:
                if not memory.is_short(error):  # compiled, it takes less
                    raise
            memory.free()
        plain = self._objective, self._update
        self._objective, self._update = (torch.compile(part, dynamic=False) for part in plain)
        leave_open([self.data.train.images if self.arrived is None else self.arrived, self.data.train.labels])
        if size > 1 and compilations.replicas[kind] - {size}:
            self._of_any_number()
        self.compiled, started = True, time.monotonic()
        # by default there are eight kinds at most, and no parameter's size is left open
        limits = {"recompile_limit": 1000, "accumulated_recompile_limit": 10_000}
        open_ = {"force_parameter_static_shapes": False, "force_nn_module_property_static_shapes": False}
        try:
            with warnings.catch_warnings(), torch._dynamo.config.patch(**limits, **open_):
                # the recipe says in which precision; on a GPU the compiler would advise another
                warnings.filterwarnings("ignore", "TensorFloat32 tensor cores")
                seconds = self._rehearse()
            if not compilations.serves(kind, size):
                compilations.note(kind, size, parameters, time.monotonic() - started)
            return seconds
        except Exception as error:  # no compiler on this machine, something it does not know, or a fault of the step
            if memory.is_short(error):
                raise
            reason = _told(error)
        memory.free()  # not above, where the error still holds what was made
        self._objective, self._update = plain
        seconds = self._rehearse()  # where the step itself is at fault, it fails here again, as it is
        warnings.warn(f"no compiled step, which is slower: compiling it failed: {reason}", stacklevel=2)
        return seconds

    def kind(self) -> Hashable:
        """What compiled code is made for; all else may differ from run to run (`lth.training.compiling`)."""
        work, recipe = self.work, self.recipe
        sizes = recipe.batch_size, tuple(self.data.train.images.shape[1:]), len(work) > 1
        how = recipe.optimizer, recipe.augment, recipe.precision, recipe.temperature, recipe.decay, self.channels_last
        parts = tuple(self.used.items()), tuple(self.masked), self.taught_by and str(self.taught_by)
        return str(work.model), str(work.device), self.dtype, *sizes, *how, *parts

    def _of_any_number(self) -> None:
        """Has the step compiled for any number of replicas."""
        modules = [module for module in (self.network, self.teacher) if module is not None]
        leave_open([[*module.parameters(), *module.buffers()] for module in modules])
        leave_open([self.optimised, self.work.params, self.rounded, self.rates])
        leave_open([self.sums, self.alive, self.lasted, self.ones])
        leave_open([self.order, self.moves], axis=1)
        update = self._update
        self._update = lambda *given: update(*leave_open(given))

    def _rehearse(self) -> float:
        """A few times the same step, then undone: the first one compiles and chooses kernels."""
        changing, device = [*self.tensors().values(), self.slot], self.work.device
        before, on_gpu = [tensor.clone() for tensor in changing], device.type == "cuda"
        try:
            for again in range(3):
                if again == 1:
                    if on_gpu:
                        torch.cuda.synchronize(device)
                        torch.cuda.reset_peak_memory_stats(device)
                        held = torch.cuda.memory_allocated(device)
                    started = time.perf_counter()
                self._take()
                self.slot.copy_(before[-1])
            if on_gpu:
                torch.cuda.synchronize(device)
                self.needed = torch.cuda.max_memory_allocated(device) - held
            return (time.perf_counter() - started) / 2
        finally:
            for tensor, old in zip(changing, before, strict=True):
                tensor.copy_(old)
            self.note_changes()


def _told(error: BaseException) -> str:
    """In a line, the error that was the cause of all."""
    while before := error.__cause__ or error.__context__:
        error = before
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
