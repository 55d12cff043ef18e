"""Trains chapter 1's scratch networks with the original weights once more, without weight decay: who learns now?

    LTH_DATA=... python scripts/without_decay.py

Masks, settings and the networks with weight decay are those of the published edition; it needs MNIST and some minutes.
Writes the accuracies beside the chapter's note, which tells how many learn.
"""

from __future__ import annotations

import pandas as pd

from lth import data
from lth.book.verdicts import PUBLISHED, stamp
from lth.files import ROOT, write_text
from lth.methods import init, prune
from lth.population import Population
from lth.store.archives import published
from lth.training.recipe import Recipe
from lth.training.train import train

TABLE = ROOT / "book" / "editions" / "notes" / "without_decay.csv"


def sparse(networks: Population, sparsity: float) -> Population:
    """Those with that share of weights pruned, of networks of both sparsities."""
    masks = [mask.flatten(1).float() for mask in networks.masks.values()]
    left = sum(mask.sum(1) for mask in masks) / sum(mask.shape[1] for mask in masks)
    return networks[((1 - left - sparsity).abs() < 0.005).tolist()]


def main() -> None:
    told = stamp(PUBLISHED / "gradient_flow")["parameters"]
    own = {"model": "lenet5", "steps": told["steps"]}
    images, dense = data.load("mnist"), published("gradient_flow", method="Pruned", **own)
    pruned = sparse(dense, told["sparsity"])
    with_decay = sparse(published("gradient_flow", method="Scratch", init="original", **own), told["sparsity"])
    seeds = with_decay.seeds
    start = prune.rewind(pruned, init.glorot_uniform(pruned.model, seeds))
    assert all((start.masks[name] == mask).all() for name, mask in with_decay.masks.items())
    recipe = Recipe(
        steps=told["steps"], batch_size=told["batch_size"], lr=told["lr"], momentum=told["momentum"], weight_decay=0.0
    )
    run = train(start, images, recipe)
    accuracies = {
        "seed": list(seeds),
        "with decay": (100 * with_decay.evaluate(images.test).accuracy).round(2),
        "without": (100 * run.final.evaluate(images.test).accuracy).round(2),
    }
    write_text(TABLE, (found := pd.DataFrame(accuracies)).to_csv(index=False))
    print(found.to_string(index=False))


if __name__ == "__main__":
    main()
