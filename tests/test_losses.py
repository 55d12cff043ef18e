"""Training losses by formula and against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lth.training.losses import cross_entropy, distillation


@pytest.fixture
def outputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(12, 3, 5, generator=generator, dtype=torch.float64) * 3
    return logits, torch.randint(5, (12, 3), generator=generator)


@pytest.mark.parametrize("replicas", [1, 3])
def test_smoothing_is_that_of_torch_with_an_alpha_for_each_replica(outputs, replicas):
    logits, labels = outputs[0][:, :replicas], outputs[1][:, :replicas]
    alphas = torch.tensor([0.0, 0.1, 0.4], dtype=torch.float64)[-replicas:]
    found = cross_entropy(logits, labels, alphas)
    for r, alpha in enumerate(alphas.tolist()):
        expected = F.cross_entropy(logits[:, r], labels[:, r], label_smoothing=alpha)
        torch.testing.assert_close(found[r], expected, rtol=0, atol=1e-14)
    plain = torch.stack([F.cross_entropy(logits[:, r], labels[:, r]) for r in range(replicas)])
    torch.testing.assert_close(cross_entropy(logits, labels), plain, rtol=0, atol=1e-14)


def test_smoothing_over_the_other_classes_only(outputs):
    """y(1 − α) on the true class, α/(K − 1) on each other one, is α' = α·K/(K − 1) in the usual convention."""
    (logits, labels), alpha, classes = outputs, 0.1, 5
    targets = torch.full_like(logits, alpha / (classes - 1)).scatter(2, labels[..., None], 1 - alpha)
    expected = -(targets * F.log_softmax(logits, -1)).sum(-1).mean(0)
    found = cross_entropy(logits, labels, torch.full((3,), alpha * classes / (classes - 1), dtype=torch.float64))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_is_torchs_kl_divergence(outputs, temperature):
    logits, teacher = outputs[0], outputs[0].flip(0)
    found = distillation(logits, teacher, temperature)
    for r in range(3):
        student, taught = (F.log_softmax(x[:, r] / temperature, -1) for x in (logits, teacher))
        expected = F.kl_div(student, taught, reduction="batchmean", log_target=True) * temperature**2
        torch.testing.assert_close(found[r], expected, rtol=0, atol=1e-13)
    assert found.min() > 0
    torch.testing.assert_close(distillation(logits, logits, temperature), torch.zeros(3, dtype=torch.float64))
