"""Before training, has a ticket more gradient flow than masked dense weights? Asked of the weights alone, on new masks.

    LTH_DATA=... python scripts/flow_of_tickets.py

Chapter 1's claim E6.ticket_scratch was changed with its masks in sight. This prunes other networks in the same way,
with seeds from 2000 on; it needs MNIST and some minutes. Writes log₁₀ of the flows beside the chapter's note.
"""

from __future__ import annotations

from lth import data
from lth.book import flows
from lth.book.verdicts import PUBLISHED, stamp
from lth.files import ROOT, write_text
from lth.methods import init, prune
from lth.models import Model
from lth.training.recipe import Recipe
from lth.training.train import train

TABLE = ROOT / "book" / "editions" / "notes" / "flow_of_tickets.csv"


def main() -> None:
    told = stamp(PUBLISHED / "gradient_flow")["parameters"]
    images = data.load("mnist")
    dense = init.glorot_uniform(Model("lenet5"), range(2000, 2000 + told["seeds"]), method="Pruned")
    same = ("steps", "batch_size", "lr", "momentum", "weight_decay")
    recipe = Recipe(decay="kernels_l2", **{name: told[name] for name in same})
    gradual = prune.Gradual(told["sparsity"], told["prune_start"], told["prune_end"], told["prune_every"])
    pruned = train(dense, images, recipe, updates={"Pruned": gradual}).final
    masked = prune.rewind(pruned, init.glorot_uniform(pruned.model, [1_000_000 + seed for seed in pruned.seeds]))
    tickets = prune.rewind(pruned, dense)
    starts = {"Scratch": masked.label(init="original"), "ticket": tickets.label(init="ticket")}
    found = flows.begins(starts, images.train.evenly(told["block"], first=True))
    write_text(TABLE, found.round(3).to_csv(index=False))
    print(found.to_string(index=False))


if __name__ == "__main__":
    main()
