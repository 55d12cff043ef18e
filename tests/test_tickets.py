"""A ticket's way to a file and back, and what others read with safetensors alone."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lth import models
from lth.errors import LthError, UsageError
from lth.methods import init, prune
from lth.models import Model
from lth.store import tickets
from lth.store.archives import Archives
from lth.store.runs import Store
from lth.training.recipe import Recipe


@pytest.fixture
def ticket():
    dense = init.kaiming_normal(Model("lenet_300_100"), seeds=[3])
    return prune.apply(dense, prune.magnitude_masks(dense, 0.8))


def test_there_and_back(ticket, tmp_path):
    path = tmp_path / "ticket.safetensors"
    tickets.save(path, ticket, data="digits", accuracy=0.97, recipe={"steps": 600})
    loaded, card = tickets.load(path)
    assert torch.equal(loaded.theta(), ticket.theta()) and torch.equal(loaded.theta_mask(), ticket.theta_mask())
    assert loaded.seeds == [3]
    assert (card["data"], card["accuracy"], card["recipe"]) == ("digits", 0.97, {"steps": 600})
    assert card["weights_left"] == 53_240 and card["sparsity"] == pytest.approx(0.8)


def test_safetensors_and_torch_are_enough(ticket, tmp_path):
    path = tmp_path / "ticket.safetensors"
    tickets.save(path, ticket, data="digits")
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["lth"])["card"]["data"] == "digits"
    tensors = load_file(path)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 300), torch.nn.ReLU())
    module.load_state_dict({"1.weight": tensors["params.fc1.weight"][0], "1.bias": tensors["params.fc1.bias"][0]})
    assert torch.all(module[1].weight[~tensors["masks.fc1.weight"][0]] == 0)


def test_what_is_no_ticket_is_refused(ticket, tmp_path):
    path = tmp_path / "ticket.safetensors"
    with pytest.raises(UsageError, match="one network, not 2"):
        tickets.save(path, ticket.repeat(2))
    with pytest.raises(UsageError, match=r"fc1\.weight has weights outside its mask"):
        tickets.save(path, ticket.with_theta(ticket.theta() + 1))
    assert not path.exists()
    ticket.save(path)
    with pytest.raises(LthError, match="no card"):
        tickets.load(path)


def test_a_damaged_file_is_noticed(ticket, tmp_path):
    path = tmp_path / "ticket.safetensors"
    tickets.save(path, ticket)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(LthError, match="ticket.safetensors"):
        tickets.load(path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(LthError, match=r"ticket\.safetensors"):
        tickets.load(path)
    with safe_open(path, "pt") as file:
        header = file.metadata()
    save_file(load_file(path) | {"params.fc3.bias": torch.ones(1, 10)}, path, header)
    with pytest.raises(LthError, match="damaged"):
        tickets.load(path)


@pytest.fixture
def stored(toy, tmp_path):
    """A store with one network that was pruned while it trained, and that training: (store, key, run)."""
    store = Store(tmp_path / "store", Archives(tmp_path / "none"))
    dense = init.glorot_uniform(Model("lenet5"), seeds=[5], method="pruned")
    how = {"updates": {"pruned": prune.Gradual(0.8, 4, 12, 4)}, "keep": [0, 2]}
    run = store.train(dense, toy, Recipe(steps=16, batch_size=8), **how)
    (folder,) = (store.root / "runs").iterdir()
    return store, folder.name, run


@pytest.mark.parametrize("step", [None, 2])
def test_a_ticket_of_a_stored_run_has_its_mask_and_the_weights_of_the_step(stored, tmp_path, step):
    store, key, run = stored
    path = tmp_path / "ticket.safetensors"
    card = tickets.export(store, key, path, step)
    loaded, told = tickets.load(path)
    weights = run.final if step is None else run.at(step)
    assert torch.equal(loaded.theta(), prune.rewind(run.final, weights).theta())
    assert torch.equal(loaded.theta_mask(), run.final.theta_mask()) and card == told
    assert (told["step"], told["data"]["name"], told["replica"]["seed"]) == (step or 16, "toy", 5)
    assert told["sparsity"] == pytest.approx(0.8, abs=0.01) and key in told["source"]


@pytest.mark.parametrize(
    ("key", "file", "step", "says"),
    [
        ("0123456789abcdef", "t.safetensors", None, "no run 0123456789abcdef"),
        ("../..", "t.safetensors", None, r"no run \.\./\.\."),
        ("KEY", "t.pt", None, "name a file that ends with .safetensors"),
        ("KEY", "nowhere/t.safetensors", None, "in a folder that is there"),
        ("KEY", "t.safetensors", 3, "has not kept step 3: it has 2"),
        ("KEY", "t.safetensors", 0, r"The start is not stored.*run\.at\(0\)"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(stored, tmp_path, key, file, step, says):
    store, known, _ = stored
    with pytest.raises(UsageError, match=says) as refusal:
        tickets.export(store, known if key == "KEY" else key, tmp_path / file, step)
    assert "\n" not in str(refusal.value) and not list(tmp_path.glob("**/t.*"))


def test_a_network_of_your_own_is_exported_by_a_process_that_does_not_know_it(toy, tmp_path):
    """`lth ticket export` and `lth store ls` have the store, and not the file in which the network was registered."""
    models.register("own", lambda shape, classes: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)))
    try:
        store = Store(tmp_path / "store", Archives(tmp_path / "none"))
        dense = init.kaiming_normal(Model("own", toy.shape, toy.classes), seeds=[5], method="mine")
        start = prune.apply(dense, prune.magnitude_masks(dense, 0.9))
        run = store.train(start, toy, Recipe(steps=4, batch_size=8), keep=[2])
    finally:
        models.ARCHITECTURES.pop("own")
        for remembered in (models._template, models._outputs, models._shapes):
            remembered.cache_clear()
    (folder,) = (store.root / "runs").iterdir()
    assert "own on toy, method mine, seed 5, 10 % left, 4 steps, kept: 2" in store.about(folder.name)
    path = tmp_path / "ticket.safetensors"
    assert tickets.export(store, folder.name, path, 2)["sparsity"] == pytest.approx(0.9)
    found = load_file(path)
    assert torch.equal(found["params.1.weight"], run.at(2).params["1.weight"])
    assert torch.equal(found["masks.1.weight"], run.final.masks["1.weight"])
