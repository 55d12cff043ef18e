"""Masked Hessians against torch.func, PyHessian and matrices whose spectrum is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import double
from hypothesis import given
from hypothesis import strategies as st
from pyhessian import hessian as PyHessian
from torch.func import functional_call
from torch.nn import functional as F

from lth.analysis import hessian, hessian_matrix
from lth.analysis.hessian import Spectrum
from lth.analysis.lanczos import krylov
from lth.data import Split
from lth.errors import UsageError
from lth.methods import prune
from lth.methods.init import glorot_uniform
from lth.models import Model
from lth.population import Population

MLP = Model("lenet_300_100", (1, 4, 4), 3, widths=(8, 6))
SMOOTH = Model("lenet_300_100", (1, 4, 4), 3, "swish", widths=(8, 6))
CONV = Model("lenet5", (1, 16, 16), 4, widths=(2, 3, 5, 4))
CONV_MISH = Model("lenet5", (1, 16, 16), 4, "mish", widths=(2, 3, 5, 4))
RESNET = Model("resnet8", (1, 8, 8), 3, "swish", affine=False)


def images(model: Model, count: int = 37) -> Split:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (count, *model.shape), generator=generator, dtype=torch.uint8)
    return Split(pixels, torch.randint(model.classes, (count,), generator=generator))


def networks(model: Model, sparsity: float, replicas: int = 2) -> Population:
    """Float64 networks, each with its own mask, with biases and batch-norm statistics that are not trivial."""
    population = double(glorot_uniform(model, seeds=range(replicas)))
    generator = torch.Generator().manual_seed(5)
    theta = population.theta()
    population = population.with_theta(theta + 0.1 * torch.randn(theta.shape, generator=generator).double())
    buffers = {n: b.double() + torch.rand(b.shape, generator=generator) for n, b in population.buffers.items()}
    masks = prune.magnitude_masks_per_layer(population, sparsity)
    return prune.apply(replace(population, buffers=buffers), masks)


def reference(population: Population, r: int, split: Split) -> torch.Tensor:
    """The Hessian by torch, with the active parameters of replica r as the only variables."""
    module, theta = population.module(r).eval(), population.theta()[r]
    places = population.theta_mask()[r].nonzero()[:, 0]
    shapes = {name: p.shape for name, p in module.named_parameters()}
    pixels = split.pixels(torch.arange(len(split))).double()

    def loss(active: torch.Tensor) -> torch.Tensor:
        parts = torch.zeros_like(theta).index_add(0, places, active).split([s.numel() for s in shapes.values()])
        named = {name: part.view(s) for (name, s), part in zip(shapes.items(), parts, strict=True)}
        return F.cross_entropy(functional_call(module, named, pixels), split.labels)

    if population.model == RESNET:  # for which torch.func takes a minute
        return torch.autograd.functional.hessian(loss, theta[places])
    return torch.func.hessian(loss)(theta[places])


# --- all entries ----------------------------------------------------------------------------------------------

CASES = [(MLP, 0.5), (MLP, 0.0), (SMOOTH, 0.7), (CONV, 0.5), (CONV_MISH, 0.7), (RESNET, 0.9992)]


@pytest.mark.parametrize("model, sparsity", CASES, ids=lambda case: case.name if isinstance(case, Model) else case)
def test_all_entries_are_those_of_torch(model, sparsity, monkeypatch):
    monkeypatch.setattr(hessian, "ENTRIES", {"cpu": 1})  # two blocks of images
    monkeypatch.setattr(hessian_matrix, "LIMIT", {"cpu": 1000})  # and several of neurons
    population, split = networks(model, sparsity), images(model, 19)
    found = list(hessian.exact(population, split))
    for r, matrix in enumerate(found):
        expected = reference(population, r, split)
        assert matrix.shape == expected.shape == (int(population.theta_mask()[r].sum()),) * 2
        torch.testing.assert_close(matrix, expected, rtol=0, atol=1e-10)
        assert torch.equal(matrix, matrix.mT)
    assert found[0].abs().max() > 1e-3


def test_layers_and_neurons_without_weights():
    population = networks(MLP, 0.5, replicas=1)
    masks = {n: m.clone() for n, m in population.masks.items()}
    masks["fc1.weight"][:, :3] = False
    masks["fc2.weight"][:] = False
    population, split = prune.apply(population, masks), images(MLP)
    [matrix] = hessian.exact(population, split)
    torch.testing.assert_close(matrix, reference(population, 0, split), rtol=0, atol=1e-10)


def test_single_precision_is_enough():
    population, split = networks(CONV, 0.5, replicas=1), images(CONV)
    [true] = hessian.spectrum(population, split).values
    single = population.with_theta(population.theta().float())
    single = replace(single, buffers={n: b.float() for n, b in single.buffers.items()})
    [close] = hessian.spectrum(single, split).values
    assert close.dtype == torch.float64
    torch.testing.assert_close(close, true, rtol=0, atol=1e-6 * float(true.abs().max()))


def test_pruned_weights_add_no_zeros():
    population, split = networks(SMOOTH, 0.7), images(SMOOTH)
    spectrum = hessian.spectrum(population, split)
    for r, values in enumerate(spectrum.values):
        mask, replica = population.theta_mask()[r], population[[r]]
        assert len(values) == mask.sum() < len(mask)
        # with the pruned weights as variables: the masked product, column by column
        columns = [hessian.hvp(replica, split, unit[None])[0] for unit in torch.eye(len(mask)).double()]
        everything = torch.linalg.eigvalsh(torch.stack(columns))
        zeros = torch.zeros(len(mask) - len(values), dtype=torch.float64)
        torch.testing.assert_close(everything, torch.cat([values, zeros]).sort().values, rtol=0, atol=1e-12)


# --- products -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model, sparsity", [(MLP, 0.5), (CONV, 0.7)], ids=["mlp", "conv"])
def test_products_are_those_with_the_matrix(model, sparsity, monkeypatch):
    monkeypatch.setattr(hessian, "PRODUCT", {"cpu": 1})
    population, split = networks(model, sparsity), images(model)
    v = torch.randn(population.theta().shape, generator=torch.Generator().manual_seed(0)).double()
    found = hessian.hvp(population, split, v)
    monkeypatch.setattr(hessian, "KEPT", {"cpu": 0})
    assert torch.equal(found, hessian.hvp(population, split, v))  # with or without room for graphs
    for r, matrix in enumerate(hessian.exact(population, split)):
        mask = population.theta_mask()[r]
        torch.testing.assert_close(found[r][mask], matrix @ v[r][mask], rtol=0, atol=1e-12)
        assert torch.all(found[r][~mask] == 0)


def test_products_of_a_network_with_batch_norm():
    model = Model("resnet20", (3, 8, 8), 3)
    population, split = networks(model, 0.9, replicas=2), images(model, 5)
    v = torch.randn(population.theta().shape, generator=torch.Generator().manual_seed(0)).double()
    found = hessian.hvp(population, split, v)
    for r in range(2):
        module = population.module(r).eval()
        params, mask = list(module.parameters()), population.theta_mask()[r]
        loss = F.cross_entropy(module(split.pixels(torch.arange(5)).double()), split.labels)
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, params, create_graph=True)])
        product = torch.autograd.grad(gradient @ (v[r] * mask), params)
        expected = torch.cat([p.flatten() for p in product]) * mask
        torch.testing.assert_close(found[r], expected, rtol=0, atol=1e-10 * float(expected.abs().max()))


@pytest.mark.parametrize("model", [MLP, CONV, RESNET], ids=lambda model: model.name)
def test_the_stacked_network_gives_the_same_products(model):
    population, split = networks(model, 0.5, replicas=3), images(model, 9)
    v = torch.randn(2, *population.theta().shape, generator=torch.Generator().manual_seed(0)).double()
    together = hessian._products(population, split)(v)  # as on a GPU
    for vectors, found in zip(v, together, strict=True):
        torch.testing.assert_close(found, hessian.hvp(population, split, vectors), rtol=0, atol=1e-12)


def test_pyhessian_agrees_on_dense_networks():
    population, split = glorot_uniform(MLP, seeds=[0, 1]), images(MLP, 60)
    top = hessian.top(population, split, tolerance=1e-5).values
    for r, matrix in enumerate(hessian.exact(population, split)):
        with torch.random.fork_rng():
            torch.manual_seed(r)
            data = split.images / 255, split.labels
            theirs = PyHessian(population.module(r), F.cross_entropy, data=data, cuda=False)
            [largest], _ = theirs.eigenvalues(maxIter=2000, tol=1e-7)
            estimates = np.array(theirs.trace(maxIter=400, tol=-1))  # with this tolerance it does not stop early
        assert len(estimates) == 400
        assert float(top[r, 0]) == pytest.approx(largest, rel=1e-3)
        error = estimates.std(ddof=1) / np.sqrt(len(estimates))
        assert float(matrix.trace()) == pytest.approx(estimates.mean(), abs=4 * error)


# --- Lanczos --------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=8), st.integers(1, 8))
def test_krylov_of_diagonal_matrices(eigenvalues, steps):
    """Also where eigenvalues are equal, so that the vectors run out."""
    diagonal = torch.tensor([eigenvalues, [-value for value in eigenvalues]]).double()
    start = torch.ones_like(diagonal)
    steps = min(steps, len(eigenvalues))
    *_, space = krylov(lambda v: diagonal * v, start, steps)
    values, vectors = space.ritz()
    weights, distinct = vectors[..., 0].square(), len(set(eigenvalues))
    torch.testing.assert_close(weights.sum(1), torch.ones(2).double())
    assert torch.all(values.amin(1) >= diagonal.amin(1) - 1e-9) and torch.all(values.amax(1) <= diagonal.amax(1) + 1e-9)
    for power in range(2 * min(steps, distinct)):  # Gauss quadrature
        torch.testing.assert_close((weights * values**power).sum(1), (diagonal**power).mean(1), rtol=1e-6, atol=1e-6)


def test_lanczos_finds_the_ends_of_the_exact_spectrum():
    population, split = networks(CONV, 0.5), images(CONV)
    true, found = hessian.spectrum(population, split), hessian.lanczos(population, split, steps=60, probes=2)
    for column in ("smallest", "largest"):
        np.testing.assert_allclose(found.ends()[column], true.ends()[column], rtol=0, atol=1e-9)
    assert [len(values) for values in found.values] == [120, 120]
    for weights in found.weights:
        assert weights.min() >= 0 and float(weights.sum()) == pytest.approx(1)


def test_half_of_the_steps_are_those_of_a_shorter_run():
    population, split = networks(CONV, 0.5), images(CONV)
    half, full = hessian.lanczos_at(population, split, [8, 16], probes=2)
    for found, steps in ((half, 8), (full, 16)):
        alone = hessian.lanczos(population, split, steps, probes=2)
        for a, b in zip((*found.values, *found.weights), (*alone.values, *alone.weights), strict=True):
            assert torch.equal(a, b)


def test_too_many_steps_for_the_memory_are_refused_beforehand(monkeypatch):
    population = networks(CONV, 0.5)
    hessian.check_room(population, 100)
    monkeypatch.setattr(hessian.os, "sysconf", lambda name: 1000)  # a megabyte
    with pytest.raises(UsageError, match=r"9000 steps of Lanczos on .* take fewer steps"):
        hessian.check_room(population, 9000)


@pytest.mark.parametrize("negative", [False, True], ids=["largest", "smallest"])
def test_top_eigenpairs(negative):
    population, split = networks(CONV_MISH, 0.5), images(CONV_MISH)
    found = hessian.top(population, split, k=3, negative=negative, tolerance=1e-9)
    for r, matrix in enumerate(hessian.exact(population, split)):
        mask = population.theta_mask()[r]
        values, vectors = torch.linalg.eigh(matrix)
        order = [0, 1, 2] if negative else [-1, -2, -3]
        torch.testing.assert_close(found.values[r], values[order], rtol=0, atol=1e-9)
        assert torch.all(found.vectors[r][:, ~mask] == 0)
        overlap = (found.vectors[r][:, mask] @ vectors[:, order]).abs()
        torch.testing.assert_close(overlap, torch.eye(3).double(), rtol=0, atol=1e-6)


def test_where_the_vectors_run_out_no_eigenpair_is_made_up(monkeypatch):
    """Two different eigenvalues give two eigenpairs, whatever else is asked for."""
    population, split = networks(MLP, 0.5, replicas=1), images(MLP)
    mask = population.theta_mask()
    diagonal = torch.where(torch.arange(mask.shape[1]) % 7 == 0, 10.0, -1.0).double() * mask
    monkeypatch.setattr(hessian, "_products", lambda *what: lambda v: diagonal * v)
    with pytest.warns(UserWarning, match="1 of 3 eigenpairs"):
        found = hessian.top(population, split, k=3, steps=20)
    torch.testing.assert_close(found.values[0, :2], torch.tensor([10.0, -1.0]).double(), rtol=0, atol=1e-9)
    assert found.values[0, 2].isnan() and torch.all(found.vectors[0, 2].abs() < 1e-6)
    torch.testing.assert_close(found.vectors[0, :2].norm(dim=1), torch.ones(2).double())


def test_residuals_are_what_they_say_and_a_poor_result_is_told():
    population, split = networks(CONV, 0.5), images(CONV)
    with pytest.warns(UserWarning, match="after 6 steps of Lanczos 2 of 4 eigenpairs are less accurate than 0.001"):
        found = hessian.top(population, split, k=2, steps=6)
    for k in range(2):
        product = hessian.hvp(population, split, found.vectors[:, k])
        residuals = (product - found.values[:, [k]] * found.vectors[:, k]).norm(dim=1)
        torch.testing.assert_close(found.residuals[:, k], residuals, rtol=1e-6, atol=1e-12)


def test_replicas_do_not_depend_on_each_other():
    population, split = networks(CONV, 0.5, replicas=3), images(CONV)
    alone = population[[2]]
    assert torch.equal(
        hessian.lanczos(population, split, steps=9).values[2], hessian.lanczos(alone, split, steps=9).values[0]
    )
    for together, single in zip(hessian.top(population, split), hessian.top(alone, split), strict=True):
        assert torch.equal(together[2], single[0])
    assert torch.equal(list(hessian.exact(population, split))[2], next(hessian.exact(alone, split)))


def test_other_seeds_are_other_vectors():
    population, split = networks(MLP, 0.5, replicas=1), images(MLP)
    draws = [hessian.lanczos(population, split, steps=3, seed=seed).values[0] for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


# --- densities ------------------------------------------------------------------------------------------------


def test_the_density_of_known_spectra():
    frame = glorot_uniform(MLP, seeds=[4, 9], method="SET").frame
    values = [torch.tensor([0.0, 2.0]).double(), torch.tensor([1.0]).double()]
    weights = [torch.tensor([0.25, 0.75]).double(), torch.tensor([1.0]).double()]
    table = Spectrum(frame, values, weights).density(grid=np.linspace(-3, 5, 801), width=0.5)
    assert table.groupby("seed").size().to_dict() == {4: 801, 9: 801} and set(table.method) == {"SET"}
    bell = lambda x: np.exp(-2 * x**2) * 2 / np.sqrt(2 * np.pi)  # noqa: E731
    for seed, expected in ((4, lambda x: 0.25 * bell(x) + 0.75 * bell(x - 2)), (9, lambda x: bell(x - 1))):
        rows = table[table.seed == seed]
        np.testing.assert_allclose(rows.density, expected(rows.eigenvalue), rtol=1e-12)


@given(
    st.lists(st.lists(st.floats(-50, 50), min_size=1, max_size=6), min_size=1, max_size=3),
    st.one_of(st.none(), st.floats(0.1, 3)),
)
def test_densities_integrate_to_one(spectra, width):
    frame = glorot_uniform(MLP, seeds=range(len(spectra))).frame
    values = [torch.tensor(values).double() for values in spectra]
    table = Spectrum(frame, values, [torch.full_like(v, 1 / len(v)) for v in values]).density(width=width)
    for _, rows in table.groupby("seed"):
        assert rows.density.sum() * np.diff(rows.eigenvalue).mean() == pytest.approx(1, abs=1e-6)


def test_the_density_by_lanczos_is_close_to_the_exact_one():
    population, split = networks(CONV, 0.3), images(CONV)
    true, found = hessian.spectrum(population, split), hessian.lanczos(population, split, steps=30, probes=20)
    width = float(true.ends().largest.max()) / 20
    grid = np.arange(-20, 40) * width
    exact, estimate = true.density(grid, width), found.density(grid, width)
    assert (exact.eigenvalue == estimate.eigenvalue).all()
    for r in range(2):
        rows = exact.seed == r
        assert (exact.density - estimate.density)[rows].abs().sum() * width < 0.1
        assert exact.density[rows].max() * width < 0.5  # more than one peak of Gaussian width


# --- what cannot be -------------------------------------------------------------------------------------------


def test_too_many_parameters_for_an_exact_hessian(lenets, toy):
    for ask in (hessian.exact, hessian.spectrum):
        with pytest.raises(UsageError, match=r"44,426 active parameters.*lth\.analysis\.hessian\.lanczos"):
            ask(lenets, toy.train)


def test_what_has_no_hessian_is_refused():
    population, split = networks(MLP, 0.5), images(MLP)
    v, active = population.theta(), int(population.theta_mask()[0].sum())
    empty = Split(split.images[:0], split.labels[:0])
    for ask in (hessian.exact, hessian.lanczos, hessian.top):
        with pytest.raises(UsageError, match="no images"):
            ask(population, empty)
    with pytest.raises(UsageError, match=r"made for \(1, 4, 4\) images, the split has \(1, 16, 16\)"):
        hessian.hvp(population, images(CONV), v)
    with pytest.raises(UsageError, match="one vector for each replica"):
        hessian.hvp(population, split, v[0])
    with pytest.raises(UsageError, match=f"1 to {active} steps"):
        hessian.lanczos(population, split, steps=active + 1)
    with pytest.raises(UsageError, match="1 probe"):
        hessian.lanczos(population, split, steps=2, probes=0)
    with pytest.raises(UsageError, match="3 steps of Lanczos give 1 to 3 eigenpairs, not 4"):
        hessian.top(population, split, k=4, steps=3)
    with pytest.raises(UsageError, match="all of them failed"):
        hessian.lanczos(population.without(np.array([True, True])), split)
