"""The page "Ask a new question": its example runs on the networks that travel with the book, or on small ones."""

from __future__ import annotations

import re

import pytest
import torch

from lth.errors import LthError, UsageError
from lth.files import ROOT
from lth.methods import init, prune
from lth.models import Model
from lth.population import concat
from lth.store import archives as networks
from lth.store.archives import Archives, pack, published
from lth.store.runs import Store
from lth.training.recipe import Recipe

EXAMPLE = re.findall(r"```python\n(.*?)```", (ROOT / "book" / "ask.md").read_text(encoding="utf-8"), re.DOTALL)[0]


@pytest.fixture
def small(toy, tmp_path, monkeypatch):
    """An archive of chapter 3, with the tickets (then LT) and the scratch networks of two pruning solutions."""
    solutions = [7, 8]
    dense = init.glorot_uniform(Model("lenet5"), solutions)
    sparse = prune.apply(dense, prune.magnitude_masks_per_layer(dense, 0.9))
    start = concat([sparse.repeat(2).label(method="LT"), sparse.label(method="Scratch")])
    start = start.label(seed=range(20, 26), solution=solutions * 3)
    store = Store(tmp_path / "store", Archives(tmp_path / "none"))
    run = store.train(start, toy, Recipe(steps=8, batch_size=8, lr=0.1))
    store.train(start[:2], toy, Recipe(steps=9, batch_size=8, lr=0.1))  # at another scale
    names = [f"runs/{folder.name}" for folder in (store.root / "runs").iterdir()]
    pack(names, store.root, tmp_path / "networks" / "lt_basin.zip")
    monkeypatch.setattr(networks, "SHIPPED", tmp_path / "networks")
    return dense, run.final


def test_published_networks_are_those_that_were_trained(small):
    _, final = small
    assert sorted(published("lt_basin", method="ticket").frame.steps) == [8] * 4 + [9] * 2
    found = published("lt_basin", method="ticket", steps=8)
    assert found.seeds == [20, 21, 22, 23] and set(found.frame.method) == {"ticket"}
    assert torch.equal(found.theta(), final[:4].theta()) and torch.equal(found.theta_mask(), final[:4].theta_mask())
    assert published("lt_basin", solution=8, method="Scratch").seeds == [25]
    with pytest.raises(UsageError, match="There are method: Scratch, ticket"):
        published("lt_basin", method="SET")
    with pytest.raises(LthError, match="no networks of tweaks travel with the book"):
        published("tweaks")


def test_the_example_of_the_page_runs(small, capsys):
    dense, final = small
    space: dict = {}
    exec(EXAMPLE.replace("11_719", "8"), space)
    weights = {n for n in final.masks}
    for place, solution in enumerate([7, 8]):
        shares = []
        for r in (place, place + 2):
            same = sum(
                ((final.params[n][r] * dense.params[n][place] > 0) & final.masks[n][r]).sum().item() for n in weights
            )
            shares.append(100 * same / final.weights_left()[r].item())
        assert space["table"][solution] == pytest.approx(sum(shares) / 2)
    assert "mean" in capsys.readouterr().out
    assert len(EXAMPLE.strip().splitlines()) <= 10


def test_the_example_runs_on_the_published_networks():
    try:
        published("lt_basin", method="ticket", steps=11_719)
    except LthError as none:
        pytest.skip(f"no ticket of lt_basin travels yet: {none}")
    space: dict = {}
    exec(EXAMPLE, space)
    assert space["table"].between(0, 100).all() and len(space["table"]) > 1
