"""Ladders of pruning rounds against torch's own pruning, and what makes a ticket a ticket: masks and rewinding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import double

from lth.data import Data
from lth.errors import UsageError
from lth.methods import imp, init, prune, repulsion
from lth.models import Model
from lth.population import Population
from lth.store.runs import Store
from lth.training.plan import Run
from lth.training.recipe import Recipe
from lth.training.train import train

RECIPE = Recipe(steps=12, batch_size=20, lr=0.1)


@pytest.fixture
def mlps() -> Population:
    return init.kaiming_normal(Model("lenet_300_100"), seeds=[0, 1], method="ticket")


@pytest.fixture
def climb(toy: Data):
    return lambda population, recipe, **kind: train(population, toy, recipe, **kind)


def test_the_threshold_is_the_largest_that_goes(mlps):
    masks = prune.magnitude_masks(mlps, 0.3)
    for r, found in enumerate(imp.threshold(mlps, masks).tolist()):
        all_ = torch.cat([mlps.params[n][r].abs().flatten() for n in masks])
        kept = torch.cat([masks[n][r].flatten() for n in masks])
        assert found == all_[~kept].max().item() <= all_[kept].min().item()
    assert imp.threshold(mlps, mlps.masks).isnan().all()


# --- ladders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rewind_step", [0, 5])
def test_masks_are_nested_and_weights_those_of_the_rewind_point(mlps, climb, rewind_step):
    starts: list[Population] = []

    def watched(population: Population, recipe: Recipe, **kind: object) -> Run:
        starts.append(population)
        assert recipe.first_step == (rewind_step if len(starts) > 1 else 0)
        return climb(population, recipe, **kind)

    runs = imp.ladder(mlps, 3, watched, RECIPE, rewind_step=rewind_step)
    assert [run.final.frame.level.unique().tolist() for run in runs] == [[0], [1], [2], [3]]
    point, left = runs[0].at(rewind_step), 266_200
    if rewind_step == 0:
        assert torch.equal(point.theta(), mlps.theta())
    for before, start, run in zip(runs, starts[1:], runs[1:], strict=False):
        left -= round(0.2 * left)
        mask = start.theta_mask()
        assert torch.equal(start.theta(), point.theta() * mask)  # bit by bit
        assert not (mask & ~before.final.theta_mask()).any()
        assert torch.equal(mask, run.final.theta_mask())
        assert torch.all(run.final.theta()[~mask] == 0)
        assert sum(m.flatten(1).sum(1) for m in start.masks.values()).tolist() == [left, left]
        assert torch.equal(start.masks["fc1.weight"].flatten(1).sum(1) > 0, torch.tensor([True, True]))
    assert all(f"{layer}.bias" not in mlps.masks for layer in ("fc1", "fc2", "fc3"))


def test_a_rewound_network_goes_on_where_the_dense_one_was(mlps, toy):
    """Without pruning, training from step 5 on is the second half of the run, but for the momentum, here none."""
    recipe = RECIPE.model_copy(update={"momentum": 0.0})
    whole = train(mlps, toy, recipe, keep=[5])
    half = train(whole.at(5), toy, recipe.model_copy(update={"first_step": 5}), keep=[5])
    assert torch.equal(half.final.theta(), whole.final.theta())
    assert torch.equal(half.at(5).theta(), whole.at(5).theta())
    assert half.history.step.min() > 5 and not half.failed


def test_adam_starts_anew_at_the_rewind_step(mlps, toy):
    """The first update of Adam from zero moments is lr·sign(gradient), however far the schedule is."""
    recipe = Recipe(steps=6, first_step=5, batch_size=20, lr=1e-3, optimizer="adam", schedule="constant")
    moved = (train(double(mlps), toy, recipe).final.theta() - double(mlps).theta()).abs()
    assert torch.quantile(moved[0, -1000:], 0.9).item() == pytest.approx(1e-3, rel=1e-3)


def test_the_other_ways_to_go_on(mlps, climb):
    starts: list[tuple[Population, Recipe]] = []

    def watched(population: Population, recipe: Recipe, **kind: object) -> Run:
        starts.append((population, recipe))
        return climb(population, recipe, **kind)

    runs = imp.ladder(mlps, 2, watched, RECIPE, restart="learning rate", rewind_step=4)
    for run, (start, recipe) in zip(runs, starts[1:], strict=False):
        assert torch.equal(start.theta(), run.final.theta() * start.theta_mask())
        assert recipe.first_step == 4
    tune = Recipe(steps=3, batch_size=20, lr=1e-4, schedule="constant")
    starts.clear()
    runs = imp.ladder(mlps, 1, watched, RECIPE, ratio=0.9, restart="fine-tune", tune=tune)  # one-shot
    assert starts[1][1] == tune
    assert starts[1][0].sparsity().tolist() == pytest.approx([0.9, 0.9], abs=1e-5)


def test_a_ladder_is_resumed_at_its_last_level_and_shared(mlps, toy, tmp_path):
    store, trained = Store(tmp_path), []

    def climb(population: Population, recipe: Recipe, **kind: object) -> Run:
        before = set((tmp_path / "runs").glob("*"))
        run = store.train(population, toy, recipe, watch=lambda progress: None, **kind)
        trained.append(len(set((tmp_path / "runs").glob("*")) - before))
        return run

    imp.ladder(mlps, 1, climb, RECIPE)
    again = imp.ladder(mlps, 3, climb, RECIPE)
    assert trained == [2, 2, 0, 0, 2, 2]
    whole = imp.ladder(mlps, 3, lambda population, recipe, **kind: train(population, toy, recipe, **kind), RECIPE)
    for ours, other in zip(again, whole, strict=True):
        assert torch.equal(ours.final.theta(), other.final.theta())
    earlier = {path: path.read_bytes() for path in Path(tmp_path).rglob("*.safetensors")}
    imp.ladder(mlps, 1, climb, RECIPE.model_copy(update={"lr": 0.2}))  # another recipe is another ladder
    assert trained[-2:] == [2, 2] and all(path.read_bytes() == old for path, old in earlier.items())
    for step in (0, 5):  # two rewind steps, one dense network
        imp.ladder(mlps, 1, climb, RECIPE, rewind_step=step, keep=[0, 5])
    assert trained[-4:] == [2, 0, 0, 2]  # the first level 1 is there already


def test_a_penalty_sees_the_rounds_before(mlps, climb):
    seen: list[int] = []

    def penalty(start: Population, earlier: list[Population]) -> repulsion.Repulsion:
        seen.append(len(earlier))
        return repulsion.of(start, earlier, 2.0)

    plain = imp.ladder(mlps, 2, climb, RECIPE)
    repelled = imp.ladder(mlps, 2, climb, RECIPE, penalty=penalty)
    assert seen == [1, 2]
    assert torch.equal(plain[0].final.theta(), repelled[0].final.theta())
    assert not torch.equal(plain[1].final.theta(), repelled[1].final.theta())


def redrawn(level: int) -> Population:
    return init.kaiming_normal(Model("lenet_300_100"), seeds=[100 * level, 100 * level + 1])


def test_a_ladder_of_new_weights_goes_back_to_nothing(mlps, climb):
    starts: list[Population] = []

    def watched(population: Population, recipe: Recipe, **kind: object) -> Run:
        starts.append(population)
        return climb(population, recipe, **kind)

    runs = imp.ladder(mlps, 2, watched, RECIPE, fresh=redrawn)
    for level in (1, 2):
        kept = starts[level].theta_mask()
        assert torch.equal(starts[level].theta()[kept], redrawn(level).theta()[kept])
        assert starts[level].seeds == redrawn(level).seeds
        pruned = prune.magnitude_masks(runs[level - 1].final, 0.2)
        assert all(torch.equal(starts[level].masks[name], mask) for name, mask in pruned.items())


def test_other_weights_under_a_ladders_masks(mlps, climb):
    """Its own weights and orders give the ladder again; a penalty sees the solutions found under the masks."""
    levels = [run.final for run in imp.ladder(mlps, 2, climb, RECIPE)]
    again = imp.under_masks_of(levels, lambda level: mlps.label(seed=imp.order_seeds(mlps, level)), climb, RECIPE)
    assert all(torch.equal(one.theta(), other.theta()) for one, other in zip(levels, again, strict=True))
    new = imp.under_masks_of(levels, redrawn, climb, RECIPE)
    assert all(torch.equal(one.theta_mask(), other.theta_mask()) for one, other in zip(levels, new, strict=True))
    assert not torch.equal(new[1].theta(), levels[1].theta())
    seen: list[list[Population]] = []

    def penalty(start: Population, earlier: list[Population]) -> repulsion.Repulsion:
        seen.append(list(earlier))
        return repulsion.of(start, earlier, 2.0)

    pushed = imp.under_masks_of(levels, redrawn, climb, RECIPE, penalty)
    assert seen[0][0] is levels[0] and seen[1][1] is pushed[1] and [len(known) for known in seen] == [1, 2]
    assert not torch.equal(pushed[1].theta(), new[1].theta())


@pytest.mark.parametrize(
    "how, message",
    [
        ({"ratio": 0.0}, "between 0 and 1, not 0.0"),
        ({"ratio": 1.0}, "between 0 and 1, not 1.0"),
        (
            {"ratio": 1e-9},
            "of 266,200 weights 266,200 are left before level 1, of which a round at ratio 1e-09 prunes none",
        ),
        ({"rounds": 0}, "at least one round"),
        ({"rounds": 60, "ratio": 0.5}, "60 rounds are too many: of 266,200 weights 1 are left"),
        ({"rounds": 60, "ratio": 0.5, "per_layer": True}, "of 1,000 weights 1 are left before level 10"),
        ({"rewind_step": 12}, r"rewind_step \(12\) lies beyond the run, which has 12 steps"),
        ({"rewind_step": -1}, "rewind_step"),
        ({"restart": "start"}, "'learning rate'"),
        ({"restart": "fine-tune"}, "`tune` is the recipe"),
        ({"tune": RECIPE}, "`tune` is the recipe"),
    ],
)
def test_what_cannot_be_climbed_is_refused_before_training(mlps, how, message):
    def never(*args: object, **kind: object) -> Run:
        raise AssertionError("trained")

    with pytest.raises(UsageError, match=message):
        imp.ladder(mlps, **({"rounds": 2, "train": never, "recipe": RECIPE} | how))


def test_a_recipe_that_begins_after_its_end_is_refused():
    with pytest.raises(UsageError, match=r"first_step \(12\) must lie before the end"):
        Recipe(steps=12, first_step=12)


def test_masks_of_any_size_lie_between_the_rounds(mlps, climb):
    """As the next round would have pruned, had it pruned less; and at a round's own size the round's own mask."""
    runs = imp.ladder(mlps, 2, climb, RECIPE, ratio=0.5)
    counts = [run.final.weights_left().tolist() for run in runs]
    own = imp.masks_of(runs, counts[1])
    assert all(torch.equal(own[n], m) for n, m in runs[1].final.masks.items())
    wanted = [counts[1][0] - 17, counts[2][1] // 3]  # within the ladder, and below its end
    found = prune.apply(mlps, imp.masks_of(runs, wanted))
    assert found.weights_left().tolist() == wanted
    for r, level in enumerate([1, 2]):
        solution = runs[level].final[[r]]
        sizes = torch.cat([solution.params[n].abs().flatten() for n in solution.masks])
        kept = torch.cat([found.masks[n][r].flatten() for n in solution.masks])
        assert sizes[kept].min() >= sizes[~kept].max()
    more = imp.masks_of(runs, [10**9, 10**9])
    assert all(mask.all() for mask in more.values())


def test_tickets_of_a_ladder(mlps, climb):
    runs = imp.ladder(mlps, 2, climb, RECIPE, ratio=0.5, keep=[0, 3])
    found = imp.tickets(runs, [1, 2], step=3)
    assert found.frame.level.tolist() == [1, 1, 2, 2] and found.seeds == [10_000, 10_001, 20_000, 20_001]
    for level in (1, 2):
        some = found[found.frame.level == level]
        for name, mask in runs[level].final.masks.items():
            assert torch.equal(some.masks[name], mask)
            assert torch.equal(some.params[name], runs[0].at(3).params[name] * mask)


def test_tickets_of_a_given_weight(mlps, climb):
    runs = imp.ladder(mlps, 1, climb, RECIPE, ratio=0.5)
    want = [count - 7 for count in runs[0].final.weights_left().tolist()]
    ticket = imp.as_heavy(runs, 1, want)
    assert ticket.weights_left().tolist() == want and ticket.seeds == [10_000, 10_001]
    assert imp.as_heavy(runs, 1, [count + 8 for count in want]) is None
