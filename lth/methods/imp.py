"""Iterative magnitude pruning: train, prune a share of the weights that are left, go back, train again.

Every round is a training run of the whole population like any other. Where the `train` that is handed in looks into a
store first (`lth.store.runs.Store.train`, `lth.book.chapter.Chapter.train`), a ladder of rounds goes on at the last
round it has, and all who climb the same ladder share it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from lth.errors import UsageError
from lth.methods import prune
from lth.population import Population, Tensors, concat
from lth.training.losses import Penalty
from lth.training.plan import Run
from lth.training.recipe import Recipe


class Train(Protocol):
    """What trains a population: `lth.training.train.train` on some data, or a store that does it once and for all."""

    def __call__(
        self, population: Population, recipe: Recipe, *, keep: Sequence[int] = (), penalty: Penalty | None = None
    ) -> Run: ...


Forbid = Callable[[Population, list[Population]], Penalty]
# what does a function's work for parts of so many replicas beforehand (`lth.book.chapter.Chapter.ahead`)
Ahead = Callable[[Callable[[list[int]], object], int], None]


def threshold(population: Population, masks: Tensors) -> Tensor:
    """The largest magnitude among the weights that `masks` take away from the population: (R,); nan if none."""
    gone = {n: old & ~masks[n] for n, old in population.masks.items()}
    sizes = [population.params[n].abs().masked_fill(~some, -1).flatten(1).amax(1) for n, some in gone.items()]
    largest = torch.stack(sizes).amax(0)
    return torch.where(largest < 0, math.nan, largest)


def ladder(
    dense: Population,
    rounds: int,
    train: Train,
    recipe: Recipe,
    *,
    ratio: float | Callable[[Population], Sequence[float]] = 0.2,
    per_layer: bool = False,
    restart: Literal["weights", "learning rate", "fine-tune"] = "weights",
    rewind_step: int = 0,
    tune: Recipe | None = None,
    keep: Sequence[int] = (),
    fresh: Callable[[int], Population] | None = None,
    penalty: Forbid | None = None,
    ahead: Ahead | None = None,
) -> list[Run]:
    """Trains `dense`, then `rounds` times prunes and trains again: the runs of the levels 0 … rounds.

    ratio:       the share of the weights left that each round prunes, see `prune.magnitude_masks`, or a rule that names
                 it for each of the networks to be pruned, such as `lth.analysis.lcs.Adaptive`; with 0 for all of them
                 the ladder ends. One round with a large ratio is one-shot pruning.
    restart:     "weights": each round starts from the dense network's weights at step `rewind_step` (0: its
                 initialisation) and trains from there on. "learning rate": from the pruned weights as they are, with
                 the schedule from that step on [Renda et al. 2020]. "fine-tune": from the pruned weights, by the
                 recipe `tune`.
    keep:        steps at which the dense networks are kept as well; ladders to several rewind steps share them if they
                 have the same `keep`.
    fresh:       level → networks whose weights, and seeds of the data order, that round starts from: a ladder that
                 goes back to nothing it has seen before.
    penalty:     of the networks a round starts from, and the solutions so far → a term of the loss in that round, such
                 as `lambda start, earlier: repulsion.of(start, earlier, 2.0)`. Level 0 has none.
    ahead:       where `train` looks into a store that many machines fill: has parts of the networks climb on their own,
                 none waiting for the others, before all climb together and find it done. Not where `ratio` is a rule,
                 which sees all of them.

    The column `level` of the frame tells the rounds apart. Each round sees the images in an order of its own, that of
    the network's seed + 10,000 · level: a ladder that found its old solutions again only because it met the same images
    in the same order would prove nothing.
    Raises UsageError before any training where the arguments do not fit together.
    """
    _check(dense, rounds, recipe, ratio, per_layer, restart, rewind_step, tune)
    if ahead and not callable(ratio):

        def climb(rows: list[int]) -> None:
            how = {"ratio": ratio, "per_layer": per_layer, "restart": restart, "rewind_step": rewind_step, "tune": tune}
            drawn = fresh and (lambda level: fresh(level)[rows])
            ladder(dense[rows], rounds, train, recipe, **how, keep=keep, fresh=drawn, penalty=penalty)

        ahead(climb, len(dense))
    kept = {rewind_step, *keep} if restart == "weights" else keep
    runs = [train(dense.label(level=0), recipe, keep=sorted(kept))]
    again = tune or (recipe.model_copy(update={"first_step": rewind_step}) if rewind_step else recipe)
    for level in range(1, rounds + 1):
        solution = runs[-1].final
        share = ratio(solution) if callable(ratio) else ratio
        if callable(ratio) and not any(share):
            break
        pruned = prune.apply(solution, prune.magnitude_masks(solution, share, per_layer))
        if fresh:
            start = prune.rewind(pruned, fresh(level)).label(level=level)
        else:
            start = prune.rewind(pruned, runs[0].at(rewind_step)) if restart == "weights" else pruned
            start = start.label(level=level, seed=order_seeds(dense, level))
        term = {"penalty": penalty(start, [run.final for run in runs])} if penalty else {}
        runs.append(train(start, again, **term))
    return runs


def order_seeds(dense: Population, level: int) -> list[int]:
    """What names the order in which the networks of a level see the images."""
    return [seed + 10_000 * level for seed in dense.seeds]


def under_masks_of(
    levels: Sequence[Population],
    weights: Callable[[int], Population],
    train: Train,
    recipe: Recipe,
    penalty: Forbid | None = None,
    ahead: Ahead | None = None,
) -> list[Population]:
    """A ladder's masks with other weights: the trained networks of all levels, its own at level 0.

    levels:  the ladder's networks, dense ones first.
    weights: level → the networks that the masks are laid on, with the seeds of their data order. With newly drawn ones
             this is the control that lottery tickets are compared with [Frankle and Carbin 2019].
    penalty: as in `ladder`; a level then knows the solutions that were found *here* before. Without one nothing ties
             the levels together, and they are trained as one population.
    ahead:   as in `ladder`.
    """
    if ahead and penalty:

        def climb(rows: list[int]) -> None:
            own = [some[rows] for some in levels]
            under_masks_of(own, lambda level: weights(level)[rows], train, recipe, penalty)

        ahead(climb, len(levels[0]))
    starts = [prune.rewind(found, weights(level)).label(level=level) for level, found in enumerate(levels[1:], start=1)]
    if penalty is None:
        trained = train(concat(starts), recipe).final
        return [levels[0], *(trained[trained.frame.level == level] for level in range(1, len(levels)))]
    found = [levels[0]]
    for start in starts:
        found.append(train(start, recipe, penalty=penalty(start, found)).final)
    return found


def masks_of(runs: Sequence[Run], left: Sequence[int]) -> Tensors:
    """Masks with exactly so many weights left of each network, by pruning a ladder's solutions by magnitude.

    A network's mask comes from the last round that has as many or more, as if the next one had pruned less; below the
    ladder's end from its last. name → (R, *shape).
    """
    counts = [run.final.weights_left().tolist() for run in runs]
    found = []
    for r, want in enumerate(left):
        level = max((k for k, count in enumerate(counts) if count[r] >= want), default=0)
        one = runs[level].final[[r]]
        found.append(prune.down_to(one, {n: one.params[n].abs() for n in one.masks}, [want]))
    return {n: torch.cat([masks[n] for masks in found]) for n in found[0]}


def under(masks: Tensors, weights: Population, level: int) -> Population:
    """These weights under these masks, as networks of a level, which see the images in an order of its own."""
    return prune.apply(weights, masks).label(level=level, seed=order_seeds(weights, level))


def tickets(runs: Sequence[Run], levels: Sequence[int], step: int = 0) -> Population:
    """Masks of some levels of a ladder with the dense networks' weights at a step, which it must have kept."""
    return concat([under(runs[level].final.masks, runs[0].at(step), level) for level in levels])


def as_heavy(runs: Sequence[Run], level: int, left: Sequence[int]) -> Population | None:
    """Tickets for a level's place with exactly so many weights left of each network, see `masks_of`; None where the
    ladder begins with fewer."""
    ticket = under(masks_of(runs, left), runs[0].at(0), level)
    return ticket if ticket.weights_left().tolist() == list(left) else None


def _check(
    dense: Population,
    rounds: int,
    recipe: Recipe,
    ratio: float | Callable[[Population], Sequence[float]],
    per_layer: bool,
    restart: str,
    rewind_step: int,
    tune: Recipe | None,
) -> None:
    if not callable(ratio) and not 0 < ratio < 1:
        raise UsageError(f"ratio is the share of weights that a round prunes, between 0 and 1, not {ratio}")
    if rounds < 1:
        raise UsageError(f"a ladder has at least one round, not {rounds}")
    if restart not in ("weights", "learning rate", "fine-tune"):
        raise UsageError(f"restart is 'weights', 'learning rate' or 'fine-tune', not {restart!r}")
    if not 0 <= rewind_step < recipe.steps:
        raise UsageError(f"rewind_step ({rewind_step}) lies beyond the run, which has {recipe.steps} steps")
    if (tune is not None) != (restart == "fine-tune"):
        raise UsageError("`tune` is the recipe of restart='fine-tune', which needs one")
    if callable(ratio):  # what it will say is not known before
        return
    sizes = [m.flatten(1).sum(1) for m in dense.masks.values()]
    fewest = int(torch.stack(sizes).amin() if per_layer else sum(sizes).amin())
    left = fewest
    for level in range(1, rounds + 1):
        gone = round(ratio * left)
        if not 0 < gone < left:
            raise UsageError(
                f"{rounds} rounds are too many: of {fewest:,} weights {left:,} are left before level {level}, of "
                f"which a round at ratio {ratio} prunes {gone or 'none'}"
            )
        left -= gone
