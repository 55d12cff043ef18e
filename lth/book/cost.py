"""How much training a chapter is: the images that pass forward and backward through each architecture.

Counted from what the notebooks train, where nothing is in the store yet. Measuring comes on top, and is not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from lth.book.settings.base import Settings
from lth.book.settings.dst_updates import DSTUpdates
from lth.book.settings.gradient_flow import GradientFlow
from lth.book.settings.lcs_geometry import LCSGeometry
from lth.book.settings.lt_basin import LTBasin
from lth.book.settings.rti_repulsion import RTIRepulsion
from lth.book.settings.tweaks import Tweaks


def images(settings: Settings, examples: int) -> Counter[str]:
    """Architecture → images of all trainings of a chapter together; `examples`: training images of its data set."""
    return COUNTS[type(settings)](settings, examples)


def longest(settings: Settings, examples: int) -> tuple[str, int, int]:
    """A chapter's longest chain, of which no training can begin before the one before it has ended: its architecture,
    the chapter's own, how many trainings it has, and their images for one network."""
    model = getattr(settings, "model", "lenet5")
    match settings:
        case RTIRepulsion():  # a ladder, and one under its masks that is repelled from its own solutions
            trainings, each = 2 * settings.rounds + 1, settings.epochs * int(settings.subset * examples)
        case Tweaks() | LCSGeometry():  # a ladder, and what starts from its last level
            trainings, each = settings.rounds + 2, settings.steps * settings.batch_size
        case _:  # a solution, and its ticket
            trainings, each = 2, settings.steps * settings.batch_size
    return model, trainings, trainings * each


def _gradient_flow(s: GradientFlow, _: int) -> Counter[str]:
    # two dense networks and a small one; three rules from three starts; a ticket; three at He's scale; at the higher
    # sparsity a pruned one and two rules from three starts. Of the MLP three; then rules and tickets in two settings
    lenet5, mlp = 3 + 9 + 1 + 3 + 7, 3 + 2 * 10
    each = s.steps * s.batch_size
    found = Counter(lenet5=s.seeds * lenet5 * each, lenet_300_100=s.mlp_seeds * mlp * each)
    return found + (large_networks(s) if s.imagenet else Counter())


def large_networks(s: GradientFlow) -> Counter[str]:
    """Chapter 1's section on ImageNet, whether it is left out or not."""
    from lth.book import large

    # a dense network, a pruned one, a ticket from its step K, a small one; three rules from three starts
    found: Counter[str] = Counter()
    for column in large.columns(s).values():
        trained = 3 + 9 + 1 - column.rewind / column.steps
        found[column.model] += round(s.imagenet_seeds * trained * column.steps * column.batch)
    return found


def _dst_updates(s: DSTUpdates, _: int) -> Counter[str]:
    # pruned and small; SET and RigL from three starts and its inverse from one, at two intervals; Scratch at one
    return Counter(lenet5=s.seeds * (2 + 2 * 7 + 1) * s.steps * s.batch_size)


def _lt_basin(s: LTBasin, _: int) -> Counter[str]:
    # a solution and a control; four kinds of networks on its mask, two of which share their first one
    return Counter({s.model: s.seeds * (2 + 4 * s.tickets - 1) * s.steps * s.batch_size})


def _tweaks(s: Tweaks, examples: int) -> Counter[str]:
    # ways to spend a ticket, and those for dense networks, too; the plain way is the ladder's
    ways, dense = {"conv": (12, 9), "plain": (9, 8), "none": (8, 7)}[s.skips]
    levels = len(s.levels)
    trained = s.seeds * (
        s.rounds + 1 + dense
        + ways * levels
        + 4 * levels * (1 - s.rewind_step / s.steps)  # from rewound weights
        + (2 if s.skips != "none" else 1)  # scales learned otherwise
        + 2 * 7 * len(s.masks_at)
    )  # fmt: skip
    trained += 3 * 4 * min(4, s.seeds) - min(4, s.seeds)  # other initial weights and images
    sparse = sum((1 - s.ratio) ** level <= 0.1 for level in s.levels) or 1
    each = s.steps * s.batch_size
    found = Counter({s.model: trained * each})
    for other in set(s.others) - {s.model}:
        found[other] += s.seeds * (s.rounds + 1 + sparse) * each  # plain tickets are the ladder's
    return found


def _rti_repulsion(s: RTIRepulsion, examples: int) -> Counter[str]:
    arms, optimisers = len(s.arms), len({arm.split(":")[0] for arm in s.arms})
    copied = len({max(1, s.rounds * fifths // 5) for fifths in (1, 2, 3)})
    # IMP and reinit in each arm; repelled; attracted; weights and masks crossed; two more controls
    ladders = 2 * arms + 3 * optimisers + 2 + 4 + 2
    decays = len({0.0, s.decay_tested} - {s.weight_decay})
    shared = optimisers + 5  # first rounds that are those of another ladder, too
    trained = ladders * s.rounds - shared + arms + decays * (s.rounds + 1) + arms * (1 + copied) + 3
    found = Counter({s.model: s.seeds * trained * s.epochs * int(s.subset * examples)})
    return found + (one_shot(s) if s.imagenet else Counter())


def one_shot(s: RTIRepulsion) -> Counter[str]:
    """Chapter 5's section on ImageNet: a dense network and a ticket at two learning rates."""
    from lth.book import large

    return Counter({s.imagenet_model: round(s.imagenet_seeds * 4 * large.ONE_SHOT * s.imagenet_length)})


def _lcs_geometry(s: LCSGeometry, _: int) -> Counter[str]:
    return Counter({s.model: sum(s.trainings().values()) * s.steps * s.batch_size})


COUNTS: dict[type[Settings], Callable[..., Counter[str]]] = {
    GradientFlow: _gradient_flow,
    DSTUpdates: _dst_updates,
    LTBasin: _lt_basin,
    Tweaks: _tweaks,
    RTIRepulsion: _rti_repulsion,
    LCSGeometry: _lcs_geometry,
}
