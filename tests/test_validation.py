"""Images put aside for validation, and the epoch where the accuracy on them is best."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from lth.analysis.validation import Validation, accuracies, best_epoch
from lth.errors import UsageError
from lth.methods import init
from lth.models import Model
from lth.training.plan import Probe
from lth.training.recipe import Recipe
from lth.training.train import train


def test_nothing_is_lost_and_nothing_is_in_both(toy):
    held = toy.hold_out(0.1, seed=3)
    assert len(held.train) == 180 and len(held.validation) == 20 and held.test is toy.test
    rows = lambda split: {bytes(image.numpy().tobytes()) for image in split.images}  # noqa: E731
    assert not rows(held.train) & rows(held.validation)
    assert rows(held.train) | rows(held.validation) == rows(toy.train)
    again, other = toy.hold_out(0.1, seed=3), toy.hold_out(0.1, seed=4)
    assert again.fingerprint == held.fingerprint != other.fingerprint != toy.fingerprint
    assert torch.equal(again.validation.labels, held.validation.labels) and held.to("cpu").validation is not None
    for share in (0, 1, 0.001):
        with pytest.raises(UsageError, match="training images aside"):
            toy.hold_out(share)


def test_the_probe_and_the_best_epoch(toy):
    held = toy.hold_out(0.2)
    networks = init.kaiming_normal(Model("lenet_300_100"), seeds=[0, 1])
    run = train(networks, held, Recipe(steps=30, batch_size=20, lr=0.05), probes=[Probe(10, Validation())])
    last = run.history[run.history.step == 30]
    assert last.validation.tolist() == pytest.approx(run.final.evaluate(held.validation).accuracy.tolist())
    assert last.test.tolist() == pytest.approx(run.final.evaluate(held.test).accuracy.tolist())
    best = best_epoch(run.history, ["seed"])
    for row in best.itertuples():
        own = run.history[run.history.seed == row.seed]
        assert row.validation == own.validation.max()
        assert row.step == own[own.validation == row.validation].step.max()
    with pytest.raises(UsageError, match="hold_out"):
        Validation()(networks, toy)


def test_rows_without_a_measurement_do_not_count():
    history = pd.DataFrame({"seed": [0, 0, 0], "validation": [0.5, None, 0.5], "test": [0.1, 0.9, 0.3]})
    assert best_epoch(history, ["seed"]).test.tolist() == [0.3]


def test_accuracies_network_by_network(toy):
    held = toy.hold_out(0.2)
    networks = init.kaiming_normal(Model("lenet_300_100"), seeds=[0, 1], way="x", level=[2, 3], network=[0, 1])
    run = train(networks, held, Recipe(steps=20, batch_size=20, lr=0.05), probes=[Probe(10, Validation())])
    found, best = accuracies(run, masks="y"), best_epoch(run.history, ["seed"])
    assert found.accuracy.tolist() == pytest.approx((100 * best.test).tolist()) and found.step.tolist() == [*best.step]
    assert found["last"].tolist() == pytest.approx((100 * run.final.evaluate(held.test).accuracy).tolist())
    assert found.weights.tolist() == run.final.weights_left().tolist() and set(found.masks) == {"y"}
    assert found.level.tolist() == [2, 3] and set(found.way) == {"x"}
