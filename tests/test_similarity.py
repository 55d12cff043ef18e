"""Distances, divergences, disagreement and ensembles against numpy, scipy and plain loops."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from conftest import double
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr, softmax
from torch import Tensor

from lth.analysis import similarity
from lth.errors import UsageError
from lth.methods import prune
from lth.methods.init import glorot_uniform
from lth.models import Model
from lth.population import Population


def random_logits(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def ours() -> Tensor:
    """Four networks, 30 examples, 5 classes; the first two agree on most."""
    logits = random_logits(4, 30, 5)
    logits[1] = logits[0] + 0.3 * logits[1]
    return logits


@pytest.fixture
def theirs() -> Tensor:
    return random_logits(3, 30, 5, seed=1)


LABELS = torch.randint(5, (30,), generator=torch.Generator().manual_seed(2))


def p(logits: Tensor) -> np.ndarray:
    return softmax(logits.double().numpy(), axis=-1)


def test_l2_distances(lenets):
    others = glorot_uniform(Model("lenet5"), seeds=[5, 6])
    measured = similarity.l2_distances(lenets, others)
    for r in range(3):
        for s in range(2):
            pairs = [
                (a[r].double().numpy(), others.params[name][s].double().numpy()) for name, a in lenets.params.items()
            ]
            expected = np.sqrt(sum(np.sum((a - b) ** 2) for a, b in pairs))
            assert measured[r, s].item() == pytest.approx(expected, rel=1e-12)
    assert torch.all(similarity.l2_distances(lenets, lenets).diagonal() == 0)


def test_small_distances_between_large_networks_are_exact():
    """Distances as ‖a‖² + ‖b‖² − 2ab would lose them."""
    network = double(glorot_uniform(Model("lenet5"), seeds=[0]))
    near = network.with_theta(network.theta() * 100 + 1e-7)
    far = network.with_theta(network.theta() * 100)
    assert similarity.l2_distances(near, far).item() == pytest.approx(1e-7 * np.sqrt(44_426), rel=1e-5)


def test_disagreement(ours, theirs):
    measured = similarity.disagreement(ours, theirs)
    for r in range(4):
        for s in range(3):
            differ = [int(ours[r, i].argmax() != theirs[s, i].argmax()) for i in range(30)]
            assert measured[r, s].item() == pytest.approx(sum(differ) / 30)


def test_kl(ours, theirs):
    measured = similarity.kl(ours, theirs)
    for r in range(4):
        for s in range(3):
            expected = rel_entr(p(ours)[r], p(theirs)[s]).sum(-1).mean()
            assert measured[r, s].item() == pytest.approx(expected, rel=1e-10)
    assert similarity.kl(ours, ours).diagonal().tolist() == [0] * 4
    assert not torch.allclose(measured[:3], similarity.kl(theirs, ours)[:, :3])


def test_kl_of_very_sure_networks_is_finite():
    sure = torch.tensor([[[200.0, 0.0]], [[0.0, 200.0]]])
    assert similarity.kl(sure, sure).tolist() == [[0, 200], [200, 0]]


def test_jsd_of_pairs(ours, theirs):
    measured = similarity.jsd_pairs(ours, theirs)
    assert measured.shape == (4, 3)
    for r in range(4):
        for s in range(3):
            expected = np.mean([jensenshannon(a, b) ** 2 for a, b in zip(p(ours)[r], p(theirs)[s], strict=True)])
            assert measured[r, s].item() == pytest.approx(expected, rel=1e-9)


def test_jsd_of_many_is_the_mean_divergence_from_their_mean(ours):
    mean = p(ours).mean(0)
    expected = np.mean([rel_entr(row, mean).sum(-1).mean() for row in p(ours)])
    assert similarity.jsd(ours).item() == pytest.approx(expected, rel=1e-10)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 6), st.integers(2, 12), st.floats(0, 50), st.integers(0, 1000))
def test_the_jsd_of_r_networks_lies_between_0_and_log_r(networks, classes, scale, seed):
    divergence = similarity.jsd(random_logits(networks, 4, classes, seed=seed, scale=scale)).item()
    assert -1e-12 <= divergence <= np.log(networks) + 1e-12


def test_the_bounds_of_the_jsd_are_met():
    same = random_logits(1, 9, 4).expand(3, 9, 4)
    apart = 1000 * torch.eye(3)[:, None, :].expand(3, 9, 3)
    assert similarity.jsd(same).item() == pytest.approx(0, abs=1e-15)
    assert similarity.jsd(apart).item() == pytest.approx(np.log(3))


def test_the_ensemble_takes_the_mean_of_the_probabilities(ours):
    hits = [int(np.mean([p(ours)[r, i] for r in range(4)], axis=0).argmax() == LABELS[i]) for i in range(30)]
    assert similarity.ensemble_accuracy(ours, LABELS) == pytest.approx(sum(hits) / 30)
    # one sure network outweighs two unsure ones, as it would not in a vote
    logits = torch.tensor([[[9.0, 0.0]], [[0.0, 0.1]], [[0.0, 0.1]]])
    assert similarity.ensemble_accuracy(logits, torch.tensor([0])) == 1


def test_a_group_is_measured_over_unordered_pairs(ours):
    table = similarity.among(ours, LABELS).set_index("measure")
    q, classes = p(ours), p(ours).argmax(-1)
    pairs = list(combinations(range(4), 2))
    accuracies = [100 * np.mean(row == LABELS.numpy()) for row in classes]
    differ = [np.mean(classes[a] != classes[b]) for a, b in pairs]
    divergences = [(rel_entr(q[a], q[b]).sum(-1).mean() + rel_entr(q[b], q[a]).sum(-1).mean()) / 2 for a, b in pairs]
    for measure, sample in (("accuracy", accuracies), ("pairwise disagreement", differ), ("pairwise KL", divergences)):
        row = table.loc[measure]
        assert (row.value, row.spread, row.n) == pytest.approx((np.mean(sample), np.std(sample, ddof=1), len(sample)))
    assert table.value["ensemble"] == pytest.approx(100 * np.mean(q.mean(0).argmax(-1) == LABELS.numpy()))
    assert table.value["JSD of all"] == pytest.approx(similarity.jsd(ours).item())


def test_a_group_against_one_network(ours, theirs):
    one = theirs[:1]
    table = similarity.against(ours, one).set_index("measure")
    q, reference = p(ours), p(one)[0]
    differ = [np.mean(row.argmax(-1) != reference.argmax(-1)) for row in q]
    kl = [(rel_entr(row, reference).sum(-1).mean() + rel_entr(reference, row).sum(-1).mean()) / 2 for row in q]
    jsd = [np.mean([jensenshannon(a, b) ** 2 for a, b in zip(row, reference, strict=True)]) for row in q]
    for measure, sample in zip(("disagreement", "KL", "JSD"), (differ, kl, jsd), strict=True):
        row = table.loc[f"{measure} with pruned"]
        assert (row.value, row.spread, row.n) == pytest.approx((np.mean(sample), np.std(sample, ddof=1), 4), rel=1e-9)


@pytest.fixture
def knowing() -> Tensor:
    """Three networks that know 200 labels to different degrees, the first hardly."""
    logits = random_logits(3, 200, 5)
    logits[:, torch.arange(200), MORE_LABELS] += torch.tensor([[0.2], [1.0], [3.0]])
    return logits


MORE_LABELS = torch.randint(5, (200,), generator=torch.Generator().manual_seed(2))


def test_calibration_finds_the_factor_of_least_cross_entropy(knowing):
    def loss(factor: float, r: int) -> float:
        return -np.log(p(factor * knowing[r].double())[np.arange(200), MORE_LABELS.numpy()]).mean()

    found = similarity.calibrated(knowing, MORE_LABELS)
    for r in range(3):
        best = minimize_scalar(lambda log, r=r: loss(math.exp(log), r), bounds=(-6.9, 6.9), method="bounded").x
        factor = (found[r] / knowing[r].double()).flatten()
        assert factor.max() - factor.min() < 1e-9
        assert loss(factor[0].item(), r) <= loss(math.exp(best), r) + 1e-9


def test_what_is_compared_after_calibration_does_not_change_when_a_network_halves_its_logits(knowing):
    reference = random_logits(1, 200, 5, seed=3) + knowing[2:]
    told = {}
    for name, logits in (("whole", knowing), ("half", knowing / 2)):
        scaled = [similarity.calibrated(x, MORE_LABELS) for x in (logits, reference)]
        for kind, pair in (("plain", (logits, reference)), ("calibrated", scaled)):
            told[name, kind] = similarity.against(*pair).set_index("measure").value
    for measure in ("KL with pruned", "JSD with pruned"):
        assert abs(told["half", "plain"][measure] / told["whole", "plain"][measure] - 1) > 0.05
        assert told["half", "calibrated"][measure] == pytest.approx(told["whole", "calibrated"][measure], rel=1e-6)
    assert len({table["disagreement with pruned"] for table in told.values()}) == 1


def test_groups_are_measured_as_if_each_were_alone(lenets, toy):
    networks = lenets.repeat(3).label(of=[7, 3, 7, 3, 7, 3, 7, 3, 7], method=["a"] * 5 + ["b"] * 4)
    networks = networks.with_theta(networks.theta() * (1 + torch.arange(9)[:, None]))
    references, learned = lenets[:2].label(of=[3, 7]), [True, True, True, True, False, False, True, False, True]
    found = similarity.in_groups(networks, toy.test, ["of", "method"], references, learned)
    table = found.set_index(["of", "method", "measure"]).value.sort_index()
    logits, labels = networks.logits(toy.test), toy.test.labels
    for (of, method), rows in {(7, "a"): [0, 2], (3, "a"): [1, 3], (7, "b"): [6, 8]}.items():
        reference = references.logits(toy.test)[[int(of == 7)]]
        group, alone = similarity.among(logits[rows], labels), similarity.against(logits[rows], reference)
        for measure, value in zip([*group.measure, *alone.measure], [*group.value, *alone.value], strict=True):
            if (of, method) == (7, "a") and measure in set(group.measure) - {"accuracy"}:  # one of three is left out
                value = math.nan
            assert table[of, method, measure] == pytest.approx(value, nan_ok=True), (of, method, measure)
        scaled = similarity.against(*(similarity.calibrated(x, labels) for x in (logits[rows], reference)))
        assert table[of, method, "KL with pruned, calibrated"] == pytest.approx(scaled.value[1])
    assert table[3, "b"].isna().all() and set(table[3, "b"].index) == set(table[3, "a"].index)
    plain = similarity.in_groups(networks, toy.test, ["of", "method"])
    assert plain.value.notna().all() and set(plain.measure) == set(similarity.among(logits, labels).measure)


# --- multidimensional scaling -------------------------------------------------------------------------------


def planted(points: np.ndarray) -> Population:
    """Networks whose parameters lie in a plane: `points` along two orthogonal directions of the weight space."""
    network = double(glorot_uniform(Model("lenet5"), seeds=[0])).repeat(len(points)).label(seed=range(len(points)))
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(44_426, 2)))[0]
    return network.with_theta(network.theta() + torch.from_numpy(points @ directions.T))


def test_the_map_recovers_points_of_a_plane():
    points = np.random.default_rng(1).uniform(-10, 10, (9, 2))
    table = similarity.mds(planted(points))
    assert table.seed.tolist() == list(range(9))
    assert table.stress.nunique() == 1 and 0 <= table.stress[0] < 5e-3
    found = table[["x", "y"]].to_numpy()
    found, points = found - found.mean(0), points - points.mean(0)
    u, _, v = np.linalg.svd(found.T @ points)  # the best rotation or reflection (orthogonal Procrustes)
    np.testing.assert_allclose(found @ u @ v, points, atol=0.1)


def test_the_map_depends_on_its_seed_alone():
    population = planted(np.random.default_rng(2).uniform(-1, 1, (5, 2)))
    first = similarity.mds(population)
    np.random.seed(3)
    assert first.equals(similarity.mds(population))


def test_stress_tells_of_a_map_that_cannot_be_right(lenets):
    """A regular simplex of many corners has no place in the plane; stress-1 from its definition."""
    population = glorot_uniform(Model("lenet5"), seeds=range(7))
    table = similarity.mds(population)
    apart = similarity.l2_distances(population, population).numpy()
    drawn = np.linalg.norm(table[["x", "y"]].to_numpy()[:, None] - table[["x", "y"]].to_numpy()[None], axis=-1)
    expected = np.sqrt(((apart - drawn) ** 2).sum() / (drawn**2).sum())
    assert table.stress[0] == pytest.approx(expected, rel=0.02) and expected > 0.2


def test_overlap_of_masks_counted_one_by_one(lenets):
    a, b = (prune.apply(lenets, prune.masks_at_random(lenets, [0.3, 0.8, 0.9], number)) for number in (0, 1))
    found = similarity.overlap(a, b)
    assert list(found.seed) == [0, 1, 2]
    for r in range(3):
        kept = {n: np.flatnonzero(m[r].numpy()) for n, m in a.masks.items()}
        shared = sum(len(np.intersect1d(kept[n], np.flatnonzero(b.masks[n][r].numpy()))) for n in kept)
        assert found.overlap[r] == pytest.approx(shared / sum(map(len, kept.values())))
    assert found.chance.to_numpy() == pytest.approx([0.7, 0.2, 0.1], abs=0.02)
    assert abs(found.overlap - found.chance).max() < 0.02
    assert (similarity.overlap(a, a).overlap == 1).all()
    with pytest.raises(UsageError, match="replica by replica"):
        similarity.overlap(a, b[[0]])


def test_overlaps_by_name(lenets):
    masks = {str(number): prune.masks_at_random(lenets, 0.5, number) for number in range(3)}
    found = similarity.overlaps(lenets, masks, "1").set_index(["masks", "seed"]).overlap
    assert (found["1"] == 1).all()
    one, other = (prune.apply(lenets, masks[name]) for name in "12")
    assert found["2"].tolist() == similarity.overlap(one, other).overlap.tolist()
