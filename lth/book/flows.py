"""Panels of the chapters on gradient flow: how far a signal gets, how wrong networks are, how the gradient flows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from lth.analysis import gradient_flow, learning
from lth.book import comparison, figures
from lth.data import Split
from lth.population import Population

SILENT = 1e-5  # at which a network is drawn whose outputs do not vary
ERRORS = [1, 2, 5, 10, 20, 50, 90]
NUMBERS = {
    "onset": "learning begins (step)",
    "flow_start": "log₁₀ flow at the start",
    "flow_early": "in the first quarter",
    "after_early": "the same, after updates",
    "flow_mean": "in the whole run",
}


def neurons(ax: Axes, table: pd.DataFrame, of: str, rules: Mapping[str, Any]) -> None:
    """Variance of each neuron's output, or gradient, over the number of its connections that way.

    table: of `derivation.of_neurons`. of: «outputs» or «gradients». rules: in the order of the legend → colour.
    """
    shown = table[(table.of == of) & table.rule.isin(list(rules))]
    looks = {"hue": "rule", "hue_order": list(rules), "palette": rules, "style": "layer", "s": 28, "alpha": 0.75}
    sns.scatterplot(shown, x="fan", y="variance", linewidth=0, ax=ax, **looks)
    ax.axhline(1, color="black", linewidth=1, zorder=0)
    label = {"outputs": "number of inputs (fan-in)", "gradients": "number of outputs (fan-out)"}[of]
    title = f"variance of the {of.removesuffix('s')}"
    ax.set(xscale="log", yscale="log", xlabel=label, ylabel="variance", title=title)
    ax.legend(fontsize="x-small", title="")


def outputs(ax: Axes, table: pd.DataFrame, colours: Mapping[str, Any]) -> None:
    """How much the outputs of networks vary, over their sparsity: a dot for each, a line through the medians."""
    shown = table.assign(std=table["std"].clip(lower=SILENT))
    sns.stripplot(shown, x="sparsity", y="std", hue="init", palette=colours, dodge=True,
                  size=2, alpha=0.5, legend=False, ax=ax)  # fmt: skip
    middle = shown.groupby(["init", "sparsity"])["std"].median()
    for rule, colour in colours.items():
        ax.plot(middle[rule].to_numpy(), color=colour, label=rule)
    ax.set(yscale="log", ylabel="std of the outputs")


def errors(ax: Axes, networks: pd.DataFrame, paper: pd.DataFrame, hue: str = "method") -> None:
    """Test error of each network in a line for its cell of the paper's table; diamonds: the paper's learners, and where
    some guess.

    networks: `method`, `network` (`comparison.named`) and `error` in per cent; the axis is logarithmic.
    paper: as of `comparison.paper_table`; cells of which there are no networks have no line. hue: what colours tell
    apart, side by side if it is not the method.
    """
    paper = comparison.named(paper)
    paper = paper[paper.network.isin(networks.network)]
    looks = {"hue": hue, "palette": figures.colours(networks[hue]), "legend": hue != "method", "dodge": hue != "method"}
    sns.stripplot(networks, x="error", y="network", order=paper.network,
                  jitter=0.15, size=6, alpha=0.8, ax=ax, **looks)  # fmt: skip
    diamond = {"marker": "D", "color": "black", "markersize": 6, "fillstyle": "none", "linestyle": "none"}
    for place, told in enumerate(paper.itertuples()):
        count, mean = comparison.learners(told.paper, told.spread)
        ax.plot(100 - mean, place, label="the paper" if place == 0 else None, **diamond)
        if count < comparison.PAPER_NETWORKS:
            guess = 100 - comparison.GUESS
            ax.plot(guess, place, **diamond)
            words = f"paper: {comparison.PAPER_NETWORKS - count} of {comparison.PAPER_NETWORKS}"
            ax.annotate(words, (guess, place), (0, 9), textcoords="offset points",
                        ha="center", fontsize="x-small")  # fmt: skip
    ax.set(xlabel="test error (%), logarithmic", ylabel="")
    ax.set_xticks(ERRORS, ERRORS)
    ax.minorticks_off()
    ax.grid(axis="y", linestyle=":")
    if hue != "method":
        figures.legend_below(ax.figure, [hue])


def curves(
    ax: Axes, history: pd.DataFrame, method: str | Sequence[str], colours: Mapping[str, Any], column: str = "init",
    dots: bool = False, *, every: int,
) -> None:  # fmt: skip
    """The `flow` of each network of a method (or of several), as measured every `every` steps.

    colours: value of `column` → colour. dots: the flow right after each mask update, too.
    """
    shown = history[history.method.isin(np.atleast_1d(method))]
    figures.each_network(ax, shown[shown.step % every == 0], "flow", colours, column)
    for name, colour in colours.items() if dots else ():
        after = learning.changes(shown[shown[column] == name])
        ax.plot(after.step, after.gradient_flow, ".", markersize=2, color=colour)
    title = method if isinstance(method, str) else ""
    ax.set(xlabel="training step", ylabel="gradient flow", yscale="log", title=title)


def changes(ax: Axes, table: pd.DataFrame, methods: Sequence[str], title: str, **looks: Any) -> None:
    """The `change` of the gradient's norm at each mask update of each network. looks: keywords for the lines."""
    figures.each_network(ax, table, "change", figures.colours(methods), "method", **looks)
    ax.axhline(0, color="black", linewidth=1)
    ax.set(xlabel="training step", ylabel=r"change of $\Vert\nabla L\Vert$", title=title)


def around_onset(ax: Axes, updates: pd.DataFrame, method: str) -> None:
    """What updates of a method do before and after learning begins: a line per network (`mask`), and their median.

    updates: `powers` (`analysis.updates.changes`), and `since`, steps since the onset; of none the panel says so.
    """
    for _, one in updates.groupby("mask"):
        ax.plot(one.since, one.powers, color=figures.COLOURS[method], linewidth=0.8, alpha=0.5)
    ax.plot(updates.groupby("since").powers.median(), color="black")
    ax.axhline(0, color="black", linewidth=1)
    ax.axvline(0, color="black", linestyle=":", linewidth=1.5)
    if updates.empty:
        ax.text(0.5, 0.7, "no such network begins to learn in this run", ha="center", transform=ax.transAxes)
    label = "step of the update − step at which the network begins to learn"
    ax.set(xlabel=label, ylabel=r"$\log_{10}$ (norm after / before)")


def begins(starts: Mapping[str, Population], split: Split) -> pd.DataFrame:
    """log₁₀ of the gradient flow of networks before training, `weights` and `biases` apart (`gradient_flow.parts`).

    starts: method → its networks. A row per network: `method`, `init`, `seed` and the two.
    """
    tables = []
    for method, networks in starts.items():
        flow = dict(zip(("weights", "biases"), gradient_flow.parts(networks, split), strict=True))
        logs = {part: values.log10().cpu().numpy() for part, values in flow.items()}
        tables.append(networks.frame[["init", "seed"]].assign(method=method, **logs))
    return pd.concat(tables, ignore_index=True)[["method", "init", "seed", "weights", "biases"]]


def in_parts(table: pd.DataFrame) -> pd.DataFrame:
    """Medians of `begins` over networks, in words."""
    both = table.assign(both=np.log10(10**table.weights + 10**table.biases))
    middle = both.groupby(["method", "init"], sort=False)[["weights", "biases", "both"]].median()
    return middle.round(2).astype(str).reset_index()


def medians(numbers: pd.DataFrame) -> pd.DataFrame:
    """The numbers of `learning.summary` in words, medians over the networks of each `method` and `init`."""
    middle = numbers.groupby(["method", "init"], sort=False)[list(NUMBERS)].median()
    return middle.rename(columns=NUMBERS).round(2).reset_index()
