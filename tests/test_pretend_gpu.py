"""What is done on a GPU, on a pretended one (`pretend_gpu`): the numbers are the CPU's, and what fails fails well."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
import torch
from conftest import toy_data
from pretend_gpu import Gpu, pretend_gpu
from torch import Tensor

from lth import memory
from lth.analysis import hessian, landscape, lcs, plane, signal, similarity, surface
from lth.analysis.activations import activation_sparsity
from lth.analysis.gradient_flow import GradientFlow
from lth.analysis.validation import Validation
from lth.book import CHAPTERS
from lth.book.presets import parameters
from lth.data import Data, Split
from lth.errors import UsageError
from lth.files import ROOT
from lth.methods import dst, imp, init, prune, repulsion, scores, tweaks
from lth.models import Model, stacked
from lth.population import Population
from lth.store.runs import Store
from lth.training import group as engine
from lth.training import step
from lth.training import train as train_module
from lth.training.compiling import Compilations
from lth.training.plan import Probe, Run
from lth.training.recipe import Recipe
from lth.training.step import Step
from lth.training.train import train

Found = dict[str, Tensor]
GIB = 2**30
RULES = {
    "gmp": prune.Gradual(0.8, 2, 8, 2),
    "set": dst.DST("random", 3, 12, block=40),
    "rigl": dst.DST("gradient", 3, 12, block=40),
    "inverted": dst.DST("least_gradient", 3, 12, block=40),
}


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a process of its own, as it were, with no layout to try; a CPU stacks too, in a GPU's form."""
    monkeypatch.setattr(stacked, "on_gpu", lambda x: True)
    monkeypatch.setattr(step, "compilations", Compilations(at_once=True))
    monkeypatch.setattr(engine, "doubts_layout", lambda *kind: False)
    monkeypatch.setattr(engine, "LOG_EVERY", 6)
    monkeypatch.setattr(Step, "recordable", True)
    monkeypatch.setattr(memory.gc, "collect", lambda: 0)  # takes long
    monkeypatch.setattr(train_module, "group_size", len)


def networks(name: str, device: str, count: int = 3, first: int = 0, **options: object) -> Population:
    """Half-pruned networks with the seeds `first`, …; small images for those that have colours."""
    shape = (1, 16, 16) if name.startswith("lenet") else (3, 16, 16)
    dense = init.kaiming_normal(Model(name, shape, **options), range(first, first + count), method="dense")
    return prune.apply(dense, prune.magnitude_masks_per_layer(dense, 0.5)).to(device)


def data_for(population: Population) -> Data:
    return toy_data(180, population.model.shape).to(population.device)


def found(run: Run) -> Found:
    """All that a run gives, as tensors on the CPU."""
    numbers = lambda table: torch.tensor(table.to_numpy(float)).nan_to_num(7.0)  # noqa: E731
    history, measured = run.history[["seed", "step", "loss", "accuracy"]], run.history.filter(regex="flow|valid")
    kept = {f"after {step}": kept.theta() for step, kept in run.snapshots.items()}
    buffers = {n: b.double() for n, b in run.final.buffers.items()}
    all_of_it = {"theta": run.final.theta(), "mask": run.final.theta_mask(), **kept, **buffers}
    tables = {"history": numbers(history), "measured": numbers(measured)}
    return {n: t.cpu() for n, t in all_of_it.items()} | tables


def trained(population: Population, teacher: int = 0, penalty: bool = False, **more: object) -> Found:
    recipe = Recipe(**{"steps": 14, "batch_size": 8, "lr": 0.01} | more.pop("recipe", {}))
    if teacher:
        more["teacher"] = networks(population.model.name, str(population.device), teacher, 50)
    if penalty:
        old = networks(population.model.name, str(population.device), len(population), 20)
        more["penalty"] = repulsion.of(population, [prune.apply(old, population.masks)], [2.0, -1.0, 0.0])
    data = more.pop("data", data_for(population))
    return found(train(population, data, recipe, **{"keep": [0, 5], **more}))


def every_method(device: str) -> Found:
    population = networks("lenet5", device, 5).label(method=[*RULES, "dense"])
    probes = [Probe(4, GradientFlow(30), around_updates=True), Probe(5, Validation())]
    data = toy_data(260, (1, 16, 16)).hold_out().to(device)
    return trained(population, data=data, updates=RULES, probes=probes, recipe={"weight_decay": 1e-3})


def augmented(device: str) -> Found:
    population = networks("resnet8", device, 3).label(distill=[0.0, 0.5, 1.0], label_smoothing=[0.0, 0.1, 0.2])
    recipe = {"augment": True, "precision": "bf16", "steps": 5, "schedule": "step", "milestones": (2, 4), "warmup": 2}
    return trained(population, teacher=3, recipe=recipe)


def from_a_file(device: str) -> Found:
    """Images that the device's memory does not hold; networks see the middle of them, or random parts."""
    population = networks("lenet5", device, 2).label(method="rigl")
    data = toy_data(180, (1, 20, 20))
    splits = {name: replace(getattr(data, name), seen=16, on_disk=True) for name in ("train", "test")}
    recipe, how = {"augment": "resized", "steps": 30}, {"updates": {"rigl": RULES["rigl"]}, "probes": [Probe(5, flow)]}
    return trained(population, data=replace(data, **splits).to(device), recipe=recipe, **how)


def flow(population: Population, data: Data) -> dict[str, Tensor]:
    """The error on the test images."""
    return {"flow": torch.tensor(population.evaluate(data.test).error.to_numpy())}


def ladder(device: str, restart: str, **more: object) -> Found:
    start = networks("lenet_300_100", device)
    go = lambda population, recipe, **kind: train(population, data_for(start), recipe, **kind)  # noqa: E731
    recipe = Recipe(steps=8, batch_size=8, lr=0.01)
    runs = imp.ladder(start, 2, go, recipe, restart=restart, **{"rewind_step": 2, **more})
    return {str(k): run.final.theta().cpu() for k, run in enumerate(runs)}


def repelled(device: str) -> Found:
    pushed = lambda start, runs: repulsion.of(start, runs, 2.0)  # noqa: E731
    return ladder(device, "weights", penalty=pushed)


def resumed(device: str, tmp_path: Path) -> Found:
    """Stopped in the middle, from the store, and gone on with."""
    population = networks("lenet5", device).label(method=["gmp", "rigl", "dense"])
    data, store, left = data_for(population), Store(tmp_path / device), [3]
    kind = {"keep": [0, 4], "updates": {m: RULES[m] for m in ("gmp", "rigl")}, "probes": [Probe(5, GradientFlow(30))]}

    def stop(progress: object) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    path, recipe = tmp_path / f"{device}.run", Recipe(steps=20, batch_size=8, weight_decay=1e-3)
    with pytest.raises(KeyboardInterrupt):
        train(population, data, recipe, checkpoint=path, watch=stop, **kind)
    assert path.exists()
    run = found(train(population, data, recipe, checkpoint=path, **kind))
    store.train(population[[0, 2]], data, recipe, **{**kind, "updates": {"gmp": RULES["gmp"]}})
    stored = store.train(population, data, recipe, **kind)
    return run | {"stored": stored.final.theta().cpu(), "kept": stored.at(4).theta().cpu()}


TRAINING: dict[str, Callable[[str], Found]] = {
    "every method": every_method,
    "one network, Adam": lambda d: trained(networks("lenet_300_100", d, 1), recipe={"optimizer": "adam"}),
    "Adam": lambda d: trained(networks("lenet_300_100", d), recipe={"optimizer": "adam", "lr": 1e-3}),
    "one RigL": lambda d: trained(networks("lenet5", d, 1).label(method="rigl"), updates={"rigl": RULES["rigl"]}),
    "augmented, bf16, taught": augmented,
    "one teacher": lambda d: trained(networks("resnet8", d), teacher=1, recipe={"steps": 3, "distill": 0.5}, keep=[0]),
    "skips and Swish": lambda d: trained(
        networks("resnet8", d, 2, skips="conv", activation="swish"), recipe={"steps": 6, "first_step": 2}, keep=[2, 5]
    ),
    "from a file": from_a_file,
    "repelled": lambda d: trained(networks("lenet_300_100", d), penalty=True),
    "ladder to weights": lambda d: ladder(d, "weights"),
    "ladder to learning rates": lambda d: ladder(d, "learning rate"),
    "ladder of repulsion": repelled,
}


@pytest.mark.parametrize("name", TRAINING)
def test_training_is_the_same_bit_by_bit(name):
    with warnings.catch_warnings(), pretend_gpu() as gpu:
        warnings.simplefilter("error")
        gpus = TRAINING[name]("cuda")
    cpus = TRAINING[name]("cpu")
    assert gpu.graphs and gpu.replays and gpu.stream is gpu.first_stream
    same(gpus, cpus)


def same(gpus: Found, cpus: Found) -> None:
    """Bit by bit; what a CPU measures a network at a time, or in other batches, up to rounding."""
    assert gpus.keys() == cpus.keys()
    for what, tensor in cpus.items():
        if what == "measured":
            torch.testing.assert_close(gpus[what], tensor, rtol=1e-4, atol=1e-6)
        else:
            assert torch.equal(gpus[what], tensor), what


def test_a_run_is_stopped_resumed_and_stored_the_same(tmp_path):
    with pretend_gpu():
        gpus = resumed("cuda", tmp_path)
    same(gpus, resumed("cpu", tmp_path))


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Of networks measured together, the rows of one do not follow one another."""
    return table.sort_values(["seed", "x", "y"])


def measure_networks(device: str) -> Found:
    p, q, o = (networks("resnet8", device, 2, first) for first in (0, 5, 9))
    q, o = (prune.apply(other, p.masks) for other in (q, o))
    data = data_for(p)
    few = Split(data.test.images[:20], data.test.labels[:20])
    u, v = surface.filter_normalised(p), surface.filter_normalised(p, 1)
    logits = p.logits(data.test)
    tables = {
        "line": landscape.line(p, q, [0, 0.5, 1], data.test, data.train)[["loss"]],
        "piecewise": landscape.piecewise([p, q, o], [0, 0.5, 1], data.test)[["loss"]],
        "plane": plane.through(p, q, o).evaluate(data.test, 3)[["loss"]],
        "surface": in_order(surface.surface(p, u, v, [-0.1, 0.1], [0.0, 0.1], data.test))[["loss"]],
        "of an image": in_order(surface.input_surface(p, few, [0.0, 0.1], [0.0]))[["loss"]],
        "against": similarity.against(logits, logits[:1])[["value", "spread"]],
        "among": similarity.among(logits, data.test.labels)[["value", "spread"]],
        "activations": activation_sparsity(p, data.test, 30)[["zeros"]],
        "lanczos": hessian.lanczos(p, few, 4).ends()[["smallest", "largest"]],
    }
    scored = {"snip": scores.snip(p, few), "grasp": scores.grasp(p, few), "synflow": scores.synflow(p)}
    return {
        **{name: torch.from_numpy(table.to_numpy(float)) for name, table in tables.items()},
        "top": hessian.top(p, few, 1, steps=3, tolerance=9.0).values.cpu(),
        "hvp": hessian.hvp(p, few, torch.ones_like(p.theta())).cpu(),
        "gradinit": torch.stack([*tweaks.GradInit(iterations=2, batch_size=16)(p, data.train).values()]).cpu(),
        "signal": torch.as_tensor(signal.output_std(p, 20)).cpu().double(),
        "barrier": torch.as_tensor(lcs.error_barrier(p, q, data.test, 3)).cpu().double(),
        "returned": prune.apply(p, prune.without_lowest(p, scored["snip"], [0.3, 0.5])).theta().cpu(),
        **{f"{name} {n}": score.cpu() for name, every in scored.items() for n, score in every.items()},
    }


def small_hessians(device: str) -> Found:
    model = Model("lenet5", (1, 16, 16), widths=(2, 3, 5, 4))
    dense = init.kaiming_normal(model, range(2), method="dense").to(device)
    p = prune.apply(dense, prune.magnitude_masks_per_layer(dense, 0.5))
    test = data_for(p).test
    few = Split(test.images[:40], test.labels[:40])
    entries = torch.stack([*hessian.exact(p, few)]).cpu()
    return {"values": torch.stack(hessian.spectrum(p, few).values), "entries": entries}


@pytest.mark.parametrize("measured", [measure_networks, small_hessians])
def test_measuring_is_the_same(measured):
    """Up to rounding, as a CPU measures a network at a time."""
    with pretend_gpu():
        gpus = measured("cuda")
    for what, tensor in measured("cpu").items():
        size = tensor.double().nan_to_num().abs().max().item()
        close = {"rtol": 2e-3, "atol": 2e-4 * size, "equal_nan": True}
        torch.testing.assert_close(gpus[what], tensor, **close, msg=lambda text, w=what: f"{w}: {text}")


def test_a_spectrum_read_from_the_store_can_be_drawn():
    """What was measured before comes back to the population's device."""
    with pretend_gpu():
        values = [torch.tensor([0.0, 1.0], dtype=torch.float64, device="cuda")]
        table = hessian.Spectrum(pd.DataFrame({"seed": [0]}), values, [torch.ones_like(values[0]) / 2]).density()
    assert table["density"].max() > 1


# --- the pretended GPU finds what it should -----------------------------------------------------------------


def in_the_update(before: Callable) -> dict[str, object]:
    update = Step._update
    return {"_update": lambda self, grads, loss, accuracy: update(self, before(self, grads, loss), loss, accuracy)}


def counted(self: Step, grads: tuple[Tensor, ...], loss: Tensor) -> list[Tensor]:
    self.count = getattr(self, "count", 0) + 1
    return [g * self.count for g in grads]


def replaced(self: Step) -> None:
    self.masked = {n: m.to(self.dtype) for n, m in self.work.masks.items()}
    self.optimised = self._optimised()


def too_early(self: engine.Group, start: int, stop: int, examples: Callable = engine.Group._examples) -> object:
    """The host's buffer is filled again while the device may not have read it."""
    order, moves = examples(self, start, stop)
    if not hasattr(self, "buffer"):
        self.buffer = torch.zeros(engine.BLOCK, *order.shape[1:], dtype=order.dtype)
        self.buffer.pinned = True
    self.buffer[: len(order)].copy_(order)
    view = self.buffer[: len(order)]
    view.pinned = True
    return view, moves


PLANTED = {
    "a number for the host": (Step, in_the_update(lambda self, grads, loss: (loss.sum().item(), grads)[1])),
    "a list for the host": (Step, in_the_update(lambda self, grads, loss: (loss.tolist(), grads)[1])),
    "an index that depends on numbers": (Step, in_the_update(lambda self, grads, loss: (loss[loss > 0], grads)[1])),
    "a tensor of the host": (Step, in_the_update(lambda self, grads, loss: [g * torch.ones(1) for g in grads])),
    "a counter of the host": (Step, in_the_update(counted)),
    "masks that are replaced": (Step, {"note_changes": replaced}),
    "a host's buffer used too early": (engine.Group, {"_examples": too_early}),
    "numpy of the device": (Step, {"note_changes": lambda self: self.sums.numpy()}),
    "a generator of the host": (
        Step,
        {"note_changes": lambda self: torch.rand(3, device=self.sums.device, generator=torch.Generator())},
    ),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_planted_faults_are_found(fault, monkeypatch):
    population = networks("lenet_300_100", "cpu").label(method="gmp")
    kind = {"updates": {"gmp": RULES["gmp"]}}
    right = trained(population, **kind)
    for name, wrong in PLANTED[fault][1].items():
        monkeypatch.setattr(PLANTED[fault][0], name, wrong)
    told = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            with pretend_gpu():
                theta = trained(population.to("cuda"), **kind)["theta"]
            told = [str(w.message) for w in said]
            assert "capturing" in " ".join(told) or not torch.equal(theta, right["theta"])
        except (RuntimeError, TypeError) as error:
            assert any(sign in str(error) for sign in ("same device", "numpy", "generator"))


# --- what may fail on a GPU ---------------------------------------------------------------------------------


def attempt(gpu: Gpu, count: int = 4, **more: object) -> Found:
    return trained(networks("lenet_300_100", "cuda", count), recipe={"steps": 4}, keep=[0], **more)


@pytest.fixture(scope="module")
def right() -> Found:
    with mock.patch.object(train_module, "group_size", len), mock.patch.object(stacked, "on_gpu", lambda x: True):
        return trained(networks("lenet_300_100", "cpu", 4), recipe={"steps": 4}, keep=[0])


SHORT = {
    "torch": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "CUDA": torch.AcceleratorError("CUDA error: out of memory"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "Triton": RuntimeError("Triton Error [CUDA]: out of memory"),
}


@pytest.mark.parametrize("kind", SHORT)
@pytest.mark.parametrize("name", ["_take", "__init__"], ids=["a step", "weights and state"])
def test_whichever_memory_is_short_groups_are_halved(name, kind, right, monkeypatch):
    plain, error = getattr(Step, name), SHORT[kind]

    def run(self: Step, *args: object, **kwargs: object) -> object:
        done = plain(self, *args, **kwargs)
        if len(self.work) > 2:
            raise copy.copy(error)
        return done

    monkeypatch.setattr(Step, name, run)
    with pytest.warns(UserWarning, match="4 replicas do not fit into cuda:0 together"), pretend_gpu() as gpu:
        halved = attempt(gpu)
    assert gpu.graphs == 2
    torch.testing.assert_close(halved["theta"], right["theta"], rtol=0, atol=1e-6)
    torch.testing.assert_close(halved["history"], right["history"])


def test_a_group_is_as_large_as_the_memory_that_rehearsing_took_allows(right, monkeypatch):
    """Known before recording, which cannot be tried twice."""
    rehearse = Step.rehearse

    def one_each(self: Step) -> float:
        Gpu.here.memory["peak"] = len(self.work) * GIB
        return rehearse(self)

    monkeypatch.setattr(Step, "rehearse", one_each)
    with pytest.warns(UserWarning, match="do not fit"), pretend_gpu() as gpu:
        gpu.memory["free"] = 3 * GIB
        halved = attempt(gpu)
    assert gpu.graphs == 2 and not gpu.spoilt
    torch.testing.assert_close(halved["theta"], right["theta"], rtol=0, atol=1e-6)


def test_only_the_group_at_work_takes_memory(monkeypatch):
    groups, start, make = [], engine.Group.__init__, Step.__init__

    def begin(self: engine.Group, *args: object) -> None:
        groups.append(self)
        start(self, *args)

    monkeypatch.setattr(engine.Group, "__init__", begin)
    monkeypatch.setattr(Step, "__init__", lambda self, work, *args, **kw: _at_most(1, work, make, self, *args, **kw))
    at_work = []
    with pytest.warns(UserWarning, match="do not fit"), pretend_gpu() as gpu:
        attempt(gpu, watch=lambda progress: at_work.append(sum(group.taking is not None for group in groups)))
    assert len(at_work) == 4 and max(at_work) <= 1  # each ended within one stretch
    assert all(tensor.device.type == "cpu" for group in groups for tensor in group.resting.values())


def _at_most(most: int, work: Population, make: Callable, step: Step, *args: object, **kwargs: object) -> None:
    if len(work) > most:
        raise torch.OutOfMemoryError("CUDA out of memory")
    make(step, work, *args, **kwargs)


@pytest.mark.parametrize("moment", ["recording", "recorded"])
@pytest.mark.parametrize("error", [SHORT["torch"], RuntimeError("operation not permitted")], ids=["memory", "another"])
def test_where_recording_fails_training_goes_on_and_says_so_once(moment, error, right):
    def fail(now: str) -> None:
        if now == moment:
            raise error

    with warnings.catch_warnings(record=True) as said, pretend_gpu() as gpu:
        warnings.simplefilter("always")
        gpu.fail = fail
        first, second = attempt(gpu), attempt(gpu)
        assert gpu.stream is gpu.first_stream
    (told,) = [str(w.message) for w in said]
    assert told == f"no graph of the step, which is slower: recording it failed: {type(error).__name__}: {error}"
    assert not gpu.graphs and not gpu.replays
    assert all(torch.equal(run["theta"], right["theta"]) for run in (first, second))


def test_where_compiling_fails_training_goes_on_and_says_why(right):
    def fail(now: str) -> None:
        if now == "compiled":
            raise RuntimeError("backend='inductor' raised:\nno C compiler\nfound")

    with pytest.warns(UserWarning) as said, pretend_gpu() as gpu:
        gpu.fail = fail
        run = attempt(gpu)
    assert [str(w.message) for w in said] == [
        "no compiled step, which is slower: compiling it failed: "
        "RuntimeError: backend='inductor' raised: no C compiler found"
    ]
    assert gpu.graphs == 1 and torch.equal(run["theta"], right["theta"])


def test_a_fault_of_the_step_is_no_fault_of_the_compiler(monkeypatch):
    def wrong(self: Step, *args: object) -> None:
        raise ValueError("a fault of ours")

    monkeypatch.setattr(Step, "_update", wrong)
    with warnings.catch_warnings(), pytest.raises(ValueError, match="a fault of ours") as raised, pretend_gpu() as gpu:
        warnings.simplefilter("error")
        attempt(gpu)
    assert raised.value.__context__ is None  # not while another error, and what it holds, is dealt with


@pytest.mark.parametrize("copies", [0, 1, 5])
def test_ctrl_c_while_the_rehearsal_is_undone_leaves_no_wrong_checkpoint(copies, right, tmp_path, monkeypatch):
    """Stopped when so many tensors are as they were; the others are three steps further."""
    path, rehearse = tmp_path / "run", Step._rehearse

    def interrupted(self: Step) -> float:
        tensors = [*self.tensors().values()]
        before = [t.clone() for t in tensors]
        for _ in range(3):
            self._take()
        for tensor, old in zip(tensors[:copies], before, strict=False):
            tensor.copy_(old)
        raise KeyboardInterrupt

    with pretend_gpu() as gpu:
        monkeypatch.setattr(Step, "_rehearse", interrupted)
        with pytest.raises(KeyboardInterrupt):
            attempt(gpu, checkpoint=path)
        monkeypatch.setattr(Step, "_rehearse", rehearse)
        resumed = attempt(gpu, checkpoint=path)
    assert torch.equal(resumed["theta"], right["theta"])


def test_the_layout_of_a_network_of_few_channels_is_the_faster_one_tried_once(monkeypatch):
    monkeypatch.undo()  # nothing is settled
    monkeypatch.setattr(engine, "LOG_EVERY", 6)
    monkeypatch.setattr(engine, "faster", faster := {})
    monkeypatch.setattr("lth.training.layout.faster", faster)
    rehearsed, rehearse = [], Step.rehearse

    def slow_with_channels_last(self: Step) -> float:
        rehearse(self)
        rehearsed.append(self.channels_last)
        return 2.0 if self.channels_last else 1.0

    monkeypatch.setattr(Step, "rehearse", slow_with_channels_last)
    with pretend_gpu():
        for _ in range(2):
            trained(networks("lenet5", "cuda"), recipe={"steps": 3}, keep=[0])
        assert rehearsed == [True, False, False, False]
        trained(networks("resnet8", "cuda"), recipe={"steps": 3}, keep=[0])
    assert rehearsed[4:] == [True] and [*faster.values()] == [False]


def test_compilations_are_counted_by_kind_of_step():
    """Neither lengths, momenta and rounds of a ladder nor, from the second on, numbers of replicas are kinds."""
    with pretend_gpu():
        counts = []
        for count, recipe in ((3, {}), (3, {"steps": 9}), (3, {"momentum": 0.5}), (4, {}), (5, {}), (4, {"steps": 3})):
            trained(networks("lenet_300_100", "cuda", count), recipe=recipe, keep=[0])
            counts.append(step.compilations.count)
        ladder("cuda", "weights")
        counts.append(step.compilations.count)
        trained(networks("lenet_300_100", "cuda"), recipe={"optimizer": "adam"})
    assert [*counts, step.compilations.count] == [1, 1, 1, 2, 2, 2, 2, 3]


def test_a_short_run_is_recorded_without_being_compiled(monkeypatch, right):
    monkeypatch.setattr(step, "compilations", found := Compilations())
    with pretend_gpu() as gpu:
        gpu.fail = lambda moment: pytest.fail("compiled") if moment == "compiled" else None
        run = attempt(gpu)
    assert (gpu.graphs, found.count) == (1, 0) and torch.equal(run["theta"], right["theta"])


def test_bf16_is_refused_where_the_gpu_has_none():
    with pretend_gpu() as gpu:
        gpu.capability = 7, 5
        with pytest.raises(UsageError, match="bf16 needs compute capability 8.0, pretend GPU has 7.5"):
            trained(networks("lenet_300_100", "cuda"), recipe={"precision": "bf16"})


def test_networks_are_evaluated_in_full_precision_while_they_train_in_tf32(monkeypatch):
    seen, forward = [], Population.network
    conv = torch.backends.cudnn.conv

    def network(self: Population) -> torch.nn.Module:
        made = forward(self)
        made.register_forward_pre_hook(lambda module, args: seen.append((module.training, conv.fp32_precision)))
        return made

    monkeypatch.setattr(Population, "network", network)
    with pretend_gpu():
        population = networks("lenet5", "cuda")
        data = data_for(population)
        run = train(population, data, Recipe(steps=3, batch_size=8, precision="tf32"))
        run.final.evaluate(data.test)
    assert set(seen) == {(True, "tf32"), (False, "ieee")}


SHORTER = {  # every operation of the pretended GPU goes through Python
    "lt_basin": {"steps": 20, "prune_start": 5, "prune_end": 10},
    "tweaks": {"others": []},
    "rti_repulsion": {"subset": 0.2},
    "lcs_geometry": {"dense_seeds": 3},
}


# steps compiled in a chapter under smoke, were each compiled at once; when sizes were built in, they were 8, 4 and 3
COMPILATIONS = {"gradient_flow": 6, "dst_updates": 3, "lt_basin": 2}


@contextlib.contextmanager
def as_the_runner(chapter: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """The chapter's parameters under `smoke`, in the place of those written in the notebook."""
    for name, value in {"LTH_OUT": out, "LTH_PRESET": "smoke", "LTH_DEVICE": "cuda"}.items():
        monkeypatch.setenv(name, str(value))
    yield parameters(chapter, "smoke", SHORTER.get(chapter)).model_dump()


@pytest.mark.thorough
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_chapter_runs(chapter, tmp_path, monkeypatch):
    """Its cells one after another, in this process, under the preset smoke."""
    import nbformat
    from IPython.core.interactiveshell import InteractiveShell

    notebook = nbformat.read(ROOT / CHAPTERS[chapter], as_version=4)
    shell = InteractiveShell.instance()
    shell.reset(new_session=False)
    with as_the_runner(chapter, tmp_path, monkeypatch) as chosen, pretend_gpu() as gpu:
        for cell in notebook.cells:
            if cell.cell_type == "code":
                shell.run_cell(cell.source).raise_error()
            if "parameters" in cell.metadata.get("tags", ()):
                shell.push(chosen)
    assert gpu.graphs and gpu.replays
    assert step.compilations.count <= COMPILATIONS.get(chapter, gpu.graphs)
