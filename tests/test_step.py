"""The step of every architecture, alone and stacked, against plain PyTorch; losses, failures and splits."""

from __future__ import annotations

import functools
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from conftest import double, has_mnist, toy_data
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import prune as torch_prune
from torchvision.transforms import v2

from lth.data import Data, load
from lth.errors import LthError, UsageError
from lth.methods import dst, init, prune
from lth.models import ARCHITECTURES, Model, stacked
from lth.population import Population, concat
from lth.training import group as engine
from lth.training import step
from lth.training import train as train_module
from lth.training.batches import PADDING, Batches
from lth.training.compiling import Compilations
from lth.training.recipe import Recipe
from lth.training.train import train

BIG = [n for n in ARCHITECTURES if n.startswith(("vgg", "mobilenet", "resnet18", "resnet32", "resnet34", "resnet50"))]
SMALL = {"lenet_300_100": (1, 8, 8), "lenet5": (1, 16, 16), "conv4": (3, 8, 8)}
NARROW = {name: {"widths": (16,)} for name in BIG if not name.startswith(("mobilenet", "resnet32"))}  # quickly trained
OPTIONS = NARROW | {
    "resnet20": {"skips": "conv"},
    "resnet32": {"affine": False},
    "resnet18": {"activation": "swish", "skips": "plain", "widths": (16,)},
}


def networks(name: str, replicas: int = 2, **options: Any) -> Population:
    """Half-pruned networks of ten classes in float64, for small images."""
    side = 64 if name.endswith("imagenet") else 16  # so that batch norm has more than one pixel to go by
    model = Model(name, SMALL.get(name, (3, side, side)), 4, **OPTIONS.get(name, {}) | options)
    population = double(init.kaiming_normal(model, seeds=range(replicas), method="dense"))
    return prune.apply(population, prune.magnitude_masks(population, 0.5))


def data_for(population: Population) -> Data:
    return toy_data(60 + 100, population.model.shape, population.model.classes)


def plain_training(network: Population, data: Data, recipe: Recipe) -> tuple[Tensor, dict[str, Tensor]]:
    """One network trained with torch.optim.SGD and torch.nn.utils.prune: θ and buffers afterwards."""
    module = network[[0]].module(0).train()
    for name, mask in network.masks.items():
        owner, _, leaf = name.rpartition(".")
        torch_prune.custom_from_mask(module.get_submodule(owner), leaf, mask[0])
    optimizer = torch.optim.SGD(module.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    order, moves = Batches(network.seeds, len(data.train), recipe.batch_size, recipe.augment).between(0, recipe.steps)
    for t in range(recipe.steps):
        images = data.train.images[order[t, 0]]
        if moves is not None:
            moved = []
            for image, (top, left, flip) in zip(images, moves[t, 0].tolist(), strict=True):
                image = v2.functional.crop(v2.functional.pad(image, [PADDING] * 4), top, left, *image.shape[1:])
                moved.append(v2.functional.horizontal_flip(image) if flip else image)
            images = torch.stack(moved)
        optimizer.zero_grad()
        loss = F.cross_entropy(
            module(images.float().div(255).double()),
            data.train.labels[order[t, 0]],
            label_smoothing=recipe.label_smoothing,
        )
        loss.backward()
        optimizer.step()
        scheduler.step()
    for name in network.masks:
        owner, _, leaf = name.rpartition(".")
        torch_prune.remove(module.get_submodule(owner), leaf)
    buffers = {n: b for n, b in module.named_buffers() if n in network.buffers}
    return torch.cat([dict(module.named_parameters())[n].detach().flatten() for n in network.params]), buffers


@pytest.fixture(params=["a replica at a time", "stacked"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "stacked":
        monkeypatch.setattr(train_module, "group_size", len)
    return request.param


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.thorough) if name in BIG else name for name in ARCHITECTURES]
)
def test_every_architecture_equals_plain_pytorch_runs(name, monkeypatch):
    """Masks, momentum, weight decay, crops and flips, batch-norm statistics included.

    The learning rate is small: at a larger one, rounding errors in deep networks grow thirtyfold with every step.
    """
    population = networks(name)
    data = data_for(population)
    crops = population.model.shape[0] == 3
    recipe = Recipe(steps=3 if name in BIG else 9, batch_size=6, lr=1e-5, weight_decay=0.1, augment=crops)
    expected = [plain_training(population[[r]], data, recipe) for r in range(len(population))]
    for size, on_gpu in ((lambda _: 1, False), (len, False), (len, True)):  # a replica at a time, stacked, as on a GPU
        monkeypatch.setattr(train_module, "group_size", size)
        monkeypatch.setattr(stacked, "on_gpu", lambda x, on_gpu=on_gpu: on_gpu)
        final = train(population, data, recipe).final
        for r, (theta, buffers) in enumerate(expected):
            assert not torch.equal(theta, population.theta()[r])
            torch.testing.assert_close(final.theta()[r], theta, rtol=0, atol=1e-10)
            for n, buffer in buffers.items():
                torch.testing.assert_close(final.buffers[n][r], buffer, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("rule", [prune.Gradual(0.8, 2, 8, 2), dst.DST("gradient", 3, 12, block=40)])
def test_under_changing_masks_a_gpus_form_of_the_step_is_the_same_step(rule, precision, monkeypatch):
    """In float64 up to rounding; and to the bit, with products of half precision, whether or not copies are kept."""
    population = networks("lenet5", 3).label(method=["rule", "dense", "rule"], weight_decay=[0.0, 0.1, 0.01])
    if precision == "bf16":
        population = population.with_theta(population.theta().float())
    data, recipe = data_for(population), Recipe(steps=14, batch_size=6, lr=0.01, precision=precision)
    monkeypatch.setattr(train_module, "group_size", len)
    monkeypatch.setattr(stacked, "on_gpu", lambda x: precision == "bf16")
    with monkeypatch.context() as plainly:
        plainly.setattr(step.Step, "_rounded", lambda *_: {})
        plain = train(population, data, recipe, updates={"rule": rule}, keep=[5])
    monkeypatch.setattr(stacked, "on_gpu", lambda x: True)
    run = train(population, data, recipe, updates={"rule": rule}, keep=[5])
    close = {"rtol": 0, "atol": 0 if precision == "bf16" else 1e-10}
    torch.testing.assert_close(run.final.theta(), plain.final.theta(), **close)
    torch.testing.assert_close(run.at(5).theta(), plain.at(5).theta(), **close)
    assert torch.equal(run.final.theta_mask(), plain.final.theta_mask())
    assert not torch.equal(run.final.theta_mask(), population.theta_mask())
    assert torch.all(run.final.theta()[~run.final.theta_mask()] == 0)


def test_outputs_do_not_depend_on_the_way_they_are_computed():
    for name in ("lenet_300_100", "resnet20"):
        population = networks(name, replicas=3)
        images = data_for(population).test.pixels(torch.arange(9)).double()
        with torch.no_grad():
            stacked = population.network().eval()(images.repeat(1, 3, 1, 1))
            for r in range(3):
                torch.testing.assert_close(stacked[:, r], population.module(r).eval()(images), rtol=0, atol=1e-12)


@pytest.mark.thorough
@pytest.mark.threads
def test_a_large_network_does_not_depend_on_the_others_either():
    """It has all cores to itself, alone or not."""
    population = networks("resnet18", widths=(64,))
    assert train_module.threads_each(population) == torch.get_num_threads()
    assert train_module.threads_each(networks("lenet5")) == 1
    data, recipe = data_for(population), Recipe(steps=2, batch_size=4)
    together = train(population, data, recipe).final.theta()
    assert torch.equal(together[[1]], train(population[[1]], data, recipe).final.theta())


def test_losses_of_each_replica_come_from_the_frame(way):
    population = networks("conv4", 3)
    data, recipe = data_for(population), Recipe(steps=6, batch_size=8, lr=0.01)
    own = [0.0, 0.1, 0.3]
    together = train(population.label(label_smoothing=own), data, recipe).final.theta()
    for r, alpha in enumerate(own):
        smoothed = recipe.model_copy(update={"label_smoothing": alpha})
        torch.testing.assert_close(together[r], plain_training(population[[r]], data, smoothed)[0], rtol=0, atol=1e-10)


def test_distillation_follows_each_replicas_teacher(way):
    """κ = 1 with the student's own copy as teacher: nothing to learn. Otherwise, one step by hand."""
    students, teachers = networks("resnet20", 3), networks("resnet20", 5)[[3, 4, 4]]
    data = data_for(students)
    recipe = Recipe(steps=1, batch_size=8, lr=0.1, momentum=0, temperature=2, schedule="constant")
    students = students.label(distill=[0.0, 0.4, 1.0])
    final = train(students, data, recipe, teacher=teachers).final.theta()
    for r, kappa in enumerate([0.0, 0.4, 1.0]):
        module, teacher = students[[r]].module(0).train(), teachers[[r]].module(0).eval()
        order, _ = Batches([students.seeds[r]], len(data.train), 8).between(0, 1)
        images, labels = data.train.pixels(order[0, 0]).double(), data.train.labels[order[0, 0]]
        logits = module(images)
        p, q = F.log_softmax(logits / 2, 1), F.softmax(teacher(images) / 2, 1)
        loss = (1 - kappa) * F.cross_entropy(logits, labels) + kappa * 4 * F.kl_div(p, q, reduction="batchmean")
        grads = torch.autograd.grad(loss, list(module.parameters()))
        expected = students.theta()[r] - 0.1 * torch.cat([g.flatten() for g in grads]) * students.theta_mask()[r]
        torch.testing.assert_close(final[r], expected, rtol=0, atol=1e-12)
    one = train(students, data, recipe, teacher=teachers[[1]]).final.theta()
    torch.testing.assert_close(one[1:], final[1:], rtol=0, atol=1e-12)  # the first has no use for a teacher


@dataclass(frozen=True)
class Pull:
    """λ/2·‖θ − target‖² over the first layer."""

    strength: Tensor
    target: Tensor

    def __call__(self, params: dict[str, Tensor], masks: dict[str, Tensor]) -> Tensor:
        weight = params["fc1.weight"] * masks["fc1.weight"]
        return self.strength / 2 * (weight - self.target).square().flatten(1).sum(1)

    def __getitem__(self, rows: slice) -> Pull:
        return Pull(self.strength[rows], self.target[rows])


def test_a_penalty_adds_its_gradient_and_revives_no_pruned_weight(way):
    population = networks("lenet_300_100", 3)
    data, recipe = data_for(population), Recipe(steps=1, batch_size=8, lr=0.1, momentum=0.9)
    pull = Pull(torch.tensor([0.0, 0.5, 2.0]).double(), torch.ones_like(population.params["fc1.weight"]))
    plain, pulled = (train(population, data, recipe, penalty=p).final for p in (None, pull))
    mask = population.masks["fc1.weight"]
    step_ = 0.1 * pull.strength[:, None, None] * (1 - population.params["fc1.weight"]) * mask
    torch.testing.assert_close(pulled.params["fc1.weight"], plain.params["fc1.weight"] + step_, rtol=0, atol=1e-12)
    assert torch.all(pulled.params["fc1.weight"][~mask] == 0)
    assert torch.equal(pulled.params["fc2.weight"], plain.params["fc2.weight"])
    losses = [train(population, data, recipe, penalty=p).history.loss for p in (None, pull)]
    assert losses[0].equals(losses[1])  # the history shows the loss without the penalty


def test_a_loss_that_is_no_number_fails_that_replica_alone(way, monkeypatch):
    monkeypatch.setattr(engine, "LOG_EVERY", 10)
    population = networks("conv4", 3).label(lr=[0.01, 1e200, 0.01])
    data, recipe = data_for(population), Recipe(steps=25, batch_size=6)
    with pytest.warns(UserWarning, match=r"1 of 3 replicas failed: the loss of replica 1 \(seed 1\)"):
        run = train(population, data, recipe)
    assert list(run.failed) == [1] and 0 <= run.failed[1] < 5
    lost = run.history[(run.history.seed == 1) & (run.history.step > 10)]
    assert len(lost) and lost.loss.isna().all()
    others = [0, 2]
    alone = train(population[others], data, recipe)
    assert not alone.failed
    torch.testing.assert_close(run.final.theta()[others], alone.final.theta(), rtol=0, atol=1e-10)


def test_half_precision_keeps_full_weights_and_learns_the_same(toy):
    """bf16 products: six seeds end as accurate as with fp32, within one standard deviation."""
    dense = init.glorot_uniform(Model("lenet_300_100"), seeds=range(6))
    runs = {p: train(dense, toy, Recipe(steps=60, batch_size=25, lr=0.1, precision=p)) for p in ("fp32", "bf16")}
    final = {p: run.final.evaluate(toy.test).accuracy for p, run in runs.items()}
    assert runs["bf16"].final.params["fc1.weight"].dtype == torch.float32
    assert not torch.equal(runs["bf16"].final.theta(), runs["fp32"].final.theta())
    first = {p: train(dense[:2], toy, Recipe(steps=3, batch_size=25, lr=0.1, precision=p)) for p in ("fp32", "tf32")}
    assert torch.equal(first["tf32"].final.theta(), first["fp32"].final.theta())  # on a CPU
    assert final["fp32"].mean() > 0.5
    assert abs(final["bf16"].mean() - final["fp32"].mean()) < max(final["fp32"].std(), 0.01)


@pytest.mark.thorough
def test_half_precision_over_a_full_run_on_mnist():
    """bf16 and tf32 in 11,719 steps of ten networks on MNIST: as accurate as fp32, within one standard deviation."""
    if not has_mnist():
        pytest.skip("no MNIST under LTH_DATA")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mnist = load("mnist").to(device)
    start = init.glorot_uniform(Model("lenet_300_100"), seeds=range(10)).to(device)
    accuracy = {}
    for precision in ("fp32", "bf16", *(["tf32"] if device == "cuda" else [])):  # on a CPU tf32 is fp32
        recipe = Recipe(steps=11_719, batch_size=128, lr=0.1, precision=precision)
        accuracy[precision] = train(start, mnist, recipe).final.evaluate(mnist.test).accuracy
        print(precision, accuracy[precision].mean(), accuracy[precision].std())
    fp32 = accuracy.pop("fp32")
    assert fp32.mean() > 0.975
    for other in accuracy.values():
        assert abs(other.mean() - fp32.mean()) < fp32.std()


class Recorder:
    """Stands for a device whose memory holds `most` replicas at a time."""

    def __init__(self, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        start = engine.Group.__init__

        def begin(group: engine.Group, *args: object, **kwargs: object) -> None:
            start(group, *args, **kwargs)
            group.recorded = False

        def record(taking: step.Step) -> None:
            self.sizes.append(len(taking.work))
            if len(taking.work) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(engine.Group, "__init__", begin)
        monkeypatch.setattr(step.Step, "record", record)
        monkeypatch.setattr(train_module, "group_size", len)


def test_what_does_not_fit_is_split_and_said_once(monkeypatch):
    population = networks("lenet_300_100", 7)
    data, recipe = data_for(population), Recipe(steps=12, batch_size=6, weight_decay=1e-3)
    kind = {"keep": [0, 5], "updates": {"dense": prune.Gradual(0.8, 2, 8, 2)}}
    whole = train(population, data, recipe, **kind)
    recorder = Recorder(2, monkeypatch)
    with pytest.warns(UserWarning, match="7 replicas do not fit") as said:
        split = train(population, data, recipe, **kind)
    assert sum("do not fit" in str(w.message) for w in said) == 1
    assert sorted(recorder.sizes) == [1, 2, 2, 2, 3, 4, 7]
    torch.testing.assert_close(split.final.theta(), whole.final.theta(), rtol=0, atol=1e-12)
    torch.testing.assert_close(split.at(5).theta(), whole.at(5).theta(), rtol=0, atol=1e-12)
    assert split.final.frame.equals(whole.final.frame)
    assert split.history.step.equals(whole.history.step)


@pytest.mark.parametrize("name", ["lenet5", pytest.param("resnet20", marks=pytest.mark.thorough)])
def test_the_compiled_step_is_the_same_step(name, monkeypatch):
    """Traced whole, as on a GPU, without a break and without a second time when masks change."""
    population = networks(name).label(label_smoothing=[0.0, 0.1], lr=[1e-4, 2e-4])
    data = data_for(population)
    recipe = Recipe(steps=7, batch_size=6, weight_decay=1e-3, augment=name == "resnet20")
    kind = {"updates": {"dense": prune.Gradual(0.8, 2, 4, 1)}, "teacher": None}
    plain = train(population, data, recipe, **kind)
    Recorder(len(population), monkeypatch)
    monkeypatch.setattr(step.Step, "record", step.Step.compile)
    monkeypatch.setattr(step, "compilations", Compilations(at_once=True))
    monkeypatch.setattr(train_module, "workers", lambda *counts: nullcontext(lambda f, items: [*map(f, items)]))
    counts = torch._dynamo.utils.counters
    counts.clear()
    whole = functools.partial(torch.compile, backend="aot_eager", fullgraph=True)
    monkeypatch.setattr(step.torch, "compile", whole)
    compiled = train(population, data, recipe, **kind)
    assert counts["stats"]["unique_graphs"] == 2  # forward pass and update
    again = train(population[[1, 0]], data, recipe, **kind).final
    assert counts["stats"]["unique_graphs"] == 2  # the next population of this kind needs no compiling
    torch.testing.assert_close(again.theta()[[1, 0]], compiled.final.theta(), rtol=0, atol=1e-12)
    torch.testing.assert_close(compiled.final.theta(), plain.final.theta(), rtol=0, atol=1e-12)
    for n, buffer in plain.final.buffers.items():
        torch.testing.assert_close(compiled.final.buffers[n], buffer, rtol=1e-10, atol=1e-12)
    assert compiled.history.loss.tail(1).item() == pytest.approx(plain.history.loss.tail(1).item(), abs=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_compiled_serves_runs_that_differ_in_numbers_only(precision, monkeypatch):
    """As dynamo itself counts: two graphs, forward pass and update, and two more for any other number of replicas."""
    Recorder(9, monkeypatch)
    monkeypatch.setattr(step.Step, "record", step.Step.compile)
    monkeypatch.setattr(stacked, "on_gpu", lambda x: True)
    monkeypatch.setattr(step, "compilations", found := Compilations(at_once=True))
    monkeypatch.setattr(train_module, "workers", lambda *counts: nullcontext(lambda f, items: [*map(f, items)]))
    monkeypatch.setattr(step.torch, "compile", functools.partial(torch.compile, backend="aot_eager", fullgraph=True))
    torch._dynamo.reset()
    counts = torch._dynamo.utils.counters
    counts.clear()

    def compiled(replicas: int = 2, images: int = 160, **more: float) -> tuple[int, int]:
        dense = init.kaiming_normal(Model("lenet_300_100", (1, 8, 8), 4), range(replicas), method="dense")
        population = prune.apply(dense, prune.magnitude_masks(dense, 0.5))
        recipe = Recipe(**{"steps": 3, "batch_size": 6, "precision": precision} | more)
        data = toy_data(images, (1, 8, 8), 4)
        final = train(population, data, recipe).final.theta()
        with monkeypatch.context() as plainly:
            plainly.setattr(step.Step, "record", lambda taking: 0.0)
            plain = train(population, data, recipe).final.theta()
        torch.testing.assert_close(final, plain, rtol=0, atol=1e-5 if precision == "fp32" else 1e-3)
        return found.count, counts["stats"]["unique_graphs"]

    assert compiled() == (1, 2)
    for more in ({"steps": 5}, {"momentum": 0.5}, {"images": 220}, {"first_step": 1, "lr": 0.3}):
        assert compiled(**more) == (1, 2), more
    assert [compiled(replicas) for replicas in (3, 4, 2, 5)] == [(2, 4)] * 4
    assert compiled(batch_size=7) == (3, 5)  # another kind, but for the update


def test_a_short_run_is_compiled_once_runs_of_its_kind_have_taken_as_long(monkeypatch):
    population = networks("lenet_300_100")
    data = data_for(population)
    Recorder(len(population), monkeypatch)
    monkeypatch.setattr(step.Step, "record", step.Step.compile)
    monkeypatch.setattr(step, "compilations", found := Compilations())
    made: list[object] = []
    monkeypatch.setattr(step.torch, "compile", lambda part, dynamic: made.append(part) or part)
    monkeypatch.setattr(step.Step, "_rehearse", lambda taking: 0.5)  # seconds a step; compiling takes 9, it is guessed
    for steps, count in ((10, 0), (7, 0), (2, 1), (1, 1)):
        train(population, data, Recipe(steps=steps, batch_size=6))
        assert found.count == count, steps
    assert len(made) == 4  # both parts, for the third run and for the fourth, which finds them compiled


def test_without_a_compiler_training_goes_on(monkeypatch):
    def broken(part: object, dynamic: bool) -> object:
        def fail(*args: object) -> None:
            raise RuntimeError("no C compiler found")

        return fail

    population = networks("lenet_300_100")
    data, recipe = data_for(population), Recipe(steps=7, batch_size=6)
    plain = train(population, data, recipe)
    Recorder(len(population), monkeypatch)
    monkeypatch.setattr(step.Step, "record", step.Step.compile)
    monkeypatch.setattr(step, "compilations", Compilations(at_once=True))
    monkeypatch.setattr(step.torch, "compile", broken)
    with pytest.warns(UserWarning, match="compiling it failed: RuntimeError: no C compiler found"):
        slower = train(population, data, recipe)
    assert torch.allclose(slower.final.theta(), plain.final.theta(), rtol=0, atol=1e-12)


def test_the_compilers_advice_on_precision_is_not_passed_on_and_other_warnings_are(monkeypatch):
    """The recipe says in which precision products are; on a GPU it would stand in every executed notebook."""

    def talking(part: object, dynamic: bool) -> object:
        def run(*args: object) -> object:
            warnings.warn("TensorFloat32 tensor cores for float32 matrix multiplication available", stacklevel=1)
            warnings.warn("something else", stacklevel=1)
            return part(*args)

        return run

    population = networks("lenet_300_100")
    Recorder(len(population), monkeypatch)
    monkeypatch.setattr(step.Step, "record", step.Step.compile)
    monkeypatch.setattr(step, "compilations", Compilations(at_once=True))
    monkeypatch.setattr(step.torch, "compile", talking)
    taking = step.Step(population, data_for(population), Recipe(steps=1, batch_size=6), None, None, False)
    with pytest.warns(UserWarning, match="something else") as said:
        taking.compile()
    assert not any("TensorFloat32" in str(warning.message) for warning in said)


def test_one_replica_that_does_not_fit_is_an_error(monkeypatch):
    population = networks("lenet_300_100", 1)
    Recorder(0, monkeypatch)
    with pytest.raises(LthError, match="one lenet_300_100 and a batch of 4 images do not fit .* smaller batch_size"):
        train(population, data_for(population), Recipe(steps=2, batch_size=4))


@pytest.mark.parametrize(
    "before, after",
    [
        pytest.param(len, lambda _: 2, marks=pytest.mark.thorough),
        pytest.param(lambda _: 1, len, marks=pytest.mark.thorough),
        (lambda _: 3, lambda _: 2),
    ],
)
def test_a_run_goes_on_with_its_replicas_grouped_otherwise(before, after, tmp_path, monkeypatch):
    """Such as on another device."""
    monkeypatch.setattr(engine, "LOG_EVERY", 4)
    monkeypatch.setattr(engine, "STRETCH", 0)
    population = networks("resnet20", 4)
    data, path = data_for(population), tmp_path / "run"
    kind = {"recipe": Recipe(steps=9, batch_size=6), "keep": [0, 3], "updates": {"dense": prune.Gradual(0.8, 2, 6, 2)}}
    whole = train(population, data, **kind)
    left = [7]

    def interrupt(progress: train_module.Progress) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "group_size", before)
    with pytest.raises(KeyboardInterrupt):
        train(population, data, **kind, checkpoint=path, watch=interrupt)
    monkeypatch.setattr(train_module, "group_size", after)
    resumed = train(population, data, **kind, checkpoint=path)
    torch.testing.assert_close(resumed.final.theta(), whole.final.theta(), rtol=0, atol=1e-10)
    torch.testing.assert_close(resumed.at(3).theta(), whole.at(3).theta(), rtol=0, atol=1e-10)
    torch.testing.assert_close(
        torch.tensor(resumed.history.loss), torch.tensor(whole.history.loss), rtol=0, atol=1e-10, equal_nan=True
    )


def test_what_cannot_be_trained_together_is_said_before_work_starts():
    population = networks("lenet_300_100")
    data, recipe = data_for(population), Recipe(steps=3, batch_size=4)
    with pytest.raises(UsageError, match="`batch_size` of the frame differs from the recipe's 4"):
        train(population.label(batch_size=[4, 8]), data, recipe)
    with pytest.raises(UsageError, match="cannot join"):
        concat([population, networks("lenet5")])
    teacher = double(init.glorot_uniform(Model("lenet_300_100", (1, 8, 8), 7), seeds=[0]))
    with pytest.raises(UsageError, match="teacher was made for .* of 7 classes"):
        train(population, data, recipe, teacher=teacher)
    with pytest.raises(UsageError, match="no teacher"):
        train(population, data, recipe.model_copy(update={"distill": 0.5}))
    with pytest.raises(UsageError, match="3 teachers"):
        train(population, data, recipe, teacher=networks("lenet_300_100", 3))
    with pytest.raises(UsageError, match="supports activation relu or swish or mish, not gelu"):
        Model("resnet20", activation="gelu")
    wrong = {n: m[:, :1] for n, m in population.masks.items()}
    with pytest.raises(UsageError, match="masks: fc1.weight has shape"):
        replace(population, masks=wrong)
    with pytest.raises(UsageError, match="expected bool"):
        replace(population, masks={n: m.float() for n, m in population.masks.items()})
    pull = Pull(torch.ones(3).double(), torch.ones(3, 1, 1).double())
    with pytest.raises((UsageError, RuntimeError), match="penalty has shape|must match"):
        train(population, data, recipe, penalty=pull)


def test_a_rule_that_gives_a_mask_of_the_wrong_shape_is_named():
    @dataclass(frozen=True)
    class Broken(prune.Gradual):
        def masks(self, population: Population, step: int, data: Data) -> dict[str, Tensor]:
            return {"fc1.weight": population.masks["fc1.weight"][:, :1]}

    population = networks("lenet_300_100", 1)
    with pytest.raises(LthError, match=r"Broken gave a mask of shape \(1, 1, 64\) for fc1.weight"):
        train(population, data_for(population), Recipe(steps=9, batch_size=6), updates={"dense": Broken(0.5, 1, 3, 1)})
