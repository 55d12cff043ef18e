"""The tables of the derivation against closed forms, and the numbers made of them against tables by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from lth.analysis import derivation
from lth.analysis.derivation import Scheme
from lth.models import Model

RULES = {"original": ("forward", "dense"), "aware": ("forward", "neuron"), "back": ("backward", "neuron")}


def test_draws_agree_with_the_rules_for_products_and_sums():
    draws = 4_000
    table = derivation.product_and_sum([1, 5, 50], draws, seed=3)
    assert table["fan-in"].tolist() == [1, 5, 50]
    for told, found in (("Var(w)·Var(a)", "Var(wa), drawn"), ("fan-in·Var(w)·Var(a)", "Var(z), drawn")):
        assert (abs(table[found] / table[told] - 1) < 5 * math.sqrt(8 / draws)).all()  # 8: of a product of two normals
    assert table["fan-in·Var(w)·Var(a)"].tolist() == pytest.approx([0.36, 5 * 0.36, 50 * 0.36])


@pytest.fixture(scope="module")
def neurons() -> pd.DataFrame:
    return derivation.of_neurons(RULES, range(2), draws=400)


def test_each_neuron_has_the_variance_of_its_fan(neurons):
    """Counted in the dense layer a variance is the fan-in over all inputs; counted by neuron it is one."""
    assert set(neurons.layer) == {*derivation.LAYERS} and (neurons.fan > 0).all()
    rows = neurons[(neurons.of == "outputs") & (neurons.layer == "linear, 64 to 64")]
    original, aware = (rows[rows.rule == rule] for rule in ("original", "aware"))
    assert original.groupby("seed").fan.agg(["min", "max", "size"]).to_numpy().tolist() == [[1, 64, 64]] * 2
    for found in (original.variance / (original.fan / 64), aware.variance):
        assert (abs(found - 1) < 5 * math.sqrt(8 / 400)).all()


def test_what_neurons_say_in_a_number_per_seed(neurons):
    for of, rule in (("outputs", "aware"), ("gradients", "back")):
        assert (derivation.off_one(neurons, of, rule) < 0.15).all()
    assert (derivation.off_one(neurons, "outputs", "original") > 0.5).all()
    assert derivation.slopes(neurons, "outputs", "original").tolist() == pytest.approx([1, 1], abs=0.05)
    assert derivation.slopes(neurons, "outputs", "aware").tolist() == pytest.approx([0, 0], abs=0.05)


def test_numbers_of_a_table_by_hand():
    rows = [
        (seed, layer, "outputs", "rule", fan, seed * fan**power)
        for seed in (1, 2)
        for layer, power in (("a", 1), ("b", 3))
        for fan in (1, 2, 4)
    ]
    rows += [(1, "a", "outputs", "rule", 8, 0.0), (1, "a", "gradients", "rule", 1, 100.0)]
    table = pd.DataFrame(rows, columns=["seed", "layer", "of", "rule", "fan", "variance"])
    assert derivation.slopes(table, "outputs", "rule").to_dict() == pytest.approx({1: 2.0, 2: 2.0})
    off = derivation.off_one(table, "outputs", "rule")
    assert off.to_dict() == pytest.approx({1: (0 + 1 + 3 + 0 + 7 + 63 + 1) / 7, 2: (1 + 3 + 7 + 1 + 15 + 127) / 6})


def test_in_depth_the_signal_stays_where_each_neuron_is_counted():
    table = derivation.in_depth({name: RULES[name] for name in ("original", "aware")}, [4], draws=300)
    assert table.groupby("rule").layer.agg(list).map(lambda own: own == [*range(1, 11)]).all()
    last = table[table.layer == derivation.DEPTH].set_index("rule").variance
    assert 0.5 < last["aware"] < 2 and last["original"] < 0.01


@pytest.mark.parametrize("uneven", [False, True])
def test_through_whole_networks(uneven):
    """A dense network is the same however it is counted; with masks the original rule lets next to nothing through."""
    scheme = Scheme("forward", 2, uneven, channels=3)
    table = derivation.through(Model("lenet5", (1, 16, 16), 4), scheme, range(2), [0, 0.9], inputs=10)
    wide = table.pivot(index="seed", columns=["sparsity", "init"], values="std")
    assert wide[0].nunique(axis=1).tolist() == [1, 1]
    assert (wide[0.9, "original"] < 0.1 * wide[0, "original"]).all()
    assert (wide[0.9, "original"] < wide[0.9, "sparsity-aware"]).all()
