"""The weights that pruning leaves: how many they are, and how large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lth.population import Population


def left(population: Population) -> np.ndarray:
    """How many per cent of the prunable weights of each replica its masks leave: (R,)."""
    return 100 * (1 - population.sparsity().cpu().numpy())


def kept(population: Population, replica: int) -> np.ndarray:
    """The weights left of one network, layer after layer."""
    parts = [population.params[name][replica][mask[replica]] for name, mask in population.masks.items()]
    return np.concatenate([part.cpu().numpy() for part in parts])


def sizes(population: Population, replica: int) -> np.ndarray:
    """Magnitudes of the weights left of one network, in multiples of their mean."""
    magnitudes = np.abs(kept(population, replica))
    return magnitudes / magnitudes.mean()


def near_zero(population: Population) -> np.ndarray:
    """Share (%) of the weights left that are smaller than half their median size, network by network: (R,)."""
    own = [np.abs(kept(population, replica)) for replica in range(len(population))]
    return np.array([100 * np.mean(some < np.median(some) / 2) for some in own])


def distribution(outcomes: Mapping[str, Population], first: Population, places: Sequence[float]) -> pd.DataFrame:
    """How large the weights left are after several ways of training [P, Fig. 7].

    outcomes: way → networks, replica by replica those that came out of `first`; frames have `network` and `level`. Rows
    `after`, `network`, `level`, `small` (per cent of the weights that are smaller than all of `first`), `size` (each of
    `places`, in multiples of the mean) and `share` (per cent of the weights that are smaller than that).
    """
    rows = []
    for what, trained in outcomes.items():
        for r, row in trained.frame.iterrows():
            own = np.sort(sizes(trained, r))
            small = 100 * np.mean(own < sizes(first, r).min())
            told = {"after": what, "network": row.network, "level": row.level, "small": small}
            rows.append(pd.DataFrame({**told, "size": places, "share": 100 * np.searchsorted(own, places) / own.size}))
    return pd.concat(rows, ignore_index=True)


def per_pixel(population: Population, shape: tuple[int, int]) -> pd.DataFrame:
    """How many `weights` of the first layer are left on each pixel (`row`, `column`), mean over replicas and colours.

    shape: of the images. In a convolution it is the place in its window, and the mean over the channels that it sees.
    """
    counts = next(iter(population.masks.values())).float().sum(1).mean(0).cpu().numpy()
    grid = counts.reshape(-1, *(shape if counts.ndim == 1 else counts.shape[1:])).mean(0)
    places = [(row, column, number) for (row, column), number in np.ndenumerate(grid)]
    return pd.DataFrame(places, columns=["row", "column", "weights"])
