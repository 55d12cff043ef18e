"""Curves of spectra on the stretched axis, and the frames of the film."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from lth.analysis import hessian
from lth.analysis.hessian import Spectrum
from lth.book import spectra
from lth.methods import init, prune
from lth.models import Model
from lth.store.measures import Measures


@pytest.fixture
def spectrum() -> Spectrum:
    """SET with two networks, RigL with one; values from thousandths to hundreds."""
    frame = pd.DataFrame({"method": ["SET", "SET", "RigL"], "seed": [0, 1, 0]})
    values = [torch.tensor(v).double() for v in ([-0.5, 0.0, 0.001, 200.0], [0.0, 2.0], [-3.0, 0.0])]
    return Spectrum(frame, values, [torch.full_like(v, 1 / len(v)) for v in values])


def test_a_curve_holds_all_eigenvalues_and_is_the_mean_over_networks(spectrum):
    table = spectra.curves(spectrum, ["method"])
    assert list(table.method.unique()) == ["SET", "RigL"]
    for _, curve in table.groupby("method"):
        place = np.arcsinh(curve.eigenvalue / spectra.STRETCH)
        assert np.trapezoid(curve.density, place) == pytest.approx(1, abs=0.01)
    parts = [Spectrum(spectrum.frame[r : r + 1], [spectrum.values[r]], [spectrum.weights[r]]) for r in (0, 1)]
    means = [share_below(spectra.curves(part, ["method"]), -0.05) for part in parts]
    both = share_below(table[table.method == "SET"], -0.05)
    assert both == pytest.approx(np.mean(means), abs=0.02)


def share_below(curve: pd.DataFrame, end: float) -> float:
    part = curve[curve.eigenvalue < end]
    return float(np.trapezoid(part.density, np.arcsinh(part.eigenvalue / spectra.STRETCH)))


def test_the_axis_has_room_for_all_and_ticks_inside(spectrum):
    figure, ax = plt.subplots()
    spectra.prepare(ax, spectra.curves(spectrum, ["method"]))
    low, high = ax.get_xlim()
    assert low < -3 and high > 200
    assert 0 in ax.get_xticks() and all(low <= tick <= high for tick in ax.get_xticks())
    plt.close(figure)


def test_a_method_without_a_curve_keeps_the_one_before():
    rows = [(0, "before", "SET", 1.0), (0, "before", "RigL", 2.0)]
    rows += [(9, "before", "SET", 3.0), (9, "before", "RigL", 4.0), (9, "after", "RigL", 5.0)]
    table = pd.DataFrame(rows, columns=["step", "when", "method", "density"]).assign(eigenvalue=0.0)
    found = spectra.frames(table, ["SET", "RigL"])
    assert list(found) == ["step 0", "step 9", "step 9, after one more update"]
    assert [[float(y[0]) for _, y in curves] for curves in found.values()] == [[1, 2], [3, 4], [3, 5]]


def test_measured_spectra_are_those_of_the_networks_and_read_the_second_time(tmp_path, toy, monkeypatch):
    """One population after another, with their frames; of few weights, so that Lanczos' steps can be all."""
    lenets = init.glorot_uniform(Model("lenet5", widths=(1, 1, 2, 2)), range(3))
    split, parts = toy.train.evenly(20), [lenets[:2].label(method="SET"), lenets[2:].label(method="RigL")]
    measure, true = Measures(tmp_path), hessian.spectrum(lenets, split)
    found = spectra.measured(measure, parts, split)
    assert found.frame.method.tolist() == ["SET", "SET", "RigL"] and found.frame.seed.tolist() == [0, 1, 2]
    assert all(torch.equal(a, b) for a, b in zip(found.values, true.values, strict=True))
    ends = spectra.measured(measure, parts, split, lanczos=25).ends()
    for end in ("smallest", "largest"):
        assert ends[end].tolist() == pytest.approx(true.ends()[end].tolist(), rel=1e-2, abs=1e-4)
    for name in ("spectrum", "lanczos"):
        monkeypatch.setattr(hessian, name, None)
    again = spectra.measured(measure, parts, split)
    assert all(torch.equal(a, b) for a, b in zip(again.values, found.values, strict=True))


def test_spectra_of_several_architectures_stand_where_their_networks_do(tmp_path, toy):
    """They are measured together with those that are alike, and told in the order of the populations."""
    one, other = (init.glorot_uniform(Model("lenet5", widths=(1, 1, 2, n)), range(2)) for n in (2, 3))
    sparse = prune.apply(one, prune.magnitude_masks_per_layer(one, 0.5))
    split, parts = toy.train.evenly(20), [one[:1], other, sparse, one[1:]]
    found = spectra.measured(Measures(tmp_path), [part.label(part=k) for k, part in enumerate(parts)], split)
    assert found.frame["part"].tolist() == [0, 1, 1, 2, 2, 3]
    alone = [values for part in parts for values in hessian.spectrum(part, split).values]
    assert all(torch.equal(a, b) for a, b in zip(found.values, alone, strict=True))


def test_estimates_after_several_steps_are_kept(tmp_path, toy, monkeypatch):
    networks = init.glorot_uniform(Model("lenet5"), [0, 1])
    true = hessian.lanczos_at(networks, toy.train, [2, 4], 2)
    found = spectra.estimated(Measures(tmp_path), networks, toy.train, [2, 4], 2)
    monkeypatch.setattr(hessian, "lanczos_at", None)  # which is not asked again
    again = spectra.estimated(Measures(tmp_path), networks.label(level=3), toy.train, [2, 4], 2)
    for one, other, third in zip(true, found, again, strict=True):
        for kind in ("values", "weights"):
            for a, b, c in zip(*(getattr(spectrum, kind) for spectrum in (one, other, third)), strict=True):
                assert torch.equal(a, b) and torch.equal(b, c)
    assert again[0].frame.level.tolist() == [3, 3]


def test_a_network_that_failed_has_no_spectrum_and_the_others_have(tmp_path, toy):
    lenets = init.glorot_uniform(Model("lenet5", widths=(1, 1, 2, 2)), range(3))
    theta = lenets.theta().clone()
    theta[1] = torch.nan
    failed = lenets.with_theta(theta)
    for lanczos in (None, 10):
        split, measure = toy.train.evenly(20), Measures(tmp_path)
        found = spectra.measured(measure, [failed, failed[[1]]], split, lanczos).ends()
        true = spectra.measured(measure, [lenets], split, lanczos).ends()
        assert found.smallest.isna().tolist() == [False, True, False, True]
        assert found.smallest[[0, 2]].tolist() == true.smallest[[0, 2]].tolist()


def test_before_and_after_an_update():
    table = pd.DataFrame({"after": ["nothing"] * 2 + ["SET"] * 2 + ["RigL"] * 2, "eigenvalue": [0.0, 1.0] * 3})
    figure, ax = plt.subplots()
    spectra.around(ax, table.assign(density=[0.1, 0.1, 0.2, 0.2, 0.3, 0.3]), "RigL")
    found = [(line.get_label(), line.get_ydata()[0]) for line in ax.lines]
    assert found == [("right before", 0.1), ("right after", 0.3)]
    plt.close(figure)


def test_factors_are_dots_around_their_geometric_mean():
    table = pd.DataFrame({"method": ["SET", "RigL", "RigL"], "step": [9, 9, 9], "factor": [1.0, 1.0, 4.0]})
    figure, ax = plt.subplots()
    spectra.factors(ax, table)
    means = [float(y) for line in ax.lines if line.get_marker() == "_" for y in line.get_ydata()]
    assert means == pytest.approx([1, 2])
    dots = [float(y) for found in ax.collections for _, y in found.get_offsets()]
    assert sorted(dots) == pytest.approx([1, 1, 4]) and 1 in ax.get_yticks()
    plt.close(figure)


def test_ends_in_words(spectrum):
    named = Spectrum(spectrum.frame.assign(after=["one", "two", "three"]), spectrum.values, spectrum.weights)
    table = spectra.ends_in_words({"exact": named, "by hand": named}).set_index("after")
    assert table.columns.tolist() == ["smallest, exact", "smallest, by hand", "largest, exact", "largest, by hand"]
    assert table.loc["one", ["smallest, exact", "largest, by hand"]].tolist() == ["-0.5", "200"]
