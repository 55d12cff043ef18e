"""What training gives, number by number, for a few short runs: a stored run is named by `ENGINE`, not by the code.

Where a number changes and the change is meant, raise ENGINE in lth/training/identity.py, then write the numbers anew:

    python tests/test_engine_numbers.py --write
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import toy_data

from lth.analysis.gradient_flow import GradientFlow
from lth.methods.dst import DST
from lth.methods.prune import Gradual
from lth.methods.repulsion import of
from lth.models import Model
from lth.population import Population
from lth.training import identity
from lth.training.plan import Probe
from lth.training.recipe import Recipe
from lth.training.train import train

FILE = Path(__file__).with_name("engine_numbers.json")
TOLERANCE = 1e-4  # relative: other processors round otherwise, and a few steps do not let that grow


def made(model: Model, phase: float = 0.0, **columns: object) -> Population:
    """Two networks with half of their weights, which are waves: they do not depend on how random numbers are drawn."""

    def waves(shape: torch.Size, way: int) -> torch.Tensor:
        fan = shape[1:].numel() if len(shape) > 1 else 100
        place = torch.arange(shape.numel(), dtype=torch.float64) * 1.7 + way + phase
        return (place.square().sin() * (2 / fan) ** 0.5).float().reshape(shape)

    both = lambda make: torch.stack([make(0), make(1)])  # noqa: E731
    of = model.shapes
    params = {n: both(lambda way, shape=shape: waves(shape, way)) for n, shape in of.params.items()}
    masks = {n: both(lambda way, n=n: (torch.arange(of.params[n].numel()) + way) % 2 > 0) for n in of.prunable}
    masks = {n: m.reshape(params[n].shape) for n, m in masks.items()}
    params = {n: p * masks[n] if n in masks else p for n, p in params.items()}
    buffers = {n: torch.full((2, *shape), float("var" in n)) for n, shape in of.buffers.items()}
    return Population(model, params, masks, buffers, pd.DataFrame({"seed": [0, 1], "method": "it", **columns}))


LENET, MLP, NORMED = Model("lenet5"), Model("lenet_300_100"), Model("resnet8", activation="swish", skips="conv")
SHORT = {"steps": 6, "batch_size": 8, "lr": 0.02}
FLOW = [Probe(2, GradientFlow(40), around_updates=True)]
# what is trained, how, and with what; together they go through all of the training code
RUNS = {
    "SGD": (made(LENET), Recipe(**SHORT, weight_decay=1e-3, warmup=2), {"probes": FLOW}),
    "decay of kernels": (made(MLP), Recipe(**SHORT, weight_decay=1e-2, decay="kernels_l2"), {}),
    "Adam": (made(LENET, lr=[1e-3, 2e-3]), Recipe(**SHORT, optimizer="adam", schedule="constant"), {}),
    "gradual": (made(LENET), Recipe(**SHORT), {"updates": {"it": Gradual(0.9, 1, 5, 2)}}),
    "SET": (made(MLP), Recipe(**SHORT), {"updates": {"it": DST("random", 2, 6)}}),
    "RigL": (made(LENET), Recipe(**SHORT), {"updates": {"it": DST("gradient", 2, 6, block=40)}, "probes": FLOW}),
    "smoothed": (made(MLP, label_smoothing=[0.0, 0.2]), Recipe(**SHORT, schedule="step", milestones=(3,)), {}),
    "distilled": (made(MLP, distill=[0.5, 0.9]), Recipe(**SHORT, temperature=2.0), {"teacher": made(LENET, 0.5)}),
    "repelled": (made(MLP), Recipe(**SHORT), {"penalty": of(made(MLP), [made(MLP, 0.1)], [2.0, -1.0])}),
    "batch norm": (made(NORMED), Recipe(**SHORT), {}),
    "augmented": (made(LENET), Recipe(**SHORT, augment=True), {}),
    "rewound": (made(MLP), Recipe(**SHORT, first_step=3), {}),
}


def numbers(name: str) -> dict[str, list[float]]:
    """Of both networks of a run, rounded to seven digits."""
    population, recipe, kind = RUNS[name]
    run = train(population, toy_data(), recipe, **kind)
    last = run.history[run.history["step"] == recipe.steps]
    theta = run.final.theta().double()
    told = {
        "loss in training": last["loss"],
        "test loss": run.final.evaluate(toy_data().test)["loss"],
        "length of the weights": theta.norm(dim=1),
        "length of the way": (theta - population.theta()).norm(dim=1),
        "weights left": run.final.theta_mask().double().sum(1),
        **{f"buffers {n}": b.double().flatten(1).norm(dim=1) for n, b in [*run.final.buffers.items()][-2:]},
        **({"gradient flow": last["gradient_flow"]} if "gradient_flow" in last else {}),
    }
    return {what: [float(f"{value:.7g}") for value in both.tolist()] for what, both in told.items()}


@pytest.mark.parametrize("name", RUNS)
def test_the_numbers_of_training_are_those_of_this_engine(name):
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    way_out = "then write them anew: python tests/test_engine_numbers.py --write"
    assert stored["engine"] == identity.ENGINE, f"the numbers are those of engine {stored['engine']}; {way_out}"
    found, expected = numbers(name), stored["runs"][name]
    assert found.keys() == expected.keys()
    for what, both in expected.items():
        assert found[what] == pytest.approx(both, rel=TOLERANCE), (
            f"{name}: {what} has changed. Stored runs would pass for runs of this code: "
            f"raise ENGINE in lth/training/identity.py if the change is meant, {way_out}"
        )


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    content = {"engine": identity.ENGINE, "runs": {name: numbers(name) for name in RUNS}}
    FILE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
