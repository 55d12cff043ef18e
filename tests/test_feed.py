"""Networks trained from a file are those trained from memory, to the bit; its images stay where they are."""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import toy_data
from safetensors import safe_open
from safetensors.torch import save_file

from lth.data import Data
from lth.methods import init
from lth.methods.dst import DST
from lth.models import Model
from lth.population import Population
from lth.training.feed import AHEAD, Feed
from lth.training.plan import Run
from lth.training.recipe import Recipe
from lth.training.train import train

SEEN = 16


@pytest.fixture
def memory() -> Data:
    """Images of which networks see the middle."""
    data = toy_data(200, (3, 20, 20), 4)
    return replace(data, train=replace(data.train, seen=SEEN), test=replace(data.test, seen=SEEN))


@pytest.fixture
def mapped(memory: Data, tmp_path: Path) -> Data:
    """The same, in a file."""
    save_file({"images": memory.train.images}, tmp_path / "images.safetensors")
    with safe_open(tmp_path / "images.safetensors", "pt") as file:
        return replace(memory, train=replace(memory.train, images=file.get_tensor("images"), on_disk=True))


@pytest.fixture
def networks() -> Population:
    return init.glorot_uniform(Model("lenet_300_100", (3, SEEN, SEEN), 4), seeds=range(2), method="rigl")


def same(one: Run, other: Run) -> bool:
    tensors = zip(one.final.params.values(), other.final.params.values(), strict=True)
    return one.history.equals(other.history) and all(torch.equal(a, b) for a, b in tensors)


@pytest.mark.parametrize("augment", [False, True, "resized"])
def test_the_same_bits_from_a_file_and_from_memory(augment, memory, mapped, networks, monkeypatch):
    """A run over several blocks and mask updates."""
    monkeypatch.setattr("lth.training.group.BLOCK", 10)
    recipe = Recipe(steps=25, batch_size=8, augment=augment)
    how = {"updates": {"rigl": DST("gradient", 6, 25)}, "keep": [13]}
    one, other = (train(networks, data, recipe, **how) for data in (memory, mapped))
    assert same(one, other)
    assert augment is False or not same(one, train(networks, memory, Recipe(steps=25, batch_size=8), **how))


def test_a_run_from_a_file_goes_on(mapped, networks, tmp_path, monkeypatch):
    recipe = Recipe(steps=20, batch_size=8, augment="resized")
    whole = train(networks, mapped, recipe)

    def stop(progress: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lth.training.group.STRETCH", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train(networks, mapped, recipe, checkpoint=tmp_path / "run", watch=stop)
    assert same(whole, train(networks, mapped, recipe, checkpoint=tmp_path / "run"))


def test_a_part_is_what_the_network_sees(memory, networks):
    """`resized` ends at the size of the square that is seen, whatever the images' own."""
    assert memory.shape == (3, SEEN, SEEN)
    assert train(networks, memory, Recipe(steps=2, batch_size=4, augment="resized")).final.sound().all()


def test_the_thread_is_ahead_and_ends_with_its_feed():
    source = torch.arange(50, dtype=torch.uint8).view(50, 1, 1, 1)
    before = threading.active_count()
    feed, out = Feed(source, 2, torch.device("cpu")), torch.zeros(2, 1, 1, 1, dtype=torch.uint8)
    order = torch.arange(20).view(10, 2)
    feed.expect(5, order[:4])
    feed.expect(7, order[2:8])  # two of them are known
    while feed.full.qsize() < AHEAD:
        time.sleep(0.001)
    for two in order[:8]:
        feed.next(out)
        assert out.flatten().tolist() == two.tolist()
    del feed
    gc.collect()
    while threading.active_count() > before:
        time.sleep(0.001)


def test_what_goes_wrong_in_the_thread_is_raised_where_images_are_asked_for():
    feed = Feed(torch.zeros(3, 1, 1, 1, dtype=torch.uint8), 2, torch.device("cpu"))
    feed.expect(0, torch.zeros(1, 3, dtype=torch.int64))  # three images for a batch of two
    with pytest.raises(ValueError, match="does not match"):
        feed.next(torch.zeros(2, 1, 1, 1, dtype=torch.uint8))
