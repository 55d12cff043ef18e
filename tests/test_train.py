"""train() against plain PyTorch, and what must hold after every step."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import double
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune as torch_prune

from lth import seeds
from lth.errors import LthError, UsageError
from lth.methods import init, prune
from lth.models import Model
from lth.population import Population, concat
from lth.training import group as engine
from lth.training import optim
from lth.training import train as train_module
from lth.training.plan import Probe
from lth.training.recipe import BETA1, BETA2, EPSILON, Recipe
from lth.training.train import train

RECIPES = {
    "sgd": Recipe(steps=20, batch_size=32, lr=0.1, momentum=0.9, schedule="cosine"),
    "sgd, decay": Recipe(steps=20, batch_size=32, lr=0.1, weight_decay=5e-3, schedule="step", milestones=(7, 15)),
    "sgd, l2 of kernels": Recipe(steps=20, batch_size=32, lr=0.1, weight_decay=5e-3, decay="kernels_l2", warmup=5),
    "adam": Recipe(steps=20, batch_size=32, lr=2e-3, optimizer="adam", schedule="constant", weight_decay=1e-3),
}


def plain_training(network: Population, data, recipe: Recipe) -> torch.Tensor:
    """One network, trained with torch.optim, torch.nn.utils.prune and a torch scheduler: θ after the run."""
    module = network[[0]].module(0)
    for name, mask in network.masks.items():
        owner, _, leaf = name.rpartition(".")
        torch_prune.custom_from_mask(module.get_submodule(owner), leaf, mask[0])
    kernels = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim <= 1]
    tensorflow = recipe.decay == "kernels_l2"
    groups = [
        {"params": kernels, "weight_decay": recipe.weight_decay * (2 if tensorflow else 1)},
        {"params": others, "weight_decay": 0 if tensorflow else recipe.weight_decay},
    ]
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum)
    else:
        optimizer = torch.optim.Adam(groups, lr=recipe.lr)
    scheduler = {
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps),
        "step": lambda: torch.optim.lr_scheduler.MultiStepLR(optimizer, list(recipe.milestones), recipe.gamma),
        "constant": lambda: torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0),
    }[recipe.schedule]()
    seed = network.seeds[0]
    epochs = [seeds.numpy_stream(seed, seeds.ORDER, e).permutation(len(data.train)) for e in range(20)]
    stream = np.concatenate(epochs)
    for step in range(recipe.steps):
        batch = torch.from_numpy(stream[step * recipe.batch_size :][: recipe.batch_size])
        images = (data.train.images[batch].double() / 255).float().double()
        if recipe.warmup:
            for group, lr in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
                group["lr"] = lr * min(1.0, (step + 1) / recipe.warmup)
        optimizer.zero_grad()
        F.cross_entropy(module(images), data.train.labels[batch]).backward()
        optimizer.step()
        if recipe.warmup:
            for group, lr in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
                group["lr"] = lr
        scheduler.step()
    for name in network.masks:
        owner, _, leaf = name.rpartition(".")
        torch_prune.remove(module.get_submodule(owner), leaf)
    return torch.cat([dict(module.named_parameters())[name].flatten() for name in network.params])


@pytest.fixture
def sparse() -> Population:
    """Two sparse networks and a dense one, float64."""
    dense = double(init.glorot_uniform(Model("lenet_300_100"), seeds=[3, 4, 5]))
    pruned = prune.apply(dense[:2], prune.magnitude_masks_per_layer(dense[:2], 0.8))
    return concat([pruned, dense[2:]])


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
@pytest.mark.parametrize("way", ["a replica at a time", "stacked"])
def test_a_population_equals_plain_pytorch_runs(sparse, toy, recipe, way, monkeypatch):
    if way == "stacked":
        monkeypatch.setattr(train_module, "group_size", len)
    final = train(sparse, toy, recipe).final.theta()
    for r in range(len(sparse)):
        expected = plain_training(sparse[[r]], toy, recipe).detach()
        torch.testing.assert_close(final[r], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("square", [0.0, 1e-45, 1e-40, 0.9e-36, 1.1e-36, 1e-30, 1e-16, 1.0])
def test_adams_step_is_the_same_to_the_bit_though_it_takes_no_root_of_zero(square):
    recipe = Recipe(steps=1, optimizer="adam")
    weight, grad, mean, square = (torch.full((2, 1), value) for value in (0.0, 0.0, 1e-9, square))
    scale = (square * BETA2).sqrt() + EPSILON
    expected = torch.addcdiv(weight, 0.01 * torch.lerp(mean, grad, 1 - BETA1), scale, value=-1)
    step = (recipe, torch.ones(4), [weight], [grad], [None], [[mean, square]], [torch.full((2, 1), 0.01)], [None])
    optim.step_(*step)
    assert torch.equal(weight, expected)


@pytest.mark.parametrize("way", ["a replica at a time", "stacked"])
def test_lenet5_equals_plain_pytorch(toy, lenets, way, monkeypatch):
    if way == "stacked":
        monkeypatch.setattr(train_module, "group_size", len)
    recipe = Recipe(steps=20, batch_size=16, lr=0.05)
    population = double(lenets)
    population = prune.apply(population, prune.magnitude_masks(population, 0.7))
    final = train(population, toy, recipe).final.theta()
    for r in range(len(population)):
        expected = plain_training(population[[r]], toy, recipe).detach()
        torch.testing.assert_close(final[r], expected, rtol=0, atol=1e-10)


def test_lr_and_weight_decay_of_each_replica_come_from_the_frame(sparse, toy):
    recipe = Recipe(steps=10, batch_size=32)
    own = {"lr": [0.1, 0.02, 0.05], "weight_decay": [0.0, 1e-3, 5e-3]}
    together = train(sparse.label(**own), toy, recipe).final.theta()
    for r in range(3):
        alone = Recipe(steps=10, batch_size=32, lr=own["lr"][r], weight_decay=own["weight_decay"][r])
        torch.testing.assert_close(together[r], train(sparse[[r]], toy, alone).final.theta()[0], rtol=0, atol=1e-12)


@pytest.mark.threads
def test_a_replica_does_not_depend_on_the_others(lenets, toy):
    recipe = Recipe(steps=15, batch_size=16)
    together = train(lenets, toy, recipe).final.theta()
    for rows in ([2, 0], [1]):
        fewer = train(lenets[rows], toy, recipe).final.theta()
        assert torch.equal(together[rows], fewer), rows


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_pruned_weights_are_zero_after_every_step(lenets, toy, optimizer):
    """With momentum gathered before the pruning, and with weight decay."""
    gradual = prune.Gradual(sparsity=0.9, start=3, end=12, every=3)
    recipe = Recipe(steps=16, batch_size=16, optimizer=optimizer, lr=0.01, weight_decay=1e-2)
    steps = range(recipe.steps + 1)
    run = train(lenets, toy, recipe, updates={"dense": gradual}, keep=steps)
    for step in steps:
        now = run.at(step)
        for name, mask in now.masks.items():
            assert torch.all(now.params[name][~mask] == 0), (step, name)
    assert run.at(2).sparsity().max() == 0
    assert torch.all(run.final.sparsity() > 0.89)
    moved = [not torch.equal(run.at(s).theta(), run.at(s + 1).theta()) for s in range(recipe.steps)]
    assert all(moved)


def test_masks_change_only_for_the_method_named(lenets, toy):
    mixed = lenets.label(method=["gmp", "static", "gmp"])
    gradual = prune.Gradual(sparsity=0.5, start=2, end=4, every=1)
    final = train(mixed, toy, Recipe(steps=5, batch_size=16), updates={"gmp": gradual}).final
    assert (final.sparsity() > 0.4).tolist() == [True, False, True]


def test_pruned_weights_are_plus_zero(lenets, toy):
    """A network that is kept as values and mask comes back with +0: what is named by its bits must have it before."""
    negative = prune.apply(lenets, prune.magnitude_masks_per_layer(lenets, 0.5))
    assert any(torch.signbit(negative.params[n][~m]).any() for n, m in negative.masks.items())
    run = train(negative, toy, Recipe(steps=3, batch_size=8), keep=[0])
    for kept in (run.final, run.at(0)):
        for name, mask in kept.masks.items():
            assert not torch.signbit(kept.params[name][~mask]).any()


def test_rewinding_returns_the_saved_weights(lenets, toy):
    gradual = prune.Gradual(sparsity=0.8, start=6, end=10, every=2)
    run = train(lenets, toy, Recipe(steps=12, batch_size=16), updates={"dense": gradual}, keep=[0, 4])
    shorter = train(lenets, toy, Recipe(steps=12, batch_size=16), updates={"dense": gradual}, keep=[4])
    assert torch.equal(run.at(0).theta(), lenets.theta())
    assert torch.equal(run.at(4).theta(), shorter.at(4).theta())
    ticket = prune.rewind(run.final, run.at(4))
    kept = run.final.theta_mask()
    assert torch.equal(ticket.theta()[kept], run.at(4).theta()[kept])
    assert torch.all(ticket.theta()[~kept] == 0)
    assert not torch.equal(ticket.theta(), run.final.theta())


class StopAfter:
    """A watcher that interrupts training at its n-th call."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self, progress: train_module.Progress) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.threads
@pytest.mark.parametrize("calls", [0, 2, 7])
def test_a_resumed_run_ends_with_the_same_bits(lenets, toy, tmp_path, monkeypatch, calls):
    monkeypatch.setattr(engine, "LOG_EVERY", 5)
    how = {
        "recipe": Recipe(steps=24, batch_size=16, weight_decay=1e-3),
        "updates": {"dense": prune.Gradual(sparsity=0.9, start=6, end=16, every=4)},
        "probes": [Probe(10, lambda population, data: {"sparsity": population.sparsity()})],
        "keep": [0, 8],
    }
    whole = train(lenets, toy, **how)
    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(lenets, toy, **how, checkpoint=path, watch=StopAfter(calls))
    resumed = train(lenets, toy, **how, checkpoint=path)
    assert torch.equal(resumed.final.theta(), whole.final.theta())
    for step in how["keep"]:
        assert torch.equal(resumed.at(step).theta(), whole.at(step).theta())
    assert resumed.history.equals(whole.history)


@pytest.mark.threads
def test_an_interrupt_inside_a_step_saves_no_half_step(lenets, toy, tmp_path, monkeypatch):
    """Ctrl-C where a replica is trained by the thread that is interrupted."""
    recipe, path = Recipe(steps=12, batch_size=16), tmp_path / "run.safetensors"
    monkeypatch.setattr(train_module, "workers", lambda *counts: nullcontext(lambda f, items: [*map(f, items)]))
    whole = train(lenets, toy, recipe)
    monkeypatch.setattr(train_module, "CHECKPOINT_EVERY", 0)
    monkeypatch.setattr(engine, "STRETCH", 0)
    calls = [0]

    def interrupted(*args: object, **kwargs: object) -> None:
        calls[0] += 1
        step_(*args, **kwargs)
        if calls[0] == 13:  # some replica's fifth step: its weights have changed, its state is not yet noted
            raise KeyboardInterrupt

    step_ = optim.step_
    monkeypatch.setattr(optim, "step_", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(lenets, toy, recipe, checkpoint=path)
    assert path.exists()
    resumed = train(lenets, toy, recipe, checkpoint=path)
    assert torch.equal(resumed.final.theta(), whole.final.theta())


def test_a_checkpoint_of_another_run_is_refused(lenets, toy, tmp_path):
    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(lenets, toy, Recipe(steps=10, batch_size=16), checkpoint=path, watch=StopAfter(0))
    with pytest.raises(UsageError, match="another run"):
        train(lenets, toy, Recipe(steps=11, batch_size=16), checkpoint=path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(LthError, match=str(path)):
        train(lenets, toy, Recipe(steps=10, batch_size=16), checkpoint=path)


def test_history_and_probes(lenets, toy, monkeypatch):
    monkeypatch.setattr(engine, "LOG_EVERY", 10)
    accuracy = Probe(15, lambda population, data: {"test_accuracy": population.evaluate(data.test)["accuracy"]})
    run = train(lenets, toy, Recipe(steps=40, batch_size=50, lr=0.05), probes=[accuracy])
    one = run.history[run.history.seed == 1]
    assert one.step.tolist() == [0, 10, 15, 20, 30, 40]
    assert one.test_accuracy.notna().tolist() == [True, False, True, False, True, True]
    expected = run.final.evaluate(toy.test).accuracy
    measured = run.history[run.history.step == 40].test_accuracy
    assert measured.tolist() == expected.tolist()
    assert one.loss.iloc[-1] < one.loss.iloc[1]
    later = train(lenets[:1], toy, Recipe(steps=20, batch_size=50), probes=[replace(accuracy, at_start=False)]).history
    assert later.step.tolist() == [10, 15, 20] and later.test_accuracy.notna().tolist() == [False, True, True]


def test_what_cannot_be_trained_is_said_before_work_starts(lenets, toy):
    recipe = Recipe(steps=10)
    with pytest.raises(UsageError, match="column `seed`"):
        train(replace(lenets, frame=lenets.frame.drop(columns="seed")), toy, recipe)
    with pytest.raises(UsageError, match="`loss` of the frame is one that training writes"):
        train(lenets.label(step=3, loss=0.5), toy, recipe)
    with pytest.raises(UsageError, match="`lr` of the frame is empty for some"):
        train(concat([lenets[[0]].label(lr=0.1), lenets[[1]]]), toy, recipe)
    with pytest.raises(UsageError, match="step 11 cannot be kept"):
        train(lenets, toy, recipe, keep=[11])
    with pytest.raises(UsageError, match="no replica has method gmp"):
        train(lenets, toy, recipe, updates={"gmp": prune.Gradual(0.5, 1, 5, 1)})
    other = init.glorot_uniform(Model("lenet5", classes=7), seeds=[0])
    with pytest.raises(UsageError, match="7 classes"):
        train(other, toy, recipe)
    with pytest.raises(UsageError, match="keep="):
        train(lenets, toy, Recipe(steps=1), keep=[0]).at(1)


def test_the_population_given_stays_as_it_was(lenets, toy):
    before = lenets.theta().clone()
    train(lenets, toy, Recipe(steps=3, batch_size=16))
    assert torch.equal(lenets.theta(), before)
    assert isinstance(lenets.module(0), nn.Module)
