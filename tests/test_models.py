"""The architectures: the published counts, and the same function as the textbook order of layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lth.errors import UsageError
from lth.methods.init import glorot_uniform
from lth.models import ARCHITECTURES, Model


@pytest.mark.parametrize(
    "name, weights, biases",
    [
        ("lenet5", [6 * 25, 16 * 6 * 25, 256 * 120, 120 * 84, 84 * 10], [6, 16, 120, 84, 10]),
        ("lenet_300_100", [784 * 300, 300 * 100, 100 * 10], [300, 100, 10]),
    ],
)
def test_parameter_counts(name, weights, biases):
    parameters = dict(Model(name).build().named_parameters())
    assert [p.numel() for n, p in parameters.items() if n.endswith("weight")] == weights
    assert [p.numel() for n, p in parameters.items() if n.endswith("bias")] == biases
    assert sum(p.numel() for p in parameters.values()) == {"lenet5": 44_426, "lenet_300_100": 266_610}[name]
    assert Model(name).prunable == [n for n in parameters if n.endswith("weight")]


def textbook_lenet5(module: nn.Module, x: Tensor) -> Tensor:
    """LeNet5 as it is drawn: convolution, ReLU, pool."""
    x = F.max_pool2d(F.relu(module.conv1(x)), 2)
    x = F.max_pool2d(F.relu(module.conv2(x)), 2)
    return module.fc3(F.relu(module.fc2(F.relu(module.fc1(x.flatten(1))))))


def test_pool_before_relu_is_the_same_function_with_the_same_gradients():
    module = glorot_uniform(Model("lenet5"), seeds=[3]).module(0).double()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(32, 1, 28, 28, dtype=torch.float64, generator=generator)
    labels = torch.randint(10, (32,), generator=generator)
    with torch.no_grad():
        for bias in (module.conv1.bias, module.conv2.bias):  # so that many windows are negative throughout
            bias.copy_(torch.randn(bias.shape, dtype=torch.float64, generator=generator) * 0.3)
    outputs = [module(images), textbook_lenet5(module, images)]
    assert torch.equal(*outputs)
    ours, textbook = (torch.autograd.grad(F.cross_entropy(out, labels), module.parameters()) for out in outputs)
    for (name, _), a, b in zip(module.named_parameters(), ours, textbook, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-15, msg=name)
        assert a.abs().max() > 0


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("shape, classes", [((1, 28, 28), 10), ((3, 32, 32), 100), ((2, 17, 30), 3), ((1, 16, 16), 2)])
def test_any_image_shape_and_number_of_classes(name, shape, classes):
    population = glorot_uniform(Model(name, shape, classes), seeds=[0])
    assert population.module(0)(torch.zeros(5, *shape)).shape == (5, classes)


def test_a_model_has_shapes_and_no_values_until_it_is_put_on_a_device():
    assert all(p.is_meta for p in Model("lenet5").build().parameters())
    assert not any(p.is_meta for p in Model("lenet5").build("cpu").parameters())


def test_unknown_names_and_small_images_are_refused():
    with pytest.raises(UsageError, match="'lenet6': known are lenet5, lenet_300_100"):
        Model("lenet6")
    for shape in ((1, 8, 8), (1, 15, 28), (1, 28, 15)):
        with pytest.raises(UsageError, match="at least 16×16"):
            Model("lenet5", shape).build()


def test_models_are_compared_by_what_they_are():
    assert Model("lenet5", [1, 28, 28]) == Model("lenet5")
    assert Model("lenet5") != Model("lenet5", classes=9)
