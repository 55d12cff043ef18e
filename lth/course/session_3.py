"""Session 3, why sparse networks start badly: variances of weights, neuron by neuron; what arrives at the far end."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lth.analysis.signal import skewed_mask
from lth.course.check import Attempt, Task, close, expect
from lth.methods.sparse_init import variance

DRAWS = 4000


def hubs_and_loners(random: Generator) -> Tensor:
    return skewed_mask(12, 40, int(torch.randint(1000, (1,), generator=random)))


def spreads(attempt: Attempt, mask: Tensor) -> Tensor:
    found = attempt.tensor(mask, like=mask)
    expect(
        found.is_floating_point(),
        f"the result holds {found.dtype}, not numbers with a point.",
        "`zeros_like(mask)` is bool, as `mask` is.",
    )
    return found


def none_where_pruned(attempt: Attempt, random: Generator) -> None:
    mask = hubs_and_loners(random)
    found = spreads(attempt, mask)
    expect((found[~mask] == 0).all(), "pruned weights have a spread that is not zero.", "multiply by the mask.")
    expect((found[mask] > 0).all(), "some weights that stay have no spread, or a negative one.", "what divides what?")


def no_connection(attempt: Attempt, random: Generator) -> None:
    mask = torch.tensor([[True, False, True], [False, False, False], [True, False, True]])
    found = attempt(mask)
    expect(
        isinstance(found, Tensor) and torch.isfinite(found).all(),
        "a neuron that has lost all its connections gives nan or infinity.",
        "what is 1/0, and 0 · ∞? Nobody needs the spread of a weight that is not there.",
    )


def forwards(attempt: Attempt, random: Generator) -> None:
    mask = hubs_and_loners(random)
    std = spreads(attempt, mask)
    weights = std * torch.randn(DRAWS, *mask.shape, generator=random)
    outputs = (weights @ torch.randn(DRAWS, mask.shape[1], 1, generator=random))[..., 0]
    _unit(outputs.var(0)[mask.any(1)], "outputs", mask.sum(1)[mask.any(1)], "inputs")
    expect(
        close(std, variance(mask[None], "forward")[0].sqrt()),
        "the spreads are not those of the derivation.",
        "a weight's spread depends on the inputs of its own neuron, and on nothing else.",
    )


def backwards(attempt: Attempt, random: Generator) -> None:
    mask = hubs_and_loners(random)
    std = spreads(attempt, mask)
    weights = std * torch.randn(DRAWS, *mask.shape, generator=random)
    gradients = (weights.mT @ torch.randn(DRAWS, mask.shape[0], 1, generator=random))[..., 0]
    _unit(gradients.var(0)[mask.any(0)], "gradients", mask.sum(0)[mask.any(0)], "outputs")
    expect(
        close(std, variance(mask[None], "backward")[0].sqrt()),
        "the spreads are not those of the derivation.",
        "a weight's spread depends on the outputs of its own input, and on nothing else.",
    )


def _unit(found: Tensor, what: str, fans: Tensor, of: str) -> None:
    twice = bool(((found / 2).log().abs() < 0.3).all())
    worst = int((found.log().abs()).argmax())
    expect(
        0.75 < found[worst] < 1.33,
        f"{what} should have variance 1; that of a neuron with {int(fans[worst])} {of} is {float(found[worst]):.2g}, "
        f"and the mean over all is {float(found.mean()):.2g}.",
        "the factor 2 of He's weights belongs to ReLU. Here the layer is linear."
        if twice
        else "a layer has hubs and loners. Does each neuron have a number of its own? Counted along which axis? Is it "
        "the variance or the standard deviation that multiplies normal numbers?",
    )


def nothing_pruned(attempt: Attempt, random: Generator) -> None:
    found = attempt.number(0.0, 5)
    expect(close(found, 1), f"in a dense network the whole signal arrives, and it says {found:.3g}.", "try sparsity 0.")


def one_layer(attempt: Attempt, random: Generator) -> None:
    found = attempt.number(0.75, 1)
    expect(
        close(found, 0.5),
        f"in one layer at 75 % it says that {found:.3g} of the standard deviation is left.",
        "a quarter of the inputs leave a quarter of the variance. Asked for is the standard deviation.",
    )


def measured(attempt: Attempt, random: Generator) -> None:
    for sparsity, layers in ((0.5, 3), (0.5, 6), (0.8, 4)):
        found, right = attempt.number(sparsity, layers), arrives(sparsity, layers, random)
        expect(
            0.8 < found / right < 1.25,
            f"at {100 * sparsity:.0f} % in {layers} layers {right:.3f} of the signal is measured, and it "
            f"says {found:.3f}: more than a fifth off.",
            "every layer loses the same factor, one after another.",
        )


def arrives(sparsity: float, layers: int, random: Generator, width: int = 300, nets: int = 4) -> float:
    """Standard deviation of a sparse ReLU network's last layer over that of the dense one with the same weights."""
    squares = torch.zeros(2)
    for _ in range(nets):
        dense = sparse = torch.randn(50, width, generator=random)
        for layer in range(layers):
            weights = torch.randn(width, width, generator=random) * (2 / width) ** 0.5
            kept = torch.rand(width, width, generator=random) >= sparsity
            dense, sparse = (x.relu() if layer else x for x in (dense, sparse))
            dense, sparse = dense @ weights.T, sparse @ (weights * kept).T
        squares += torch.stack([sparse.square().mean(), dense.square().mean()])
    return float((squares[0] / squares[1]).sqrt())


TASKS = (
    Task(
        "forward_std(mask)",
        (none_where_pruned, no_connection, forwards),
        lambda f, random: f(torch.rand(300, 500, generator=random) < 0.1),
    ),
    Task(
        "backward_std(mask)",
        (none_where_pruned, no_connection, backwards),
        lambda f, random: f(torch.rand(300, 500, generator=random) < 0.1),
    ),
    Task("signal_left(sparsity, layers)", (nothing_pruned, one_layer, measured)),
)
