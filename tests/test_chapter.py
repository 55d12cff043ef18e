"""Networks that fail in training: told on the page, nan in every measure, left out of means and tests."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import toy_data
from matplotlib import pyplot as plt

from lth.analysis import hessian, landscape, lcs, learning, rounds, similarity, subspace, surface
from lth.analysis.activations import activation_sparsity
from lth.analysis.validation import Validation, best_epoch
from lth.book import CHAPTERS, claims, comparison, figures, runner, spectra
from lth.book.chapter import Chapter, failures
from lth.book.presets import parameters
from lth.data import Split
from lth.errors import LthError
from lth.files import ROOT
from lth.methods import init, prune, repulsion, sparse_init
from lth.methods.dst import DST
from lth.models import Model
from lth.population import classes, concat
from lth.store.runs import Store
from lth.training.losses import cross_entropy
from lth.training.plan import Probe
from lth.training.recipe import Recipe
from lth.training.train import train

DATA = toy_data()
FEW = Split(DATA.train.images[:20], DATA.train.labels[:20])
RATES = [0.05, 1e20, 0.05, 0.05]
FAILED = np.array([False, True, False, False])
HOW = Recipe(steps=6, batch_size=20)


def four(**columns: object):
    """Four networks, the second of which cannot be trained."""
    return init.glorot_uniform(Model("lenet5"), range(4), method="pruned", **columns).label(lr=RATES)


@pytest.fixture(scope="module")
def run():
    """A run in which it fails, with masks that change, a probe, and kept networks."""
    rule, look = prune.Gradual(0.8, 2, 4, 1), Probe(2, Validation())
    data = replace(DATA, validation=DATA.test)
    with pytest.warns(UserWarning, match="1 of 4 replicas failed"):
        return train(four(), data, HOW, updates={"pruned": rule}, probes=[look], keep=[0, 3])


# --- what has no number has no class ----------------------------------------------------------------------


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_are_no_class(strange):
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0], [strange] * 3, [1.0, strange, 0.0]])
    assert classes(logits).tolist() == [0, 1, -1, -1]


def test_logits_that_overflow_are_errors():
    """Weights that are numbers, of networks whose outputs are none: wrong, also where class 0 is right."""
    zeros = Split(DATA.test.images, torch.zeros_like(DATA.test.labels))
    huge = four().with_theta(four().theta() * 1e18)
    assert huge.sound().all()
    found = huge.evaluate(zeros)
    assert (found.error == 1).all() and (found.accuracy == 0).all() and not np.isfinite(found.loss).any()


def test_training_counts_them_as_errors_too(run):
    lost = run.history[(run.history.seed == 1) & (run.history.step > 2)]  # it fails in step 1
    assert run.failed == {1: 1} and lost.loss.isna().all() and (lost.accuracy == 0).all()
    logits = torch.full((20, 1, 10), math.nan)
    assert cross_entropy(logits, torch.zeros(20, 1, dtype=torch.int64)).isnan().all()


# --- a network that failed is nan ---------------------------------------------------------------------------


def test_a_run_without_its_failed_networks(run):
    left = run.without_failed()
    assert (left.final.sound() == ~FAILED).all() and (left.at(0).sound() == ~FAILED).all()
    for one, other in ((run.final, left.final), (run.at(3), left.at(3))):
        assert torch.equal(one.theta()[~FAILED], other.theta()[~FAILED]) and other.theta()[1].isnan().all()
    own = left.history.seed == 1
    assert left.history[own][["loss", "accuracy", "validation", "test"]].isna().all(axis=None)
    pd.testing.assert_frame_equal(left.history[~own], run.history[~own])
    assert left.history.step.equals(run.history.step)


def test_parameters_too_large_to_compute_with_have_failed():
    large = four().with_theta(four().theta() * torch.tensor([1.0, 1e25, 1.0, 1e10])[:, None])
    assert large.sound().tolist() == [True, False, True, True]
    with pytest.warns(UserWarning, match="2 of 4"):
        run = train(four().label(lr=[0.05, 1e20, 0.05, 1e25]), DATA, Recipe(steps=1, batch_size=20))
    assert run.failed == {1: 0, 3: 0}


def test_what_is_made_from_it_is_nan_too(run):
    final, fresh = run.without_failed().final, four()
    ticket = prune.rewind(final, fresh)
    scratch = sparse_init.normal(prune.rewind(final, fresh))
    smaller = prune.apply(final, prune.magnitude_masks(final, 0.5, per_layer=True))
    at_random = prune.apply(final, prune.masks_at_random(final, 0.2))
    grown = prune.apply(final, DST("gradient", 2, 6, block=50).masks(final, 2, DATA))
    pushed = lcs.perturb(final, [1.0, math.nan, 1.0, 1.0])
    for made in (ticket, scratch, smaller, at_random, grown, pushed):
        assert (made.sound() == ~FAILED).all()
    others = final[~FAILED]
    for made, same in ((ticket, prune.rewind(others, fresh[~FAILED])), (scratch, sparse_init.normal(others))):
        assert torch.equal(made.theta()[~FAILED], same.theta())
    one = prune.rewind(final[[1]], fresh)
    assert not one.sound().any()
    assert repulsion.of(smaller, [final], 2.0)(smaller.params, smaller.masks).isnan().tolist() == FAILED.tolist()


def measured(final) -> dict[str, np.ndarray]:
    """Everything that is measured of four networks, one number each."""
    other = prune.apply(final, prune.magnitude_masks(final, 0.3, per_layer=True))
    final = final.label(r=range(4))
    line = landscape.line(final, other, [0, 0.5, 1], DATA.test)
    flat = surface.filter_normalised(final)
    logits = final.logits(DATA.test)
    found = {name: final.evaluate(DATA.test)[name] for name in ("loss", "error", "accuracy")}
    found |= {"barrier": landscape.barrier(line, ["r"]).barrier, "map": similarity.mds(final).x}
    found["disagreement"] = similarity.disagreement(logits, logits[:1])[:, 0]
    found["jsd"] = similarity.jsd_pairs(logits, logits[:1])[:, 0]
    found["kl"] = similarity.kl(logits, logits[:1])[:, 0]
    found["distance"] = similarity.l2_distances(final, final[:1])[:, 0]
    found["angle"] = rounds.distances([final, other])[:, 0, 1]
    found["itself"] = rounds.distances([final, other])[:, 0, 0]
    found["matching"] = lcs.is_matching(final.evaluate(DATA.test).error, 0.5, 0.1)
    segments = lcs.segments(final, other, DATA.test, points=3)
    found |= {"stable": lcs.is_stable(segments, 0.1), "inside": lcs.in_lcs_set(segments, 0.1)}
    found["batches"] = lcs.batch_spread(final, DATA.train, 50)
    found["zeros"] = activation_sparsity(final, DATA.test).groupby("r").zeros.sum(min_count=1)
    found["around"] = surface.surface(final, flat, flat, [0.1], [0.1], DATA.test).error
    found["top"] = hessian.top(final, FEW, tolerance=0.5).values[:, 0]
    found["product"] = hessian.hvp(final, FEW, torch.ones_like(final.theta())).sum(1)
    found["lanczos"] = hessian.lanczos(final, FEW, 3).ends().largest
    return {name: np.asarray(values, float) for name, values in found.items()}


def test_every_measure_of_it_is_nan_and_of_the_others_as_without_it(run):
    final = run.without_failed().final
    with_it = measured(final)
    sound = measured(concat([final[:1], final[:1], final[2:]]))  # the same with another in its place
    for name, values in with_it.items():
        assert np.isnan(values).tolist() == FAILED.tolist(), name
        if name != "map":
            np.testing.assert_allclose(values[~FAILED], sound[name][~FAILED], rtol=1e-6, err_msg=name)


def test_groups_of_networks_leave_it_out(run):
    final, labels = run.without_failed().final, DATA.test.labels
    logits, others = final.logits(DATA.test), final[~FAILED].logits(DATA.test)
    assert similarity.answers(logits).tolist() == (~FAILED).tolist()
    assert similarity.ensemble_accuracy(logits, labels) == similarity.ensemble_accuracy(others, labels)
    assert torch.equal(similarity.jsd(logits), similarity.jsd(others))
    pd.testing.assert_frame_equal(similarity.among(logits, labels), similarity.among(others, labels))
    failed = logits[[1, 1]]
    assert math.isnan(similarity.ensemble_accuracy(failed, labels))


def test_histories_leave_it_out(run):
    history = run.without_failed().history
    best = best_epoch(history, ["seed"]).set_index("seed")
    assert best.test.isna().tolist() == FAILED.tolist() and sorted(best.index) == [0, 1, 2, 3]
    pd.testing.assert_frame_equal(best.drop(1), best_epoch(run.history, ["seed"]).set_index("seed").drop(1))
    table = pd.DataFrame({"seed": [0, 0, 1, 1], "step": [0, 5, 0, 5], "loss": [9.0, 0.1, math.nan, math.nan]})
    found = learning.summary(table.assign(gradient_flow=1.0), ["seed"], 5, 5, 10)
    assert found.onset.tolist()[0] == 5 and math.isnan(found.onset[1])


def test_figures_and_tables_leave_it_out():
    assert figures.t_interval([1.0, math.nan, 3.0, 2.0]) == figures.t_interval([1.0, 3.0, 2.0])
    assert all(map(math.isnan, figures.t_interval([math.nan])))
    networks = pd.DataFrame({"method": "Scratch", "init": "ours", "accuracy": [95.0, 96.0, math.nan, 97.0]})
    table = comparison.cell_by_cell(networks, "E2", "", "x").frame
    row = table.set_index(["method", "initial weights"]).loc[("Scratch", "ours")]
    assert row[["learn here", "those, 95 %"]].tolist() == ["3 of 3", "96.00 [93.52, 98.48]"]
    assert lcs.epsilon([1.0, math.nan, 2.0]) == lcs.epsilon([1.0, 2.0])
    losses, errors = np.array([[0.1, 0.2, 0.4], [0.3, 0.5, 0.6]]), np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 4.5]])
    both = (np.vstack([part, [math.nan] * 3]) for part in (losses, errors))
    spare = subspace.loss_to_spare(*both, 5.0)
    np.testing.assert_allclose(spare.gain[:2], subspace.loss_to_spare(losses, errors, 5.0).gain)
    assert math.isnan(spare.gain[2])


def test_spectra_leave_it_out(run):
    final = run.without_failed().final
    both, sound = (spectra.curves(hessian.lanczos(final[:n].label(group="all"), FEW, 3), ["group"]) for n in (2, 1))
    pd.testing.assert_frame_equal(both, sound)
    one = hessian.lanczos(final[:2], FEW, 3)
    with pytest.raises(LthError, match="all of them failed"):
        spectra.curves(hessian.Spectrum(one.frame[1:], one.values[1:], one.weights[1:]), ["seed"])


# --- on the page --------------------------------------------------------------------------------------------


def test_one_sentence_tells_them_method_by_method(run):
    assert failures(four(), run) == (
        f"Failed in training: 1 of 4 networks of method pruned (at step {run.failed[1]}). "
        "They, and what is made from them, are left out of means and tests."
    )
    assert failures(four().without(FAILED), run) == ""
    assert failures(four()[[0]], train(four()[[0]], DATA, HOW)) == ""


@pytest.fixture
def chapter(tmp_path, monkeypatch) -> Chapter:
    monkeypatch.setenv("LTH_OUT", str(tmp_path))
    monkeypatch.setenv("LTH_DEVICE", "cpu")
    from lth.book.presets import parameters

    chapter = Chapter("lt_basin", parameters("lt_basin", "smoke").model_dump())
    chapter.data = DATA
    return chapter


@pytest.mark.parametrize("steps, lr, says", [(2, 1e-6, True), (60, 0.05, False)])
def test_a_chapter_says_that_its_networks_only_guess(chapter, capsys, steps, lr, says):
    """Then claims have nothing to test, but who learns is still asked."""
    assert not chapter.guessing()  # nothing was trained
    population = init.glorot_uniform(Model("lenet5"), range(2), method="pruned")
    chapter.train(population, Recipe(steps=steps, batch_size=20, lr=lr))
    mean, share = "E8.closer", "E8.lt_barrier"
    asked = {claim.id: [1.0, 2.0, 3.0] for claim in claims.ledger().values() if claim.chapter == "lt_basin"}
    asked = {name: sample for name, sample in asked.items() if not claims.ledger()[name].needs}
    chapter.judge(asked | {share: [True, True, False]})
    assert ("All 2 networks of this chapter only guess" in capsys.readouterr().out) == says
    found = {entry["id"]: entry for entry in json.loads((chapter.out / "claims.json").read_text(encoding="utf-8"))}
    assert found[mean]["n"] == (0 if says else 3) and found[share]["n"] == 3


def test_a_chapter_trains_on_with_those_that_are_left(chapter, capsys):
    run = chapter.train(four(), HOW, keep=[0])
    assert (run.final.sound() == ~FAILED).all() and not run.at(0).sound()[1]
    assert "1 of 4 networks of method pruned" in capsys.readouterr().out
    with pytest.raises(LthError, match="^all 1 networks failed: .* A lower lr than"):
        chapter.train(four()[[1]], HOW)
    with pytest.raises(LthError, match="made from ones that failed"):
        chapter.train(run.final[[1]], HOW)


def test_tests_leave_out_what_is_no_number(chapter, monkeypatch):
    own = [claim for claim in claims.ledger().values() if claim.chapter == "lt_basin" and not claim.needs]
    samples = {claim.id: [[True] * 3] * 2 if claim.kind == "shares" else [1.0, 2.0, 4.0] for claim in own}
    some, none = [claim.id for claim in own if claim.kind == "mean"][:2]
    chapter.judge(samples | {some: [1.0, math.nan, 2.0, math.inf, 4.0], none: [math.nan, 3.0]})
    entries = json.loads((chapter.out / "claims.json").read_text(encoding="utf-8"))
    found = {entry["id"]: entry for entry in entries}
    assert (found[some]["n"], found[some]["left_out"]) == (3, 2) and found[some]["value"] == pytest.approx(7 / 3)
    assert (found[none]["n"], found[none]["outcome"]) == (0, "open")


def execute(tmp_path, **changed):
    values = runner.prepare(["lt_basin"], "smoke", {k: str(v) for k, v in changed.items()}, "cpu", tmp_path)["lt_basin"]
    how = {"preset": "smoke", "device": "cpu", "out": tmp_path, "deadline": None, "display": lambda *_: None}
    return runner.execute("lt_basin", values, **how)


@pytest.mark.thorough
def test_a_page_on_which_networks_failed(tmp_path, monkeypatch, capsys):
    """The first network of the first training has failed: the page says so, and each test has one unit less."""
    real, calls = Store.train, []

    def with_failure(self, population, *words, **kind):
        run = real(self, population, *words, **kind)
        calls.append(len(population))
        return replace(run, failed={0: 7, **run.failed}) if len(calls) == 1 else run

    monkeypatch.setattr(Store, "train", with_failure)
    monkeypatch.setenv("LTH_OUT", str(tmp_path))
    monkeypatch.setenv("LTH_DEVICE", "cpu")
    plt.switch_backend("agg")
    tiny = {"model": "lenet_300_100", "seeds": 4, "sparsity": 0.5, "points": 8, "steps": 90}
    scope = parameters("lt_basin", "smoke", tiny).model_dump()
    cells = nbformat.read(ROOT / CHAPTERS["lt_basin"], as_version=4).cells
    for cell in cells:
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", ()):
            exec(compile(cell.source, "the notebook", "exec"), scope)
    plt.close("all")
    assert "Failed in training: 1 of 4 networks" in capsys.readouterr().out
    found = {entry["id"]: entry for entry in json.loads((tmp_path / "claims.json").read_text(encoding="utf-8"))}
    assert found["E8.accuracy"]["n"] == 3 and found["E8.d_init"]["n"] == 3
    assert json.loads((tmp_path / "provenance.json").read_text(encoding="utf-8"))["chapter"] == "lt_basin"


@pytest.mark.thorough
def test_a_chapter_whose_networks_all_fail_ends_in_a_sentence(tmp_path):
    with pytest.raises(LthError, match=r"^lt_basin: all 3 networks failed: .* A lower lr than 1e\+20 may help$"):
        execute(tmp_path, lr=1e20)
    assert not (tmp_path / "lt_basin").exists()


@pytest.mark.parametrize("runner_is_there", [False, True])
def test_by_hand_a_figure_has_its_caption_below(tmp_path, monkeypatch, runner_is_there):
    """On the site a page puts it there, from the notebook that the runner executes."""
    monkeypatch.setenv("LTH_OUT", str(tmp_path / "lt_basin"))
    if runner_is_there:
        monkeypatch.setenv("LTH_CONTROL", str(tmp_path))
    shown = []
    monkeypatch.setattr("lth.book.chapter.get_ipython", lambda: True)
    monkeypatch.setattr("lth.book.chapter.display", lambda thing: shown.append(thing.data))
    chapter = Chapter("lt_basin", parameters("lt_basin", "smoke").model_dump())
    figure, _ = plt.subplots()
    chapter.save("distances", pd.DataFrame({"x": [1]}), figure)
    chapter.save("barriers", pd.DataFrame({"x": [1]}))
    picture, *words = shown
    assert picture == (tmp_path / "lt_basin" / "figures" / "distances.png").read_bytes()
    assert not plt.get_fignums()  # or the notebook shows it a second time
    assert len(words) == (not runner_is_there)
    assert all(text.startswith("Distance to the pruning solution") and "distances.csv" in text for text in words)
