"""How many of the numbers that a layer is given are nearly zero: what ReLU takes from a network [J, Table A1]."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from lth.data import Split
from lth.parallel import map_replicas
from lth.population import Population

ZERO = 1e-3  # less than this counts as zero: Swish and Mish are never exactly that


def activation_sparsity(population: Population, split: Split, batch: int = 500) -> pd.DataFrame:
    """Share of numbers below `ZERO` in size in the input of each layer but the first, on all images of `split`.

    A row per replica and layer: the columns of the frame, `layer` (the name of its weight) and `zeros` (0 … 1; nan for
    a replica that is not `sound`).
    """
    pieces, sound = split.pieces(batch), population.sound()

    @torch.no_grad()
    def count(replica: int) -> pd.DataFrame:
        module = population.module(replica).eval()
        zeros: dict[str, Tensor] = {}
        sizes: dict[str, int] = {}

        def watch(name: str, layer: nn.Module) -> None:
            def look(layer: nn.Module, given: tuple[Tensor]) -> None:
                zeros[name] = zeros.get(name, 0) + (given[0].abs() < ZERO).sum()
                sizes[name] = sizes.get(name, 0) + given[0].numel()

            layer.register_forward_pre_hook(look)

        for name in list(population.masks)[1:]:
            watch(name, module.get_submodule(name.removesuffix(".weight")))
        for piece in pieces:
            module(split.pixels(piece).to(next(module.parameters()).dtype))
        row = population.frame.iloc[[replica] * len(zeros)].reset_index(drop=True)
        share = [int(z) / sizes[name] if sound[replica] else math.nan for name, z in zeros.items()]
        return row.assign(layer=list(zeros), zeros=share)

    return pd.concat(map_replicas(count, range(len(population))), ignore_index=True)


def by_stage(table: pd.DataFrame, who: Sequence[str]) -> pd.DataFrame:
    """Mean of `zeros` over the convolutions of each of a ResNet's stages, `layer1` and on, those of its own skips left
    out: a row per stage and network, which the columns `who` name. Of other architectures there are none."""
    inside = table[table.layer.str.startswith("layer") & ~table.layer.str.contains("downsample")]
    inside = inside.assign(stage=inside.layer.str.partition(".")[0])
    return inside.groupby([*who, "stage"], sort=False).zeros.mean().reset_index()


def of_stage(stages: pd.DataFrame, way: str, levels: Sequence[int], stage: int) -> pd.Series:
    """Mean of `zeros` over some levels in one stage of `by_stage`, by network; nothing where there are no stages.

    stage: its place, counted from the end where negative.
    """
    names = sorted(stages.stage.unique())
    rows = stages[(stages.way == way) & stages.level.isin(levels)]
    return (rows[rows.stage == names[stage]] if names else rows).groupby("network").zeros.mean()
