"""Spectra of the Hessian as curves, on an axis that is stretched around zero.

Eigenvalues lie between thousandths and hundreds, on both sides of zero. At the place of λ the axis is asinh(λ/0.1):
even near zero, logarithmic far from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes

from lth.analysis import hessian
from lth.analysis.hessian import Spectrum
from lth.book import figures
from lth.book.film import Curve
from lth.data import Split
from lth.errors import LthError
from lth.population import Population, Tensors, concat
from lth.store.measures import Measures

STRETCH = 0.1
BUMP = 0.2  # standard deviation, on the axis, of the Gaussian that an eigenvalue is drawn as


def eigenvalues(population: Population, split: Split) -> Tensors:
    """All eigenvalues of Hessians of as many active parameters, `values` (R, n) float64, and equal `weights`."""
    return _stacked(hessian.spectrum(population, split))


def ritz(population: Population, split: Split, steps: int) -> Tensors:
    """What stands for them after so many steps of Lanczos: `values` and `weights`, (R, steps) float64."""
    return _stacked(hessian.lanczos(population, split, steps))


def _stacked(spectrum: Spectrum) -> Tensors:
    return {"values": torch.stack(spectrum.values), "weights": torch.stack(spectrum.weights)}


def measured(
    measure: Measures, populations: Sequence[Population], split: Split, lanczos: int | None = None
) -> Spectrum:
    """Spectra of all replicas of the populations, one population after another; those that are known are read.

    lanczos: steps of Lanczos that estimate them; without it they are exact. Of a network that failed in training, whose
    parameters are not numbers, the spectrum is one nan.
    """
    frame = pd.concat([population.frame for population in populations], ignore_index=True)
    nothing = torch.full((1,), torch.nan, dtype=torch.float64)
    found = Spectrum(frame, [nothing] * len(frame), [nothing] * len(frame))
    how = (eigenvalues,) if lanczos is None else (ritz, lanczos)
    # of the sound networks, those with as many active parameters: each population's, and where they stand in the frame
    places, begin = {}, 0
    for population in populations:
        rows = population.theta().isfinite().all(1).nonzero().flatten().tolist()
        if rows:
            alike = population.model, int(population.theta_mask().sum(1).max())
            places.setdefault(alike, []).append((population[rows], [begin + r for r in rows]))
        begin += len(population)
    for some in places.values():  # measured together, whichever population they come from: each core has one to do
        part = measure(how[0], concat([network for network, _ in some]), split, *how[1:])
        for name, all_of in (("values", found.values), ("weights", found.weights)):
            for place, tensor in zip([r for _, rows in some for r in rows], part[name], strict=True):
                all_of[place] = tensor
    return found


def estimated(
    measure: Measures, population: Population, split: Split, steps: Sequence[int], probes: int
) -> list[Spectrum]:
    """`hessian.lanczos_at`; of networks whose spectra are known they are read."""
    found = measure(ritz_at, population, split, list(steps), probes)
    kinds = [[list(found[f"{kind} after {m}"]) for kind in ("values", "weights")] for m in steps]
    return [Spectrum(population.frame, values, weights) for values, weights in kinds]


def ritz_at(population: Population, split: Split, steps: Sequence[int], probes: int) -> Tensors:
    """What `hessian.lanczos_at` finds after each number of steps: values and weights, (R, steps · probes) each."""
    found = zip(steps, hessian.lanczos_at(population, split, steps, probes), strict=True)
    return {f"{kind} after {m}": tensor for m, spectrum in found for kind, tensor in _stacked(spectrum).items()}


def curves(spectrum: Spectrum, by: Sequence[str]) -> pd.DataFrame:
    """Rows `by`, `eigenvalue`, `density`: the share of eigenvalues per unit of the axis.

    The mean over replicas that agree in the columns `by`; such groups come in the order in which they first appear.
    From a little below the smallest eigenvalue of all to a little above the largest. Replicas that failed in training
    are left out; LthError if there are no others.
    """
    values = [torch.asinh(values / STRETCH) for values in spectrum.values]
    known = [v for v in values if v.isfinite().all()]
    if not known:
        raise LthError("no network has a spectrum: all of them failed in training. A lower lr may help")
    low, high = min(v.min().item() for v in known), max(v.max().item() for v in known)
    axis = np.arange(low - 3 * BUMP, high + 3 * BUMP, BUMP / 3)
    table = Spectrum(spectrum.frame[list(by)], values, spectrum.weights).density(axis, BUMP)
    mean = table.groupby([*by, "eigenvalue"], sort=False).density.mean().reset_index()
    return mean.assign(eigenvalue=STRETCH * np.sinh(mean.eigenvalue))


def prepare(ax: Axes, table: pd.DataFrame) -> None:
    """Scales, labels and ticks of axes for the curves of `table`."""
    low, high = table.eigenvalue.min(), table.eigenvalue.max()
    ax.set_xscale("asinh", linear_width=STRETCH)
    ax.set(xlim=(low, high), yscale="log", ylim=(1e-5, 5))
    ax.set_xticks([tick for tick in (-10, -1, -0.1, 0, 0.1, 1, 10, 100) if low <= tick <= high])
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.axvspan(low, 0, color="black", alpha=0.04, linewidth=0)
    ax.annotate("loss bends down", (low, 5), (4, -3), textcoords="offset points", va="top", fontsize="x-small")
    ax.set(xlabel="eigenvalue (axis stretched around 0)", ylabel="share per unit of the axis")


def around(ax: Axes, table: pd.DataFrame, update: str) -> None:
    """The curves right before an update and right after it. table: with `after`, which is «nothing» or the `update`."""
    for after, style, label in (("nothing", "-", "right before"), (update, "--", "right after")):
        curve = table[table.after == after]
        ax.plot(curve.eigenvalue, curve.density, style, label=label)
    prepare(ax, table)
    ax.set(title=update)
    ax.legend()


def factors(ax: Axes, table: pd.DataFrame) -> None:
    """By which `factor` each update multiplies a number (`analysis.updates.factors`): a dot per network, and the
    geometric mean with its interval, side by side for the methods."""
    table = table.assign(update=table.step + 1).sort_values("method", ascending=False)
    look = {"x": "update", "y": "factor", "hue": "method", "palette": figures.colours(table.method), "ax": ax}
    mean = {"marker": "_", "markersize": 18, "linestyle": "none", "err_kws": {"linewidth": 1.5}}
    ax.set_yscale("log")
    sns.pointplot(table, dodge=0.4, errorbar=figures.t_interval, **mean, **look)
    sns.stripplot(table, dodge=True, size=5, legend=False, **look)
    figures.factors(ax)
    ax.legend(title="")


def ends_in_words(found: Mapping[str, Spectrum]) -> pd.DataFrame:
    """Smallest and largest eigenvalue of each network, told apart by the column `after`, as found in several ways."""
    told = {
        f"{end}, {name}": spectrum.ends().set_index("after")[end].map("{:.3g}".format)
        for end in ("smallest", "largest")
        for name, spectrum in found.items()
    }
    return pd.DataFrame(told).reset_index()


def frames(table: pd.DataFrame, methods: Sequence[str]) -> dict[str, list[Curve]]:
    """Frames of a film from `curves` by `step`, `when` and `method`: words → a curve for each of the methods.

    A method that has no curve at some moment keeps the one that it had.
    """
    latest, found = {}, {}
    for (step, when), moment in table.groupby(["step", "when"], sort=False):
        latest |= {m: (own.eigenvalue.to_numpy(), own.density.to_numpy()) for m, own in moment.groupby("method")}
        found[f"step {step}" + (", after one more update" if when == "after" else "")] = [latest[m] for m in methods]
    return found
