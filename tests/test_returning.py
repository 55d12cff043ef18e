"""Chapter 5's samples and words, on tables made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lth.book import large, returning
from lth.book.presets import parameters
from lth.methods.init import glorot_uniform

ROWS = [
    (method, arm, level, network, accuracy + network + level, 10.0**level)
    for method, arm, accuracy in [("ticket", "sgd", 90), ("reinit", "sgd", 86), ("ticket", "adam", 80)]
    for level in range(4)
    for network in range(2)
]
TABLE = pd.DataFrame(ROWS, columns=["method", "arm", "level", "network", "accuracy", "threshold"])


def test_means_over_some_rounds():
    rounds = returning.Rounds(TABLE, TABLE, [1, 3])
    assert rounds.score("ticket", "sgd").tolist() == [92, 93] and rounds.score("ticket", "adam").tolist() == [82, 83]
    assert rounds.gain("sgd").tolist() == [4, 4] and rounds.halfway("sgd").tolist() == [90, 91]
    assert rounds.threshold("ticket", "sgd") == pytest.approx([100, 100])  # of 10 and 1000


def test_words():
    assert returning.spread([1.0, 2.0, 3.0]) == "2.00 ± 1.00"
    both = returning.one_shot({"the arm's": (np.array([90.0, 92.0]), np.array([89.0, 91.5]))})
    assert both.to_dict("records") == [
        {"learning rate": "the arm's", "dense (%)": "91.00 ± 1.41", "ticket − dense (points)": "-0.75 ± 0.35"}
    ]


def test_whether_a_penalty_was_dodged():
    about = {"arm": "sgd", "method": "ticket", "network": [0, 0, 0, 1, 1, 1]}
    cosines = pd.DataFrame({**about, "group": ["a", "b", "all"] * 2, "cosine": [1.0, 0, 0, 0, -1, 1]})
    said = pd.DataFrame({**about, "layer": ["1", "2", "3"] * 2, "correlation": [0.5, 0.7, 9, 0.1, 0.3, 9]})
    pulls = pd.DataFrame({**about, "group": ["a", "b", "c"] * 2, "reached": [1, 2, 0, 0, 3, 0], "left": 2})
    accuracy = pd.DataFrame({"arm": "sgd", "method": "ticket", "network": [0, 1], "accuracy": [90.0, 92.0]})
    (found,) = returning.dodge(cosines, said, pulls, accuracy, ["a"]).to_dict("records")
    assert found == {
        "arm": "sgd", "method": "ticket", "angle, all weights": "0.5 ± 0.71", "angle, layers": "0.5 ± 0.71",
        "correlation of neurons": "0.4 ± 0.28", "weights reached (%)": "50.0 ± 0.0", "accuracy (%)": "91.0 ± 1.41",
    }  # fmt: skip


def test_whether_a_penalty_took_hold(lenets):
    """The second level is the first with one layer reversed, which is at no angle; the third has its own weights."""
    names, lenets = list(lenets.masks), lenets.label(network=range(3))
    turned = replace(lenets, params={**lenets.params, names[0]: -lenets.params[names[0]]})
    other = glorot_uniform(lenets.model, seeds=range(7, 10), method="dense").label(network=range(3))
    held = {"a": {names[0]: lenets.masks[names[0]]}}
    found = returning.obeyed({("ticket", "sgd"): [lenets, turned, other]}, held, [2])
    (row,) = found.to_dict("records")
    assert (row["arm"], row["method"]) == ("sgd", "ticket")
    both = [float(row[f"the layer turned least, {to}"][:4]) for to in ("to the last", "to the last but one")]
    assert both[0] == both[1] > 0.8 and float(row["all weights, to the last"][:4]) > 0.9
    again = returning.obeyed({("ticket", "sgd"): [lenets, lenets, turned]}, held, [2])
    assert again["the layer turned least, to the last"].item() == "0.00 ± 0.00"


def test_weights_and_masks_crossed():
    scores = {
        (owner, start, strength): np.array([level, level + 2.0])
        for level, (owner, start, strength) in enumerate(
            (owner, start, strength)
            for owner in ("ticket", "repelled")
            for start in ("first weights", "new weights")
            for strength in (0, 2.0)
        )
    }
    table = returning.crossed(scores)
    assert table.columns.tolist() == ["weights", "masks of", "without penalty (%)", "with it (%)"]
    assert table["weights"].tolist() == ["first weights"] * 2 + ["new weights"] * 2
    assert table["masks of"].tolist() == ["ticket", "repelled"] * 2
    assert table["without penalty (%)"].str[:4].tolist() == ["1.00", "5.00", "3.00", "7.00"]
    assert table["with it (%)"].str[:4].tolist() == ["2.00", "6.00", "4.00", "8.00"]


def test_resnet50_trains_as_in_the_paper():
    recipe = returning.one_shot_recipe(parameters("rti_repulsion", "imagenet"), large.IMAGES, 0.4)
    epoch = large.IMAGES / recipe.batch_size
    assert recipe.steps / epoch == pytest.approx(90, rel=1e-4) and recipe.lr == 0.4
    assert [step / epoch for step in recipe.milestones] == pytest.approx([30, 60, 80], rel=1e-4)
    short = parameters("rti_repulsion", "imagenet", {"imagenet_length": 0.5})
    assert returning.one_shot_recipe(short, large.IMAGES, 0.4).steps == pytest.approx(recipe.steps / 2, abs=1)


def test_beside_the_papers_resnet50():
    found = returning.one_shot_beside_paper({0.1: (np.array([72.0, 73.0]), np.array([70.0, 72.0]))})
    assert found["learning rate"].tolist() == [0.4, 0.1] and found["ticket − dense"].tolist() == [-2.4, -2.0]
    assert found["ticket − dense, here"][1] == "-1.50 ± 0.71"
    assert found["here: dense (%)"].isna().tolist() == [True, False]
    assert returning.one_shot_beside_paper({}).shape == (2, 3)
