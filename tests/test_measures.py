"""Measures that are kept: found once per network, the same when read, never half written, named by all that decides."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch

from lth.analysis import landscape, lcs, surface
from lth.errors import LthError, UsageError
from lth.methods import init
from lth.methods.tweaks import GradInit
from lth.models import Model
from lth.store import measures
from lth.store.archives import Archives, pack
from lth.store.measures import Measures

HOW = GradInit(batch_size=20, iterations=2)


@pytest.fixture
def asked(monkeypatch) -> list[list[int]]:
    """The seeds of the networks that a measure was called with, call by call."""
    calls = []

    def watched(how, population, split, true=GradInit.__call__):
        calls.append(population.seeds)
        return true(how, population, split)

    monkeypatch.setattr(GradInit, "__call__", watched)
    return calls


def test_tensors_are_found_once_per_network(tmp_path, lenets, toy, asked):
    keep = Measures(tmp_path)
    some = keep(HOW, lenets[[1]], toy.train)
    every = keep(HOW, lenets.label(method="under another name"), toy.train)
    again = keep(HOW, lenets, toy.train)
    assert asked == [[1], [0], [2]]
    alone = HOW(lenets, toy.train)
    for name, scales in every.items():
        assert torch.equal(scales, again[name]) and torch.equal(scales, alone[name])
        assert torch.equal(scales[[1]], some[name])


def test_networks_that_are_the_same_are_measured_once(tmp_path, lenets, toy, asked):
    twice = lenets[[1, 0, 1]].label(method=["SET", "RigL", "Scratch"])
    found = Measures(tmp_path)(HOW, twice, toy.train)
    assert asked == [[1], [0]]
    assert all(torch.equal(scales[0], scales[2]) for scales in found.values())


def test_tables_come_back_to_the_bit_with_the_columns_of_the_frame(tmp_path, lenets, toy):
    u = surface.filter_normalised(lenets)[:1]
    keep, one = Measures(tmp_path), lenets[[0]]
    first = keep(surface.along, one, u, [0.0, 0.1], toy.test)
    pd.testing.assert_frame_equal(first, surface.along(one, u, [0.0, 0.1], toy.test), check_exact=True)
    second = keep(surface.along, one.label(way="ticket"), u, [0.0, 0.1], split=toy.test)
    assert second.way.tolist() == ["ticket"] * 2 and second.loss.tolist() == first.loss.tolist()


def test_networks_of_a_group_are_told_apart(tmp_path, lenets, toy, monkeypatch):
    """On a GPU several are measured together, and their rows may come in any order."""
    monkeypatch.setattr(measures, "map_replicas", lambda find, chunks: find([r for chunk in chunks for r in chunk]))
    u = surface.filter_normalised(lenets)
    zero = torch.zeros_like(u)
    table = Measures(tmp_path)(surface.surface, lenets, u, zero, [0.0, 0.5], [0.0], toy.test)
    true = surface.surface(lenets, u, zero, [0.0, 0.5], [0.0], toy.test)
    for seed in lenets.seeds:
        assert table[table.seed == seed].loss.tolist() == true[true.seed == seed].loss.tolist()


@pytest.mark.parametrize(
    "other",
    [
        lambda how, networks, split: (replace(how, iterations=3), networks, split),
        lambda how, networks, split: (how, networks.label(seed=networks.frame.seed + 7), split),
        lambda how, networks, split: (how, networks.with_theta(networks.theta() * 1.01), split),
        lambda how, networks, split: (how, networks, split.take(range(150))),
        lambda how, networks, split: (how, networks, replace(split, mean=torch.zeros(1), std=torch.ones(1))),
    ],
    ids=["rate", "seed", "weights", "images", "standardised"],
)
def test_whatever_decides_is_part_of_the_name(tmp_path, lenets, toy, asked, other):
    keep = Measures(tmp_path)
    keep(HOW, lenets, toy.train)
    how, networks, split = other(HOW, lenets, toy.train)
    keep(how, networks, split)
    assert len(asked) == 6


def test_a_stop_loses_at_most_the_network_in_work(tmp_path, lenets, toy, monkeypatch):
    begun = []

    def stopped(how, population, split, true=GradInit.__call__):
        begun.append(population.seeds)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return true(how, population, split)

    monkeypatch.setattr(GradInit, "__call__", stopped)
    keep = Measures(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        keep(HOW, lenets, toy.train)
    keep(HOW, lenets, toy.train)
    assert begun == [[0], [1], [1], [2]]
    assert not list(tmp_path.rglob("*.partial"))


def test_damage_is_told_with_the_way_out(tmp_path, lenets, toy):
    keep = Measures(tmp_path)
    keep(HOW, lenets[[0]], toy.train)
    (file,) = tmp_path.rglob("*.safetensors")
    bytes_ = bytearray(file.read_bytes())
    bytes_[-2] ^= 1
    for damaged in (bytes(bytes_), bytes(bytes_[:-5])):
        file.write_bytes(damaged)
        with pytest.raises(LthError, match="delete it"):
            keep(HOW, lenets[[0]], toy.train)


def test_a_measure_whose_code_may_change_is_refused(tmp_path, lenets, toy):
    def home_made(population):
        return population.frame

    for measure in (home_made, lambda population: population.frame):
        with pytest.raises(UsageError, match="whatever becomes of its code"):
            Measures(tmp_path)(measure, lenets)


def test_a_store_that_cannot_be_written_to_is_told(tmp_path, lenets, toy):
    (tmp_path / "measures").write_text("a file", encoding="utf-8")
    with pytest.raises(LthError, match="LTH_STORE"):
        Measures(tmp_path)(HOW, lenets[[0]], toy.train)


def test_batch_norm_statistics_count(tmp_path, toy, asked):
    networks = init.kaiming_normal(Model("resnet8", (1, 28, 28)), seeds=[0])
    keep = Measures(tmp_path)
    keep(HOW, networks, toy.train)
    keep(HOW, replace(networks, buffers={n: b + 0.1 for n, b in networks.buffers.items()}), toy.train)
    assert len(asked) == 2


def test_measures_come_from_archives_and_tell_what_was_used(tmp_path, lenets, toy, asked):
    keep = Measures(tmp_path / "store", Archives(tmp_path / "archives"))
    assert not keep.known(HOW, lenets, toy.train)
    first = keep(HOW, lenets, toy.train)
    assert len(keep.used) == 3 and all((tmp_path / "store" / name).exists() for name in keep.used)
    pack(keep.used, tmp_path / "store", tmp_path / "archives" / "a.zip")
    other = Measures(tmp_path / "other", Archives(tmp_path / "archives"))
    assert other.known(HOW, lenets, toy.train)
    again = other(HOW, lenets, toy.train)
    assert len(asked) == 3 and all(torch.equal(first[name], again[name]) for name in first)
    assert other.used == keep.used


def test_of_a_line_both_ends_are_part_of_the_name(tmp_path, lenets, toy, monkeypatch):
    keep, calls = Measures(tmp_path), []

    def watched(start, end, *how, true=landscape.line):
        calls.append((start.seeds, end.seeds))
        return true(start, end, *how)

    watched.__module__, watched.__qualname__ = landscape.line.__module__, landscape.line.__qualname__
    monkeypatch.setattr(landscape, "line", watched)
    ends = init.glorot_uniform(lenets.model, [7, 8, 9])
    found = lcs.segments(lenets, ends, toy.test, 3, measure=keep)
    pd.testing.assert_frame_equal(found, lcs.segments(lenets, ends, toy.test, 3), check_exact=True)
    calls.clear()
    turned = lcs.segments(lenets, ends[[0, 2, 1]], toy.test, 3, measure=keep)
    assert sorted(calls) == [([seed], [end]) for seed, end in zip(lenets.seeds[1:], [9, 8], strict=True)]
    assert turned.barrier[0] == found.barrier[0] and turned.distance[1] != found.distance[1]
    calls.clear()
    path = landscape.piecewise([lenets, ends], [0, 0.5, 1], toy.test, measure=keep)
    assert not calls and path.sort_values(["seed", "alpha"]).error.tolist() == (
        landscape.piecewise([lenets, ends], [0, 0.5, 1], toy.test).sort_values(["seed", "alpha"]).error.tolist()
    )
    with pytest.raises(UsageError, match="each of the 3 networks needs its own other one: there are 1"):
        keep(landscape.line, lenets, ends[:1], [0.0, 1.0], toy.test)
