"""The derivation of initial weights for masked layers [E, App. A], step by step: what random draws say of each.

Each gives a tidy table; `off_one` and `slopes` put one into a number per seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lth.analysis import signal
from lth.methods import init, prune, sparse_init
from lth.methods.distribution import random_masks, uniform
from lth.methods.sparse_init import Fans, Mode
from lth.models import Model

LAYERS = {"linear, 64 to 64": (64, 64), "convolution, 6 to 16": (16, 6, 5, 5)}
DEPTH = 10  # layers of 64 neurons
FANS: dict[str, Fans] = {"original": "dense", "Liu": "layer", "sparsity-aware": "neuron"}

Rules = Mapping[str, tuple[Mode, Fans]]  # name of a way to draw → what it counts, and where


class Scheme(NamedTuple):
    """How weights are drawn, whether their masks are uneven (`random_masks`), and the channels of the images."""

    mode: Mode
    scale: float
    uneven: bool
    channels: int


def product_and_sum(fan_ins: Sequence[int], draws: int, seed: int) -> pd.DataFrame:
    """What the rules for products and sums of independent numbers say of Var(wa) and Var(z), and what draws give."""
    random, told, rows = np.random.default_rng(seed), 0.3**2 * 2.0**2, []
    for fan_in in fan_ins:
        w = random.normal(0, 0.3, size=(draws, fan_in))
        a = random.normal(0, 2.0, size=(draws, fan_in))
        rows.append([fan_in, told, (w * a)[:, 0].var(), fan_in * told, (w * a).sum(1).var()])
    columns = ["fan-in", "Var(w)·Var(a)", "Var(wa), drawn", "fan-in·Var(w)·Var(a)", "Var(z), drawn"]
    return pd.DataFrame(rows, columns=columns)


def of_neurons(rules: Rules, seeds: Sequence[int], draws: int) -> pd.DataFrame:
    """`layer_variances` of two layers under skewed masks, neuron by neuron: `seed`, `layer`, `rule`, `of` («outputs» or
    «gradients»), `fan` (fan-in or fan-out, above zero) and `variance`."""
    rows = []
    for seed in seeds:
        for layer, shape in LAYERS.items():
            mask = signal.skewed_mask(shape[0], int(np.prod(shape[1:])), seed).view(shape)
            counts = mask.flatten(1).sum(1), mask.transpose(0, 1).flatten(1).sum(1)
            for rule, (mode, fans) in rules.items():
                both = signal.layer_variances(mask, mode, fans, draws=draws, seed=seed)
                for way, fan, found in zip(["outputs", "gradients"], counts, both, strict=True):
                    row = {"seed": seed, "layer": layer, "rule": rule, "of": way}
                    rows.append(pd.DataFrame({**row, "fan": fan, "variance": found}))
    return pd.concat(rows, ignore_index=True).query("fan > 0")


def in_depth(rules: Rules, seeds: Sequence[int], draws: int) -> pd.DataFrame:
    """`depth_variances` of `DEPTH` layers under skewed masks: `seed`, `rule`, `layer` (from 1 on) and `variance`."""
    rows = []
    for seed in seeds:
        masks = [signal.skewed_mask(64, 64, 100 * seed + layer) for layer in range(DEPTH)]
        for rule, (mode, fans) in rules.items():
            found = signal.depth_variances(masks, mode, fans, draws=draws, seed=seed)
            row = {"seed": seed, "rule": rule, "layer": range(1, DEPTH + 1)}
            rows.append(pd.DataFrame({**row, "variance": found}))
    return pd.concat(rows, ignore_index=True)


def through(model: Model, scheme: Scheme, seeds: Sequence[int], levels: Sequence[float], inputs: int) -> pd.DataFrame:
    """`output_std` of networks at some sparsities with weights drawn in three ways: `sparsity`, `init`, `seed`, `std`.

    `init` is a key of `FANS`; images have as many channels as `scheme` says, whatever `model` has.
    """
    wide, rows = Model(model.name, (scheme.channels, *model.shape[1:]), model.classes), []
    for level in levels:
        net = init.glorot_normal(wide, seeds)
        sparse = prune.apply(net, random_masks(net, uniform(wide, level), scheme.uneven))
        for rule, fans in FANS.items():
            std = signal.output_std(sparse_init.normal(sparse, scheme.mode, fans, scheme.scale), inputs)
            rows.append(pd.DataFrame({"sparsity": level, "init": rule, "seed": seeds, "std": std}))
    return pd.concat(rows, ignore_index=True)


def off_one(neurons: pd.DataFrame, of: str, rule: str) -> pd.Series:
    """How far from one the variances of `of_neurons` are, mean over neurons, by seed."""
    rows = neurons[(neurons.of == of) & (neurons.rule == rule)]
    return (rows.variance - 1).abs().groupby(rows.seed).mean()


def slopes(neurons: pd.DataFrame, of: str, rule: str) -> pd.Series:
    """The slope of log variance over log fan, mean over layers, by seed: 1 where a variance is proportional to it."""
    rows = neurons[(neurons.of == of) & (neurons.rule == rule) & (neurons.variance > 0)]
    lines = rows.groupby(["seed", "layer"])[["fan", "variance"]]
    return lines.apply(lambda own: np.polyfit(np.log(own.fan), np.log(own.variance), 1)[0]).groupby("seed").mean()
