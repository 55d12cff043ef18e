"""Whether a step is compiled: that takes tens of seconds, as long as short runs of small networks train.

Compiled code serves every population of the same kind: number of steps, momentum and number of images are no part of
it, the number of replicas from the second one on. While the time that a kind would save is not known, it goes by the
oldest rule for such choices: rent until what was paid in rent is the price, then buy. Whatever comes, that costs at
most twice what it would have cost to know. A kind is bought once the training that went without it would have taken
as long as compiling takes, and both are measured in this process.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

Things = TypeVar("Things")

SECONDS = 1.5  # for each parameter of a network: what compiling took on one core, until this process has measured it


@dataclass
class Compilations:
    """What this process has compiled, and what that took."""

    replicas: dict[Hashable, set[int]] = field(default_factory=lambda: defaultdict(set))  # kind → numbers compiled for
    rent: dict[Hashable, float] = field(default_factory=lambda: defaultdict(float))  # kind → seconds trained without
    seconds: float = 0.0
    parameters: int = 0
    at_once: bool = False  # compile whatever it costs, to look at what is compiled

    @property
    def count(self) -> int:
        """How many times a step was compiled."""
        return sum(map(len, self.replicas.values()))

    def serves(self, kind: Hashable, replicas: int) -> bool:
        """Whether there is code for so many replicas: that for two numbers of them serves any."""
        return replicas in self.replicas[kind] or len(self.replicas[kind]) > 1

    def pays(self, kind: Hashable, parameters: int, seconds: float) -> bool:
        """Whether to compile for a run that takes so many seconds without; otherwise it is noted as gone without."""
        self.rent[kind] += seconds
        each = self.seconds / self.parameters if self.parameters else SECONDS
        return self.at_once or self.rent[kind] >= parameters * each

    def note(self, kind: Hashable, replicas: int, parameters: int, seconds: float) -> None:
        """To be called when a step has been compiled."""
        self.replicas[kind].add(replicas)
        self.rent[kind] = 0.0
        self.parameters += parameters
        self.seconds += seconds


compilations = Compilations()


def leave_open(things: Things, axis: int = 0) -> Things:
    """`things`, where the size of this axis of every tensor among them is not to be built into compiled code."""
    for tensor in tree_leaves(things):
        if isinstance(tensor, Tensor):
            torch._dynamo.maybe_mark_dynamic(tensor, axis)
    return things
