"""The architectures: published counts, and the same functions as torchvision's or as written out by hand."""

from __future__ import annotations

import copy
import json
from functools import partial

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from lth import models
from lth.errors import UsageError
from lth.methods.init import kaiming_normal
from lth.methods.prune import Gradual
from lth.models import ARCHITECTURES, Model
from lth.training.recipe import Recipe
from lth.training.train import train

RESNETS = [name for name in ARCHITECTURES if name.startswith("resnet")]
NORMALISED = [*RESNETS, "vgg16_bn", "mobilenet"]
LENETS = ["lenet5", "lenet_300_100"]
ACTIVATIONS = {
    "relu": lambda x: x.clamp(min=0),
    "swish": lambda x: x * torch.sigmoid(x),
    "mish": lambda x: x * torch.tanh(torch.log1p(torch.exp(x))),
}


def usual(name: str, **options: object) -> Model:
    """The model for the images it was made for."""
    if name in LENETS:
        return Model(name, **options)
    return Model(name, (3, 32, 32), 1000 if name.endswith("imagenet") else 10, **options)


def network(model: Model, seed: int = 0) -> nn.Module:
    """The model in float64 with random values everywhere, so that a forgotten or exchanged tensor shows."""
    module = kaiming_normal(model, [seed]).module(0).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            if tensor.ndim == 1:
                tensor.copy_(0.5 + noise)
            else:
                tensor.mul_(0.7 + 0.6 * noise)
    return module


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


# --- counts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, weights, biases",
    [
        ("lenet5", [6 * 25, 16 * 6 * 25, 256 * 120, 120 * 84, 84 * 10], [6, 16, 120, 84, 10]),
        ("lenet_300_100", [784 * 300, 300 * 100, 100 * 10], [300, 100, 10]),
        (
            "conv4",
            [27 * 64, 9 * 64 * 64, 9 * 64 * 128, 9 * 128 * 128, 8 * 8 * 128 * 256, 256 * 256, 256 * 10],
            [64, 64, 128, 128, 256, 256, 10],
        ),
    ],
)
def test_parameters_layer_by_layer(name, weights, biases):
    parameters = dict(usual(name).build().named_parameters())
    assert [p.numel() for n, p in parameters.items() if n.endswith("weight")] == weights
    assert [p.numel() for n, p in parameters.items() if n.endswith("bias")] == biases
    assert usual(name).prunable == [n for n in parameters if n.endswith("weight")]


def basic_resnet(blocks: int, first: int, stages: int) -> int:
    """Parameters of a ResNet of basic blocks, `blocks` per stage, `first` channels in the first, 10 classes."""
    total = 27 * first + 2 * first
    for stage in range(stages):
        maps = first * 2**stage
        total += blocks * 2 * (9 * maps**2 + 2 * maps)
        if stage:  # half as many channels into its first convolution, and a projection beside it
            total += -9 * maps * maps // 2 + maps * maps // 2 + 2 * maps
    return total + (maps + 1) * 10


def test_parameter_counts():
    """Numbers as published, or as torchvision and the common code for CIFAR have them."""
    published = {
        "lenet5": 44_426,
        "lenet_300_100": 266_610,
        "conv4": 2_425_930,
        "vgg16": 14_719_818,
        "vgg16_bn": 14_728_266,
        "mobilenet": 3_217_226,
        "resnet20": 272_474,
        "resnet32": 466_906,
        "resnet32x2": 1_860_522,
        "resnet18": 11_173_962,
        "resnet34": 21_282_122,
        "resnet50": 23_520_842,
        "resnet18_imagenet": 11_689_512,
        "resnet34_imagenet": 21_797_672,
        "resnet50_imagenet": 25_557_032,
    }
    counted = {name: sum(p.numel() for p in usual(name).build().parameters()) for name in ARCHITECTURES}
    stem = (49 - 9) * 3 * 16  # 7×7 in place of 3×3
    ours = {"resnet8": basic_resnet(1, 16, 3) + stem, "resnet14": basic_resnet(2, 16, 3) + stem}  # for two CPU cores
    assert counted == published | ours


def test_counts_by_formula():
    """Some of the published numbers once more, from what the layers are."""
    counts = {name: sum(s.numel() for s in usual(name).shapes.params.values()) for name in ARCHITECTURES}
    assert counts["resnet20"] == basic_resnet(3, 16, 3)
    assert counts["resnet32"] == basic_resnet(5, 16, 3) and counts["resnet32x2"] == basic_resnet(5, 32, 3)
    assert counts["resnet18"] == basic_resnet(2, 64, 4)
    widths = [3, 64, 64, 128, 128, 256, 256, 256, *[512] * 6]
    vgg = sum((9 * a + 1) * b for a, b in zip(widths, widths[1:], strict=False)) + 513 * 10
    assert counts["vgg16"] == vgg and counts["vgg16_bn"] == vgg + 2 * sum(widths[1:])
    widths = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    separable = sum(9 * a + 2 * a + a * b + 2 * b for a, b in zip(widths, widths[1:], strict=False))
    assert counts["mobilenet"] == 27 * 32 + 2 * 32 + separable + 1025 * 10
    for name, block in (("resnet34", 1), ("resnet50", 4)):  # from ImageNet's: another stem, fewer classes
        imagenet = counts[f"{name}_imagenet"]
        assert counts[name] == imagenet - (7 * 7 - 3 * 3) * 3 * 64 - (512 * block + 1) * 990


@pytest.mark.parametrize("name, widths", [("lenet5", (3, 3, 27, 20)), ("lenet_300_100", (8, 8))])
def test_small_dense_networks(name, widths):
    parameters = Model(name, widths=widths).shapes.params
    assert tuple(shape[0] for n, shape in parameters.items() if n.endswith("bias")) == (*widths, 10)
    if name == "lenet5":
        assert sum(s.numel() for s in parameters.values()) == 26 * 3 + 76 * 3 + 49 * 27 + 28 * 20 + 21 * 10
    assert Model(name, widths=widths).build("cpu")(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn", *RESNETS])
def test_widths_scale_all_stages(name):
    """Half as many channels: a quarter of the weights of every layer between two hidden ones."""
    whole = usual(name).shapes.params
    first = next(iter(whole.values()))[0]
    half = usual(name, widths=(first // 2,)).shapes.params
    assert usual(name, widths=(first,)).shapes.params == whole and half.keys() == whole.keys()
    inner = [n for n, shape in whole.items() if len(shape) == 4][1:]
    assert all(4 * half[n].numel() == whole[n].numel() for n in inner)
    assert usual(name, widths=(3,)).build("cpu").eval()(torch.zeros(1, 3, 32, 32)).shape[0] == 1


# --- functions ----------------------------------------------------------------------------------------------


def textbook_lenet5(module: nn.Module, x: Tensor, activation: str = "relu") -> Tensor:
    """LeNet5 as it is drawn: convolution, activation, pool."""
    act = ACTIVATIONS[activation]
    x = F.max_pool2d(act(module.conv1(x)), 2)
    x = F.max_pool2d(act(module.conv2(x)), 2)
    return module.fc3(act(module.fc2(act(module.fc1(x.flatten(1))))))


def test_pool_before_relu_is_the_same_function_with_the_same_gradients():
    module = network(Model("lenet5"), seed=3)
    generator = torch.Generator().manual_seed(0)
    batch = torch.rand(32, 1, 28, 28, dtype=torch.float64, generator=generator)
    labels = torch.randint(10, (32,), generator=generator)
    with torch.no_grad():
        for bias in (module.conv1.bias, module.conv2.bias):  # so that many windows are negative throughout
            bias.copy_(torch.randn(bias.shape, dtype=torch.float64, generator=generator) * 0.3)
    outputs = [module(batch), textbook_lenet5(module, batch)]
    assert torch.equal(*outputs)
    ours, textbook = (torch.autograd.grad(F.cross_entropy(out, labels), module.parameters()) for out in outputs)
    for (name, _), a, b in zip(module.named_parameters(), ours, textbook, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-15, msg=name)
        assert a.abs().max() > 0


def textbook_mlp(module: nn.Module, x: Tensor, activation: str) -> Tensor:
    act = ACTIVATIONS[activation]
    return module.fc3(act(module.fc2(act(module.fc1(x.reshape(len(x), -1))))))


def textbook_conv4(module: nn.Module, x: Tensor, activation: str) -> Tensor:
    act = ACTIVATIONS[activation]
    x = F.max_pool2d(act(module.conv2(act(module.conv1(x)))), 2)
    x = F.max_pool2d(act(module.conv4(act(module.conv3(x)))), 2)
    return module.fc3(act(module.fc2(act(module.fc1(x.flatten(1))))))


def normalised(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Batch norm with the running statistics, written out."""
    column = lambda part: state[f"{name}.{part}"][:, None, None]  # noqa: E731
    x = (x - column("running_mean")) / (column("running_var") + 1e-5).sqrt()
    return x * column("weight") + column("bias") if f"{name}.weight" in state else x


def textbook_vgg16(module: nn.Module, x: Tensor, activation: str) -> Tensor:
    state = module.state_dict()
    for name in ("1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "4_1", "4_2", "4_3", "5_1", "5_2", "5_3"):
        if name.endswith("_1") and name != "1_1":
            x = F.max_pool2d(x, 2)
        x = F.conv2d(x, state[f"conv{name}.weight"], state[f"conv{name}.bias"], padding=1)
        if f"bn{name}.running_mean" in state:
            x = normalised(state, f"bn{name}", x)
        x = ACTIVATIONS[activation](x)
    return x.mean(dim=(2, 3)) @ state["fc.weight"].T + state["fc.bias"]


def textbook_mobilenet(module: nn.Module, x: Tensor, activation: str) -> Tensor:
    state, act = module.state_dict(), ACTIVATIONS[activation]
    x = act(normalised(state, "bn1", F.conv2d(x, state["conv1.weight"], padding=1)))
    for i, stride in enumerate([1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]):
        kernel = state[f"blocks.{i}.conv1.weight"]
        x = F.conv2d(x, kernel, stride=stride, padding=1, groups=x.shape[1])
        x = act(normalised(state, f"blocks.{i}.bn1", x))
        x = act(normalised(state, f"blocks.{i}.bn2", F.conv2d(x, state[f"blocks.{i}.conv2.weight"])))
    return x.mean(dim=(2, 3)) @ state["fc.weight"].T + state["fc.bias"]


def textbook_resnet(module: nn.Module, x: Tensor, activation: str, skips: str = "none") -> Tensor:
    """A CIFAR ResNet of basic blocks from its parameters alone."""
    state, act = module.state_dict(), ACTIVATIONS[activation]
    x = act(normalised(state, "bn1", F.conv2d(x, state["conv1.weight"], padding=1)))
    blocks = sorted({tuple(name.split(".")[:2]) for name in state if name.startswith("layer")})
    for block in (".".join(parts) for parts in sorted(blocks, key=lambda parts: (parts[0], int(parts[1])))):
        stride = 2 if block.endswith(".0") and block != "layer1.0" else 1

        def pointwise(name: str, x: Tensor, stride: int) -> Tensor:
            return normalised(state, f"{name}.1", F.conv2d(x, state[f"{name}.0.weight"], stride=stride))

        def skip(i: int, x: Tensor, out: Tensor, stride: int, block: str = block) -> Tensor:
            if skips == "plain" and x.shape == out.shape:
                return out + x
            return out + pointwise(f"{block}.skip{i}", x, stride) if skips == "conv" else out

        out = normalised(state, f"{block}.bn1", F.conv2d(x, state[f"{block}.conv1.weight"], stride=stride, padding=1))
        middle = act(skip(1, x, out, stride))
        out = normalised(state, f"{block}.bn2", F.conv2d(middle, state[f"{block}.conv2.weight"], padding=1))
        out = skip(2, middle, out, 1)
        shortcut = pointwise(f"{block}.downsample", x, stride) if f"{block}.downsample.0.weight" in state else x
        x = act(out + shortcut)
    return x.mean(dim=(2, 3)) @ state["fc.weight"].T + state["fc.bias"]


@pytest.mark.parametrize(
    "name, options, textbook",
    [
        *[("lenet5", {"activation": activation}, textbook_lenet5) for activation in ACTIVATIONS],
        *[("lenet_300_100", {"activation": activation}, textbook_mlp) for activation in ACTIVATIONS],
        *[("conv4", {"activation": activation}, textbook_conv4) for activation in ACTIVATIONS],
        *[("resnet20", {"activation": activation}, textbook_resnet) for activation in ACTIVATIONS],
        ("resnet32", {"affine": False}, textbook_resnet),
        ("vgg16", {}, textbook_vgg16),
        ("vgg16", {"activation": "mish"}, textbook_vgg16),
        ("vgg16_bn", {"activation": "swish"}, textbook_vgg16),
        ("vgg16_bn", {"affine": False}, textbook_vgg16),
        ("mobilenet", {"activation": "swish"}, textbook_mobilenet),
        ("mobilenet", {"affine": False}, textbook_mobilenet),
    ],
)
def test_the_function_is_the_one_written_out(name, options, textbook):
    model = usual(name, **options)
    module, x = network(model).eval(), images(3, *model.shape)
    with torch.no_grad():
        ours, expected = module(x), textbook(module, x, model.activation)
    assert torch.isfinite(expected).all() and expected.std() > 0
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet18_imagenet", "resnet50_imagenet"])
def test_resnets_equal_those_of_torchvision(name):
    """In training and in evaluation: outputs, gradients and batch-norm statistics."""
    ours = network(usual(name))
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name.removesuffix("_imagenet"))(weights=None)
        if not name.endswith("imagenet"):
            theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            theirs.maxpool = nn.Identity()
            theirs.fc = nn.Linear(theirs.fc.in_features, 10)
    for layer in theirs.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.num_batches_tracked = None
    assert list(theirs.state_dict()) == list(ours.state_dict())
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()), assign=True)
    x = images(2, 3, 16, 16)
    outputs = [module.train()(x) for module in (ours, theirs)]
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)
    assert outputs[0].std() > 0
    firsts = [module.conv1.weight for module in (ours, theirs)]
    gradients = [torch.autograd.grad(out.square().mean(), w)[0] for out, w in zip(outputs, firsts, strict=True)]
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-7 * float(gradients[0].abs().max()))
    for (name, a), b in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in RESNETS if name.endswith("imagenet")])
def test_imagenet_resnets_have_the_parameters_of_torchvision(name):
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name.removesuffix("_imagenet"))(weights=None)
    expected = [(n, p.shape) for n, p in theirs.named_parameters()]
    assert list(Model(name, (3, 224, 224), 1000).shapes.params.items()) == expected


# --- extra skips --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skips", ["plain", "conv"])
@pytest.mark.parametrize("name, activation", [("resnet20", "relu"), ("resnet18", "swish")])
def test_extra_skips_are_those_written_out(name, skips, activation):
    module = network(usual(name, skips=skips, activation=activation)).eval()
    x = images(2, 3, 16, 16)
    with torch.no_grad():
        expected = textbook_resnet(module, x, activation, skips)
        torch.testing.assert_close(module(x), expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def test_plain_skips_of_one_block_by_hand():
    block = network(usual("resnet18", skips="plain")).eval().layer1[1]
    for norm in (block.bn1, block.bn2):  # batch norm and convolution as the identity
        norm.weight.data.fill_((1 + 1e-5) ** 0.5), norm.bias.data.zero_()
        norm.running_mean.zero_(), norm.running_var.fill_(1)
    for convolution in (block.conv1, block.conv2):
        nn.init.dirac_(convolution.weight)
    x = images(2, 64, 4, 4)
    middle = F.relu(x + x)  # the convolution's output and its input
    torch.testing.assert_close(block(x), F.relu(middle + middle + x))  # and the block's own shortcut


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "resnet50", "resnet18_imagenet"])
def test_convolutional_skips_of_weight_zero_change_nothing(name):
    module, plain = (network(usual(name, skips=skips, activation="mish")) for skips in ("conv", "none"))
    state = module.state_dict()
    state |= plain.state_dict() | {n: torch.zeros_like(t) for n, t in state.items() if ".skip" in n and "var" not in n}
    module.load_state_dict(state)
    x = images(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(module.train()(x), plain.train()(x))
        before = module(x)
        for n, p in module.named_parameters():
            if n.endswith(("skip1.0.weight", "skip2.0.weight", "skip1.1.weight", "skip2.1.weight")):
                p += 1
        assert not torch.allclose(module(x), before)


def test_convolutional_skips_are_dense_and_as_many_as_published():
    """[J]: about 1.22 million weights in ResNet-18, one 1×1 convolution for each 3×3 one but the stem."""
    model, without = usual("resnet18", skips="conv"), usual("resnet18")
    extra = {n: s for n, s in model.shapes.params.items() if n not in without.shapes.params}
    kernels = [s.numel() for s in extra.values() if len(s) == 4]
    in_and_out = [(64, 64)] * 4 + [(64, 128)] + [(128, 128)] * 3 + [(128, 256)] + [(256, 256)] * 3
    in_and_out += [(256, 512)] + [(512, 512)] * 3
    assert kernels == [a * b for a, b in in_and_out] and sum(kernels) == 1_220_608
    assert sum(s.numel() for s in extra.values()) == 1_220_608 + sum(2 * b for _, b in in_and_out)
    assert model.prunable == without.prunable and len(without.prunable) == 1 + 16 + 3 + 1
    bottlenecks = usual("resnet50", skips="conv")
    assert bottlenecks.prunable == usual("resnet50").prunable
    skips = [n.removesuffix(".0.weight") for n, s in bottlenecks.shapes.params.items() if ".skip" in n and len(s) == 4]
    assert skips == [f"layer{i + 1}.{b}.skip2" for i, depth in enumerate([3, 4, 6, 3]) for b in range(depth)]


def test_plain_skips_have_no_parameters_and_shortcuts_of_stages_can_be_pruned():
    assert usual("resnet18", skips="plain").shapes == usual("resnet18").shapes
    assert [n for n in usual("resnet20").prunable if "downsample" in n] == [
        "layer2.0.downsample.0.weight",
        "layer3.0.downsample.0.weight",
    ]


# --- batch norm ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NORMALISED)
def test_batch_norm_without_scale_and_shift(name):
    shapes, plain = usual(name).shapes, usual(name, affine=False).shapes
    lost = {n for n in shapes.params if n not in plain.params}
    layers = [n.removesuffix(".running_mean") for n in shapes.buffers if n.endswith("running_mean")]
    assert lost == {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    assert plain.prunable == shapes.prunable and plain.buffers == shapes.buffers
    assert {n.rpartition(".")[2] for n in shapes.buffers} == {"running_mean", "running_var"}


# --- what all of them keep to -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("shape, classes", [((1, 28, 28), 10), ((3, 32, 32), 100), ((2, 17, 30), 3), ((1, 16, 16), 2)])
def test_any_image_shape_and_number_of_classes(name, shape, classes):
    module = Model(name, shape, classes).build()
    assert module(torch.empty(5, *shape, device="meta")).shape == (5, classes)


class Stacked(nn.Module):
    """Linear layers side by side: (B, R·in) → (B, R·out)."""

    def __init__(self, layers: list[nn.Linear]) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        parts = x.chunk(len(self.layers), dim=1)
        return torch.cat([layer(part) for layer, part in zip(self.layers, parts, strict=True)], dim=1)


@pytest.mark.parametrize(
    "model",
    [
        Model("lenet5", (2, 17, 20), 3, widths=(3, 3, 27, 20)),
        Model("lenet_300_100", (2, 5, 6), 3),
        Model("conv4", (3, 9, 10), 3, activation="swish"),
        Model("vgg16_bn", (3, 16, 17), 3),
        Model("mobilenet", (3, 16, 17), 3, affine=False),
        Model("resnet20", (3, 9, 10), 3, activation="mish", skips="conv"),
        Model("resnet32", (3, 9, 10), 3, skips="plain", affine=False),
        Model("resnet50_imagenet", (3, 33, 34), 3, skips="conv"),
    ],
    ids=lambda model: model.name,
)
def test_one_module_can_hold_several_networks(model):
    """Two networks in one forward, their channels one after the other and each layer a grouped one."""
    networks = [network(model, seed).train() for seed in (0, 1)]
    both = model.build()
    for name, leaf in list(both.named_modules()):
        if any(True for _ in leaf.children()) or not (list(leaf.parameters()) or list(leaf.buffers())):
            continue
        layers = [n.get_submodule(name) for n in networks]
        if type(leaf) is nn.Linear:
            wide = Stacked(layers)
        elif type(leaf) is nn.Conv2d:
            sizes = (2 * leaf.in_channels, 2 * leaf.out_channels, leaf.kernel_size, leaf.stride, leaf.padding)
            wide = nn.Conv2d(*sizes, groups=2 * leaf.groups, bias=leaf.bias is not None)
        else:
            assert type(leaf) is nn.BatchNorm2d, name
            wide = nn.BatchNorm2d(2 * leaf.num_features, affine=leaf.affine)
        if type(leaf) is not nn.Linear:
            parts = zip(*(layer.state_dict().items() for layer in layers), strict=True)
            wide.load_state_dict({a: torch.cat([t, u]) for (a, t), (_, u) in parts}, strict=False, assign=True)
        owner, _, last = name.rpartition(".")
        setattr(both.get_submodule(owner), last, wide)
    x = images(4, *model.shape)
    with torch.no_grad():
        together = both.train()(torch.cat([x, 2 * x], dim=1))
        apart = torch.cat([networks[0](x), networks[1](2 * x)], dim=1)
    torch.testing.assert_close(together, apart, rtol=1e-8, atol=1e-8 * float(apart.abs().max()))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_shapes_are_those_of_the_module(name):
    model, module = usual(name), usual(name).build()
    assert list(model.shapes.params.items()) == [(n, p.shape) for n, p in module.named_parameters()]
    assert list(model.shapes.buffers.items()) == [(n, b.shape) for n, b in module.named_buffers()]
    assert model.prunable == [n for n, p in module.named_parameters() if p.ndim > 1]
    with pytest.raises(TypeError):
        model.shapes.params["fc.bias"] = torch.Size([1])


def test_a_model_has_shapes_and_no_values_until_it_is_put_on_a_device():
    assert all(p.is_meta for p in Model("lenet5").build().parameters())
    assert not any(p.is_meta for p in Model("lenet5").build("cpu").parameters())


# --- what is refused, and what a model is -------------------------------------------------------------------


def test_unknown_names_and_small_images_are_refused():
    with pytest.raises(UsageError, match="'lenet6': known are lenet5, lenet_300_100"):
        Model("lenet6")
    for name, size in (("lenet5", 16), ("vgg16", 16), ("vgg16_bn", 16), ("conv4", 4)):
        for height, width in ((size - 1, 28), (28, size - 1), (1, 1)):
            with pytest.raises(UsageError, match=f"at least {size}×{size} pixels, not {height}×{width}"):
                Model(name, (1, height, width)).build()
        Model(name, (1, size, size)).build()
    for name in (*RESNETS, "mobilenet", "lenet_300_100"):
        assert Model(name, (1, 1, 1)).build()(torch.empty(2, 1, 1, 1, device="meta")).shape == (2, 10)


@pytest.mark.parametrize(
    "name, options, told",
    [
        *[(name, {"activation": "gelu"}, "activation relu or swish or mish, not gelu") for name in ARCHITECTURES],
        *[(name, {"skips": "conv"}, "skips none, not conv") for name in ARCHITECTURES if name not in RESNETS],
        *[(name, {"skips": "all"}, "skips none or plain or conv, not all") for name in RESNETS],
        *[(name, {"affine": False}, "affine True, not False") for name in ARCHITECTURES if name not in NORMALISED],
        *[(name, {"widths": (8, 8)}, "no choice of hidden widths") for name in ("conv4", "mobilenet")],
        *[(name, {"widths": (8, 8)}, "1 hidden width of at least 1") for name in ("vgg16", "vgg16_bn", *RESNETS)],
        ("lenet5", {"widths": (8, 8)}, "4 hidden widths of at least 1"),
        ("lenet_300_100", {"widths": (8, 0)}, "2 hidden widths of at least 1"),
    ],
)
def test_options_without_a_place_are_refused(name, options, told):
    with pytest.raises(UsageError, match=f"{name} supports .*{told}"):
        Model(name, **options)


def test_models_are_compared_by_what_they_are():
    assert Model("lenet5", [1, 28, 28]) == Model("lenet5")
    assert Model("lenet5") != Model("lenet5", classes=9)
    assert Model("lenet5", activation="swish") != Model("lenet5")
    assert len({Model("resnet20", skips=skips) for skips in ("none", "plain", "conv", "none")}) == 3


def test_a_model_survives_json_and_old_files_lack_the_options():
    model = Model("lenet5", (3, 32, 32), 100, activation="mish", widths=(3, 3, 27, 20))
    assert Model(**json.loads(json.dumps(vars(model)))) == model
    assert Model(**json.loads('{"name": "lenet5", "shape": [1, 28, 28], "classes": 10}')) == Model("lenet5")
    assert model.options == {"activation": "mish", "widths": (3, 3, 27, 20)}
    assert Model("lenet5").options == {}
    chosen = {"activation": "swish", "skips": "conv", "affine": False}
    resnet = Model("resnet20", (3, 32, 32), **chosen)
    assert resnet.options == chosen
    assert Model(resnet.name, resnet.shape, resnet.classes, **json.loads(json.dumps(resnet.options))) == resnet


def test_a_module_is_fresh_each_time():
    one, other = usual("resnet20").build(), usual("resnet20").build()
    one.layer1[0].conv1 = torch.nn.Identity()
    one.fc.register_forward_hook(lambda *seen: None)
    one.fc.register_parameter("bias", torch.nn.Parameter(torch.ones(10)))
    one.eval()
    for module in (other, usual("resnet20").build()):
        assert isinstance(module.layer1[0].conv1, torch.nn.Conv2d) and module.fc.bias.is_meta
        assert not module.fc._forward_hooks and all(part.training for part in module.modules())


# --- the reader's own ---------------------------------------------------------------------------------------


class Small(nn.Module):
    """A convolution and a linear layer, as a reader would write them."""

    def __init__(self, shape: tuple[int, int, int], classes: int, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shape[0], width, 5)
        self.norm = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width * (shape[1] - 4) * (shape[2] - 4), classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.norm(self.conv(x))).flatten(1))


class Counts(Small):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv(x)).reshape(-1, self.fc.in_features))


class Layered(Small):
    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__(shape, classes)
        self.last = nn.LayerNorm(classes)


@pytest.fixture
def own(monkeypatch):
    """What is registered here is forgotten afterwards."""
    monkeypatch.setattr(models, "ARCHITECTURES", dict(ARCHITECTURES))


def test_an_own_architecture_is_trained_like_any_other(own, toy):
    models.register("small", Small)
    model = Model("small")
    assert model.prunable == ["conv.weight", "fc.weight"] and model.registered is Small
    start = kaiming_normal(model, range(2), method="dense")
    run = train(start, toy, Recipe(steps=20, batch_size=16), updates={"dense": Gradual(0.5, 5, 15, 5)})
    alone = train(start[[1]], toy, Recipe(steps=20, batch_size=16), updates={"dense": Gradual(0.5, 5, 15, 5)})
    assert run.final.sparsity().tolist() == pytest.approx([0.5, 0.5], abs=1e-3)
    assert run.final[[1]].theta().equal(alone.final.theta()) and run.final.evaluate(toy.test).accuracy.min() > 0.5
    x = torch.rand(3, 1, 28, 28)
    apart = torch.stack([run.final.module(r).eval()(x) for r in range(2)], dim=1)
    torch.testing.assert_close(run.final.network().eval()(x.repeat(1, 2, 1, 1)), apart)


def test_registering_again_takes_its_place(own):
    models.register("small", Small)
    assert Model("small").shapes.params["conv.weight"][0] == 4
    models.register("small", partial(Small, width=6))
    assert Model("small").shapes.params["conv.weight"][0] == 6 and Model("lenet5").registered is None


@pytest.mark.parametrize(
    "build, told",
    [
        (Layered, "own has weights in a LayerNorm: they belong in Conv2d, Linear and BatchNorm2d"),
        (Counts, "own cannot hold two networks side by side, its forward counts channels"),
        (lambda shape, classes: Small(shape, 7), r"own gives \(3, 7\) for 3 images, expected \(3, 10\)"),
    ],
)
def test_an_architecture_that_cannot_be_stacked_is_refused(own, build, told):
    models.register("own", build)
    with pytest.raises(UsageError, match=told):
        Model("own").shapes  # noqa: B018


def test_names_and_options_of_own_architectures(own):
    with pytest.raises(UsageError, match="lth has a model 'lenet5' already"):
        models.register("lenet5", Small)
    with pytest.raises(UsageError, match="unknown model 'small': .*lth.models.register adds"):
        Model("small")
    models.register("small", Small)
    with pytest.raises(UsageError, match="small supports activation relu, not swish"):
        Model("small", activation="swish")
