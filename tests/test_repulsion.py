"""The repulsion penalty against the formula written out, and in training."""

from __future__ import annotations

import pytest
import torch
from conftest import double

from lth.errors import UsageError
from lth.methods import init, prune, repulsion
from lth.models import Model
from lth.population import Population
from lth.training.recipe import Recipe
from lth.training.train import train

MODEL = Model("lenet_300_100", (1, 4, 4), 3, widths=(7, 5))


@pytest.fixture
def rounds() -> list[Population]:
    """Three rounds with nested masks, float64; biases are not zero."""
    found = []
    for level in range(3):
        dense = double(init.kaiming_normal(MODEL, seeds=[10 * level, 10 * level + 1]))
        dense = dense.with_theta(dense.theta() + 0.1)
        masks = prune.magnitude_masks(found[-1] if found else dense, 0.3)
        found.append(prune.apply(dense, masks))
    return found


def written_out(theta: torch.Tensor, mask: torch.Tensor, optima: list[torch.Tensor], strength: float) -> torch.Tensor:
    """[M, Sec. 3], of one replica's prunable weights."""
    terms = []
    for other in optima:
        a, b = theta * mask, other * mask
        terms.append((a @ b / (a.norm() * b.norm())) ** 2)
    return strength * sum(terms) / len(terms)


def flat(population: Population, r: int, kind: str) -> torch.Tensor:
    return torch.cat([getattr(population, kind)[n][r].flatten() for n in population.masks])


@pytest.mark.parametrize("strength", [2.0, -1.0])
def test_value_and_gradient_are_those_of_the_formula(rounds, strength):
    *earlier, start = rounds
    penalty = repulsion.of(start, earlier, [strength, strength / 2])
    params = {n: p.clone().requires_grad_() for n, p in start.params.items()}
    found = penalty(params, start.masks)
    grads = torch.autograd.grad(found.sum(), [params[n] for n in start.masks])
    for r in range(2):
        theta, mask = flat(start, r, "params").requires_grad_(), flat(start, r, "masks")
        expected = written_out(theta, mask, [flat(p, r, "params") for p in earlier], strength / (r + 1))
        torch.testing.assert_close(found[r], expected, rtol=1e-12, atol=0)
        [gradient] = torch.autograd.grad(expected, theta)
        torch.testing.assert_close(torch.cat([g[r].flatten() for g in grads]), gradient, rtol=1e-10, atol=1e-14)
    bias = torch.autograd.grad(penalty(params, start.masks).sum(), params["fc1.bias"], allow_unused=True)
    assert bias == (None,)


def test_scale_has_no_part_in_it(rounds):
    *earlier, start = rounds
    scaled = [other.with_theta(7 * other.theta()) for other in earlier]
    ours = repulsion.of(start, earlier, 2.0)(start.params, start.masks)
    theirs = repulsion.of(start, scaled, 2.0)({n: p / 3 for n, p in start.params.items()}, start.masks)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    same = repulsion.of(start, [start], 2.0)(start.params, start.masks)
    torch.testing.assert_close(same, torch.full((2,), 2.0).double())


def test_the_last_only_and_none(rounds):
    *earlier, start = rounds
    last = repulsion.of(start, earlier[-1:], 2.0)(start.params, start.masks)
    expected = [written_out(flat(start, r, "params"), flat(start, r, "masks"), [flat(earlier[-1], r, "params")], 2.0)
                for r in range(2)]  # fmt: skip
    torch.testing.assert_close(last, torch.stack(expected), rtol=1e-12, atol=0)
    assert torch.equal(repulsion.of(start, [], 2.0)(start.params, start.masks), torch.zeros(2).double())
    silent = earlier[-1].with_theta(torch.zeros_like(earlier[-1].theta()))  # of no direction: as if it were not there
    both = repulsion.of(start, [silent, earlier[-1]], 2.0)(start.params, start.masks)
    torch.testing.assert_close(both, last, rtol=1e-12, atol=0)


def test_memory_is_that_of_the_kept_weights(rounds):
    *earlier, start = rounds
    n = int(flat(start, 0, "masks").sum())
    assert repulsion.of(start, earlier, 2.0).nbytes == 2 * (8 + 8 * n + 8 * n * len(earlier) + 8)


def test_in_training(toy):
    """λ = 0 trains as without, a replica does not depend on the other's λ, and repulsion turns the solution away."""
    recipe = Recipe(steps=40, batch_size=20, lr=0.1)
    dense = init.kaiming_normal(Model("lenet_300_100"), seeds=[0, 1])
    first = train(dense, toy, recipe).final
    start = prune.rewind(prune.apply(first, prune.magnitude_masks(first, 0.2)), dense)
    final = {
        strengths: train(start, toy, recipe, penalty=repulsion.of(start, [first], list(strengths))).final
        for strengths in ((0.0, 500.0), (500.0, 500.0))
    }
    plain = train(start, toy, recipe).final
    torch.testing.assert_close(final[0.0, 500.0].theta()[0], plain.theta()[0], rtol=0, atol=1e-6)
    assert torch.equal(final[0.0, 500.0].theta()[1], final[500.0, 500.0].theta()[1])
    cosine = lambda p: repulsion.of(p, [first], 1.0)(p.params, p.masks).sqrt()  # noqa: E731
    assert cosine(final[500.0, 500.0]).max() < cosine(plain).min() - 0.1
    assert torch.all(final[500.0, 500.0].theta()[~start.theta_mask()] == 0)


def test_what_does_not_fit_is_refused(rounds):
    *earlier, start = rounds
    with pytest.raises(UsageError, match="as many, of the same architecture"):
        repulsion.of(start, [earlier[0][[0]]], 2.0)
    masks = {n: m.clone() for n, m in start.masks.items()}
    masks["fc1.weight"][0] = False
    with pytest.raises(UsageError, match="keep equally many weights"):
        repulsion.of(prune.apply(start, masks), earlier, 2.0)
