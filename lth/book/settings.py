"""What can be set in each chapter: types, ranges and meaning. The defaults are the papers' own settings.

`check` says whether a data set is large enough for them, before anything is trained.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, model_validator

from lth.checked import Checked
from lth.errors import UsageError

if TYPE_CHECKING:
    from lth.data import Data

SMALLEST_LAYER = 150  # weights of LeNet5's first layer on images of one channel
FEWEST = 20  # images, for training and for the test: an error is a share of them
IMAGES = {"dataset", "imagenet"}  # parameters that are names of images, or where they lie
EXACT = 5_000  # active parameters of an exact Hessian, at most (`lth.analysis.hessian`)


class Facts(NamedTuple):
    """What the settings of a chapter must fit: numbers of training and test images, their (C, H, W), classes."""

    name: str
    train: int
    test: int
    shape: tuple[int, int, int]
    classes: int

    @classmethod
    def of(cls, data: Data) -> Facts:
        return cls(data.name, len(data.train), len(data.test), data.shape, data.classes)


DIGITS = Facts("digits", 1_437, 360, (1, 28, 28), 10)  # known without looking


class Settings(Checked):
    """The settings of one chapter."""

    dataset: str
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        "fp32", description="of the products in training: tf32 and bf16 are faster on GPUs; all measures are of fp32"
    )

    @property
    def models(self) -> list[str]:
        """The architectures that the chapter trains."""
        return [self.model]

    def limits(self, facts: Facts) -> dict[str, tuple[int, int]]:
        """Each parameter that is a number of training images: its value, and the most that it can be."""
        return {"batch_size": (self.batch_size, facts.train)}

    def check(self, facts: Facts) -> None:
        """Raises UsageError, in one line that names parameter, value and bound, where the data do not fit."""
        for what, count in (("training", facts.train), ("test", facts.test)):
            if count < FEWEST:
                raise UsageError(
                    f"dataset={self.dataset}: {count} {what} images are too few, a chapter needs at least {FEWEST}"
                )
        if facts.classes < 2:
            raise UsageError(f"dataset={self.dataset}: there is one class only, a chapter needs at least 2")
        for name, (value, most) in self.limits(facts).items():
            if value > most:
                raise UsageError(
                    f"{name}={value} is too large for {facts.name}, which has {facts.train} training images: "
                    f"at most {most}"
                )
        if facts is not DIGITS:  # which every architecture takes; building them imports torch, for seconds
            from lth.models import Model

            for name in self.models:
                try:
                    assert Model(name, facts.shape, facts.classes).shapes
                except UsageError as error:
                    raise UsageError(f"dataset={self.dataset} does not fit the model {name}: {error}") from error


def _numbers(text: Any) -> Any:
    """«10,60» → [10, 60], for the command line."""
    return [word for word in text.split(",") if word] if isinstance(text, str) else text


def _whole(text: Any) -> Any:
    """«8» and «8.0» → 8, for the command line; anything else stays as it is, for the message that refuses it."""
    try:
        return int(float(text)) if float(text).is_integer() else text
    except (ValueError, TypeError, OverflowError):
        return text


class ImageNet(Settings):
    """What chapters 1 and 5 have in common: a section on networks for ImageNet, which is left out without images."""

    imagenet: str = Field(
        "", description="images for the section on large networks: what `lth data imagenet --from FOLDER` made, or an "
        "image folder; empty: the section is left out"
    )
    imagenet_seeds: int = Field(3, ge=2, le=100, description="networks per method in that section")
    imagenet_length: float = Field(1, ge=1e-4, le=1, description="share of the papers' steps that they are trained for")
    imagenet_precision: Literal["fp32", "tf32", "bf16"] = Field("bf16", description="of the products in their training")

    @property
    def large(self) -> dict[str, int]:
        """Architecture → batch size of the networks of that section."""
        return {}

    def check_imagenet(self, facts: Facts) -> None:
        """Raises UsageError, in one line, where the images do not fit the section."""
        from lth.models import Model

        for model, batch in self.large.items():
            if batch > facts.train:
                raise UsageError(
                    f"imagenet={self.imagenet}: a batch of {batch} for {model} is more than its {facts.train} training "
                    "images: change `imagenet_batches`"
                )
            try:
                assert Model(model, facts.shape, facts.classes).shapes
            except UsageError as error:
                raise UsageError(f"imagenet={self.imagenet} does not fit the model {model}: {error}") from error


Large = Literal["vgg16", "resnet50_imagenet", "resnet8"]
LENET5_BIASES = 6 + 16 + 120 + 84  # and one for each class


class SparseTraining(Settings):
    """What the chapters on sparse training, 1 and 2, have in common: LeNet5, its pruning, its mask updates.

    The defaults are the papers' settings [E, Table 4], with more networks than its five: of two in three that learn and
    all that learn, five of each cannot be told apart. The two chapters share the networks that they train alike.
    """

    dataset: str = Field("mnist", description="digits, mnist, fashion_mnist, or a folder or archive of images")
    seeds: int = Field(16, ge=3, le=100, description="networks per method, each with the mask of a pruned network")
    first_seed: int = Field(0, ge=0, lt=1_000_000, description="seed of the first network; the others follow")
    sparsity: float = Field(0.95, gt=0, lt=1, description="fraction of each layer's weights that is pruned")
    steps: int = Field(11_719, gt=0, description="optimiser steps of every training run")
    batch_size: int = Field(128, gt=0, description="training images per step")
    lr: float = Field(0.05, gt=0, description="learning rate at the start of the cosine schedule")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD")
    weight_decay: float = Field(5e-4, ge=0, description="penalty weight_decay·‖w‖² on kernels, TensorFlow's convention")
    prune_start: int = Field(3_000, ge=0, description="step at which gradual pruning begins")
    prune_end: int = Field(7_000, gt=0, description="step at which the final sparsity is reached")
    prune_every: int = Field(100, gt=0, description="steps between two prunings")
    dst_drop_fraction: float = Field(0.3, gt=0, lt=1, description="share of weights that the first mask update drops")
    dst_every: int = Field(500, ge=2, description="steps between two mask updates (100 in the authors' code)")
    probe_every: int = Field(200, gt=0, description="steps between two measurements of the gradient flow")
    block: int = Field(1_000, gt=0, description="training examples that gradient flow and RigL's gradients are of")

    @model_validator(mode="after")
    def _trainable(self) -> Self:
        if not self.prune_start < self.prune_end <= self.steps:
            raise ValueError(
                f"pruning must start before it ends, within the run: 0 ≤ prune_start ({self.prune_start}) "
                f"< prune_end ({self.prune_end}) ≤ steps ({self.steps})"
            )
        for name in ("dst_every", "probe_every"):
            if (every := getattr(self, name)) >= self.steps:
                raise ValueError(f"{name} ({every}) must be shorter than the run of {self.steps} steps")
        for name in {"sparsity", "high_sparsity"} & set(type(self).model_fields):
            if round(SMALLEST_LAYER * (1 - getattr(self, name))) < 1:
                raise ValueError(
                    f"{name} ({getattr(self, name)}) empties the first layer of LeNet5, which has {SMALLEST_LAYER} "
                    f"weights: below {1 - 0.5 / SMALLEST_LAYER:.4f} one is left"
                )
        return self

    @property
    def models(self) -> list[str]:
        return ["lenet5"]

    def limits(self, facts: Facts) -> dict[str, tuple[int, int]]:
        return super().limits(facts) | {"block": (self.block, facts.train)}


class GradientFlow(SparseTraining, ImageNet):
    """Chapter 1: initial weights of sparse networks, and the gradient flow in training."""

    high_sparsity: float = Field(0.98, gt=0, lt=1, description="sparsity of the second table, and of the MLP 300-100")
    mlp_seeds: int = Field(10, ge=3, le=100, description="networks per method of the MLP 300-100")
    mlp_lr: float = Field(0.2, gt=0, description="learning rate of the MLP 300-100 at the start, as the text has it")
    mlp_weight_decay: float = Field(1e-4, ge=0, description="and its weight decay; `lr` and `weight_decay` beside them")
    draws: int = Field(10_000, ge=100, description="random draws in the checks of the derivation")
    inputs: int = Field(200, ge=10, description="random images for the signal propagation")
    imagenet_models: Annotated[list[Large], BeforeValidator(_numbers)] = Field(
        ["vgg16", "resnet50_imagenet"], min_length=2, max_length=2, description="networks of the section on ImageNet"
    )
    imagenet_batches: Annotated[list[int], BeforeValidator(_numbers)] = Field(
        [1024, 4096], min_length=2, max_length=2, description="and their batch sizes"
    )

    @property
    def large(self) -> dict[str, int]:
        return dict(zip(self.imagenet_models, self.imagenet_batches, strict=True))


class DSTUpdates(SparseTraining):
    """Chapter 2: what mask updates do to the gradient and to the Hessian."""

    dst_often: int = Field(100, gt=0, description="the same in a second set of runs: the interval of the authors' code")
    hessian_updates: Annotated[list[int], BeforeValidator(_numbers)] = Field(
        [1, 2, 4, 8], min_length=2, description="numbers of the updates around which Hessians are measured"
    )
    hessian_seeds: int = Field(10, ge=2, description="masks whose networks have their Hessians measured, at most all")
    hessian_images: int = Field(10_000, ge=10, description="training images that give an estimated Hessian")
    lanczos_steps: int = Field(25, ge=10, description="Hessian-vector products per estimate")
    many_images: int = Field(60_000, ge=10, description="training images that give an exact one of a few networks")
    few_images: int = Field(1_000, ge=10, description="training images of the example that shows they are too few")

    @model_validator(mode="after")
    def _kept(self) -> Self:
        if self.dst_often >= self.dst_every:
            raise ValueError(f"dst_often ({self.dst_often}) must be shorter than dst_every ({self.dst_every})")
        numbers = self.hessian_updates
        kept = {k * 2**n for n in range(30) for k in (1, 3)}
        if numbers != sorted(set(numbers)) or not set(numbers) <= kept or numbers[1] * self.dst_every >= self.steps:
            raise ValueError(
                "hessian_updates must increase, be among those around which networks are kept, 1, 2, 3, 4, 6, 8, 12, "
                f"…, and the second must come before the end of training: not {numbers}"
            )
        return self

    def check(self, facts: Facts) -> None:
        super().check(facts)
        layers = lenet5_layers(facts.shape, facts.classes)
        active = sum(max(1, round(n * (1 - self.sparsity))) for n in layers) + LENET5_BIASES + facts.classes
        if active > EXACT:
            least = 1 - (EXACT - LENET5_BIASES - facts.classes - len(layers)) / sum(layers)
            raise UsageError(
                f"sparsity={self.sparsity} leaves {active:,} parameters of LeNet5 on {facts.name}, whose exact Hessian "
                f"has at most {EXACT:,}: at least {math.ceil(1000 * least) / 1000}"
            )
        if self.lanczos_steps > active:
            raise UsageError(
                f"lanczos_steps={self.lanczos_steps} are more than the {active:,} parameters that sparsity="
                f"{self.sparsity} leaves: at most {active}"
            )


def lenet5_layers(shape: tuple[int, int, int], classes: int) -> list[int]:
    """How many weights each layer of LeNet5 has."""
    channels, *sides = shape
    height, width = (((side - 4) // 2 - 4) // 2 for side in sides)
    return [150 * channels, 2_400, 16 * height * width * 120, 120 * 84, 84 * classes]


class LTBasin(Settings):
    """Chapter 3: lottery tickets and the basin of the pruning solution.

    The defaults are the paper's settings: LeNet5's [E, Table 3], or the MLP's where that is the model [E, App. D]. The
    paper has one pruning solution and five networks of each kind.
    """

    dataset: str = Field("mnist", description="digits, mnist, fashion_mnist, or a folder or archive of images")
    model: Literal["lenet5", "lenet_300_100"] = Field("lenet5", description="architecture")
    seeds: int = Field(20, ge=3, le=200, description="pruning solutions")
    first_seed: int = Field(0, ge=0, lt=1_000_000, description="seed of the first of them; the others follow")
    tickets: int = Field(2, ge=2, le=20, description="networks of each kind that are trained on a solution's mask")
    sparsity: float = Field(0.95, gt=0, lt=1, description="fraction of each layer's weights that is pruned")
    steps: int = Field(11_719, gt=0, description="optimiser steps of every training run")
    batch_size: int = Field(128, gt=0, description="training images per step")
    lr: float = Field(0.05, gt=0, description="learning rate at the start of the cosine schedule")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD")
    weight_decay: float = Field(0.0, ge=0, description="penalty weight_decay·‖w‖² on kernels, TensorFlow's convention")
    prune_start: int = Field(3_000, ge=0, description="step at which gradual pruning begins")
    prune_end: int = Field(7_000, gt=0, description="step at which the final sparsity is reached")
    prune_every: int = Field(100, gt=0, description="steps between two prunings")
    rewind_step: int = Field(0, ge=0, description="K: step of the pruning run that tickets are rewound to")
    points: Annotated[Literal[8, 15, 29], BeforeValidator(_whole)] = Field(
        29, description="points on each path, α from −0.2 to 1.2"
    )
    images: int = Field(60_000, ge=10, description="training images whose loss and error the paths show")

    @model_validator(mode="before")
    @classmethod
    def _of_the_model(cls, given: dict[str, Any]) -> dict[str, Any]:
        mlp = {"sparsity": 0.98, "lr": 0.2, "weight_decay": 1e-4}
        return mlp | given if given.get("model") == "lenet_300_100" else given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.prune_start < self.prune_end <= self.steps:
            raise ValueError(
                f"pruning must start before it ends, within the run: 0 ≤ prune_start ({self.prune_start}) "
                f"< prune_end ({self.prune_end}) ≤ steps ({self.steps})"
            )
        if self.rewind_step > self.prune_start:
            raise ValueError(
                f"rewind_step ({self.rewind_step}) must not lie after prune_start ({self.prune_start}): "
                "from there on the weights are already pruned"
            )
        if self.tickets > self.seeds:
            raise ValueError(
                f"tickets ({self.tickets}) must not exceed seeds ({self.seeds}): an ensemble of tickets is compared "
                "with one of as many pruning solutions"
            )
        return self


Network = Literal[
    "resnet8",
    "resnet14",
    "resnet20",
    "resnet32",
    "resnet32x2",
    "resnet18",
    "resnet34",
    "resnet50",
    "vgg16_bn",
    "mobilenet",
]


class Tweaks(Settings):
    """Chapter 4: what to do with a ticket once it is drawn.

    The defaults are ResNet-18 on CIFAR-100 [J, Sec. 4.1]; what the paper leaves open is the authors' code's (`init`,
    `standardise`), or ours (`kappa`, `temperature`).
    """

    dataset: str = Field(
        "cifar100", description="digits, mnist, fashion_mnist, cifar10, cifar100, or a folder or archive of images"
    )
    model: Network = Field("resnet18", description="architecture")
    init: Literal["torch_default", "kaiming_normal"] = Field("torch_default", description="initial weights")
    standardise: bool = Field(True, description="images with mean 0 and variance 1 in each channel")
    seeds: int = Field(10, ge=2, le=100, description="networks per method")
    first_seed: int = Field(0, ge=0, description="seed of the first network; the others follow")
    rounds: int = Field(16, ge=1, description="rounds of iterative magnitude pruning")
    ratio: float = Field(0.2, gt=0, lt=1, description="share of the weights left that a round prunes")
    levels: Annotated[list[int], BeforeValidator(_numbers)] = Field(
        list(range(1, 17)), min_length=2, description="rounds whose tickets are spent in all ways"
    )
    shown: int = Field(11, ge=1, description="the one of them whose landscape is looked at")
    steps: int = Field(63_180, gt=0, description="optimiser steps of every training run: 180 epochs")
    validate_every: int = Field(351, gt=0, description="steps between two looks at the validation images: one epoch")
    batch_size: int = Field(128, gt=0, description="training images per step")
    lr: float = Field(
        0.1, gt=0, description="learning rate at the start; a tenth from one half, a hundredth from 3/4 on"
    )
    weight_decay: float = Field(2e-4, ge=0, description="weight decay, in PyTorch's convention")
    augment: bool = Field(True, description="crop and flip the training images at random")
    others: Annotated[list[Network], BeforeValidator(_numbers)] = Field(
        ["resnet34", "resnet50", "vgg16_bn", "mobilenet"],
        description="other architectures, in which the plain ticket is compared with all tweaks together",
    )
    skips: Literal["none", "plain", "conv"] = Field(
        "conv", description="extra skips: through 1×1 convolutions or plain"
    )
    smoothing: float = Field(0.1, gt=0, lt=1, description="α of label smoothing")
    kappa: float = Field(0.9, gt=0, le=1, description="κ: weight of distillation in the loss")
    temperature: float = Field(4.0, gt=0, description="τ of distillation")
    scaling_steps: int = Field(180, gt=0, description="steps in which GradInit learns the scales")
    scaling_rate: float = Field(0.01, gt=0, description="rate at which it changes them")
    scaling_variant: Literal["through", "held"] = Field(
        "through", description="of GradInit: the gradient of the trial step changes with the scales, or is held fixed"
    )
    scales_first: bool = Field(True, description="scales are learned on the ticket, before skips are added to it")
    masks_at: Annotated[list[float], BeforeValidator(_numbers)] = Field(
        [0.9, 0.95, 0.98], min_length=1, description="sparsities at which masks found in other ways are compared"
    )
    rewind_step: int = Field(11_583, gt=0, description="step whose weights rewound tickets start from: epoch 33")
    batches: int = Field(10, gt=0, description="batches on which the Hessian's top eigenvalue is found")
    tolerance: float = Field(1e-3, gt=0, lt=1, description="relative error of an eigenvalue at which the search ends")
    grid: int = Field(21, ge=3, description="points along each side of a picture of the landscape; odd")
    images: int = Field(1_000, ge=10, description="test images whose loss it shows, at most all")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.steps < 3:
            raise ValueError(f"steps={self.steps}: the learning rate drops at one half and at 3/4 of them: at least 3")
        if self.levels != sorted(set(self.levels)) or not 1 <= self.levels[0] <= self.levels[-1] <= self.rounds:
            raise ValueError(f"levels must increase and lie from 1 to {self.rounds}, not {self.levels}")
        if self.shown not in self.levels:
            raise ValueError(f"shown ({self.shown}) must be one of the levels {self.levels}")
        for name in ("rewind_step", "validate_every"):
            if getattr(self, name) > self.steps - (name == "rewind_step"):
                raise ValueError(f"{name} ({getattr(self, name)}) lies beyond the run of {self.steps} steps")
        if not all(0 < share < 1 for share in self.masks_at):
            raise ValueError(f"masks_at are sparsities between 0 and 1, not {self.masks_at}")
        if self.grid % 2 == 0:
            raise ValueError(f"grid must be odd, so that the network itself is in the picture, not {self.grid}")
        if self.skips != "none" and not self.model.startswith("resnet"):
            raise ValueError(f"{self.model} has no place for extra skips: set skips=none")
        return self

    @property
    def models(self) -> list[str]:
        return [self.model, *self.others]

    def limits(self, facts: Facts) -> dict[str, tuple[int, int]]:
        # a tenth is put aside for validation; a step of GradInit draws a batch and half another
        left = facts.train - round(facts.train / 10)
        return {"batch_size": (self.batch_size, 2 * left // 3)}


ARM = r"^(sgd|adam):\d*\.?\d+(e-?\d+)?:[1-9]\d*$"


class RTIRepulsion(ImageNet):
    """Chapter 5: do tickets find an old solution again, and what if that is forbidden?

    The defaults are LeNet 300-100 on MNIST [M, Table 1], which trains with Adam; the arms with SGD, the optimiser of
    the paper's other networks, are ours.
    """

    dataset: str = Field("mnist", description="digits, mnist, fashion_mnist, cifar10, or a folder or archive of images")
    subset: float = Field(1.0, gt=0, le=1, description="share of the training images that is used")
    model: Literal["lenet_300_100", "conv4", "resnet20"] = Field("lenet_300_100", description="architecture")
    seeds: int = Field(3, ge=3, le=100, description="networks per method and arm")
    first_seed: int = Field(0, ge=0, description="seed of the first network; the others follow")
    rounds: int = Field(25, ge=4, description="rounds of pruning")
    ratio: float = Field(0.2, gt=0, lt=1, description="share of the weights left that a round prunes")
    epochs: int = Field(25, gt=0, description="passes through the training images in every round")
    arms: Annotated[list[Annotated[str, Field(pattern=ARM)]], BeforeValidator(_numbers)] = Field(
        ["adam:0.05:60", "adam:0.0012:60", "sgd:0.1:60"],
        min_length=2,
        description="ways to train, as optimiser:learning rate:batch size, from the least stable to the most stable",
    )
    schedule: Literal["constant", "cosine", "step"] = Field(
        "constant", description="of the learning rate; step: to a tenth at each of `drops`"
    )
    drops: Annotated[list[int], BeforeValidator(_numbers)] = Field(
        [], description="epochs after which the schedule `step` drops"
    )
    warmup: int = Field(0, ge=0, description="epochs over which the learning rate rises at the start")
    weight_decay: float = Field(0.0, ge=0, description="weight decay, in PyTorch's convention")
    decay_tested: float = Field(1e-4, gt=0, description="weight decay of the networks compared with those without")
    augment: bool = Field(False, description="crop and flip the training images at random")
    repel: float = Field(2.0, gt=0, description="λ_r of repulsion")
    attract: float = Field(-1.0, lt=0, description="λ_r of attraction")
    points: int = Field(20, ge=3, description="points on a line between two networks")
    imagenet_model: Large = Field("resnet50_imagenet", description="network of the section on ImageNet")
    imagenet_batches: Annotated[list[int], BeforeValidator(_numbers)] = Field(
        [1024], min_length=1, max_length=1, description="and its batch size"
    )

    @property
    def large(self) -> dict[str, int]:
        return {self.imagenet_model: self.imagenet_batches[0]}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.arms)) < len(self.arms):
            raise ValueError(f"arms must differ, not {self.arms}")
        if any(float(arm.split(":")[1]) == 0 for arm in self.arms):
            raise ValueError(f"an arm's learning rate must be above 0: {self.arms}")
        if self.drops != sorted(set(self.drops)) or not all(0 < epoch < self.epochs for epoch in self.drops):
            raise ValueError(f"drops must increase and lie within the {self.epochs} epochs, not {self.drops}")
        if bool(self.drops) != (self.schedule == "step"):
            raise ValueError("drops belong to schedule=step, which needs them: drops=13,16")
        if self.warmup > self.epochs:
            raise ValueError(f"warmup ({self.warmup} epochs) is longer than the {self.epochs} epochs of a round")
        if not any(0.02 <= (1 - self.ratio) ** level <= 0.3 for level in range(2, self.rounds + 1)):
            raise ValueError(
                f"{self.rounds} rounds at ratio {self.ratio} never leave 2 to 30 % of the weights, at which claims are "
                "judged: change `rounds` or `ratio`"
            )
        return self

    def limits(self, facts: Facts) -> dict[str, tuple[int, int]]:
        used = int(self.subset * facts.train)
        return {"arms": (max(int(arm.split(":")[2]) for arm in self.arms), used)}


class LCSGeometry(Settings):
    """Chapter 6: why iterative magnitude pruning works, seen in the landscape.

    The defaults are ResNet-20 on CIFAR-10 [P, App. B]; what the paper leaves open is its code's (`scales`,
    `standardise`) or ours (`pushes`, `stability_steps`, `dense_seeds`).
    """

    dataset: str = Field(
        "cifar10", description="digits, mnist, fashion_mnist, cifar10, cifar100, or a folder or archive of images"
    )
    model: Literal["lenet_300_100", "resnet8", "resnet20", "resnet18"] = Field("resnet20", description="architecture")
    seeds: int = Field(4, ge=3, le=100, description="networks per method")
    dense_seeds: int = Field(20, ge=3, le=100, description="dense networks whose errors make ε, those of `seeds` first")
    first_seed: int = Field(0, ge=0, description="seed of the first network; the others follow")
    rounds: int = Field(12, ge=3, description="rounds of pruning")
    ratio: float = Field(0.2, gt=0, lt=1, description="share of the weights left that a round prunes")
    rewind_steps: Annotated[list[int], BeforeValidator(_numbers)] = Field(
        [0, 250, 2_000], min_length=2, description="steps that ladders go back to; the last should give tickets"
    )
    stability_steps: Annotated[list[int], BeforeValidator(_numbers)] = Field(
        [0, 100, 250, 500, 2_000, 8_000], min_length=2, description="steps from which two copies are trained"
    )
    steps: int = Field(62_400, gt=0, description="optimiser steps of every training run")
    batch_size: int = Field(128, gt=0, description="training images per step")
    lr: float = Field(0.1, gt=0, description="learning rate at the start")
    milestones: Annotated[list[int], BeforeValidator(_numbers)] = Field(
        [31_200, 46_800], description="steps at which it drops"
    )
    gamma: float = Field(0.1, gt=0, lt=1, description="factor of each drop")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay, in PyTorch's convention")
    augment: bool = Field(True, description="crop and flip the training images at random")
    scales: Literal["ones", "uniform"] = Field(
        "uniform", description="what batch norm's scales begin with: 1, or uniform in [0, 1] as in the authors' code"
    )
    standardise: bool = Field(True, description="images with mean 0 and variance 1 in each channel, as there")
    tune_lr: float = Field(1e-3, gt=0, description="constant learning rate of fine-tuning, a hundredth of `lr`")
    points: int = Field(11, ge=3, description="points on a line between two networks")
    grid: int = Field(51, ge=5, description="points along each side of a slice")
    pictured: int = Field(10_000, ge=10, description="test images whose error the slices show, at most all")
    images: int = Field(
        50_000, ge=10, description="training images that losses and batch norm's statistics are of, at most all"
    )
    probed: Annotated[list[int], BeforeValidator(_numbers)] = Field(
        [2, 4, 6, 8], min_length=2, description="levels that are looked at closely"
    )
    pushes: Annotated[list[float], BeforeValidator(_numbers)] = Field(
        [0, 1, 3], min_length=2, description="lengths of random pushes of the start, 1: that of pruning"
    )
    shares: Annotated[list[float], BeforeValidator(_numbers)] = Field(
        [tenth / 10 for tenth in range(1, 10)], min_length=2, description="shares of the weights pruned in one round"
    )
    lanczos_images: int = Field(
        50_000, ge=10, description="training images that a Hessian is estimated on, at most all"
    )
    lanczos_steps: int = Field(512, ge=10, description="Hessian-vector products per run of Lanczos' method")
    lanczos_runs: int = Field(4, ge=1, description="runs of Lanczos' method per estimated spectrum")
    exact: int = Field(0, ge=0, le=5_000, description="active parameters, at most, whose Hessian is computed entirely")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rewind_steps[0] != 0 or 0 in self.milestones:
            raise ValueError(
                f"rewind_steps begin with 0 and milestones do not, unlike {self.rewind_steps} and {self.milestones}"
            )
        tops = {"rewind_steps": self.steps, "stability_steps": self.steps, "milestones": self.steps}
        for name, top in {**tops, "probed": self.rounds}.items():
            numbers = getattr(self, name)
            if numbers != sorted(set(numbers)) or (numbers and not 0 <= numbers[0] <= numbers[-1] < top):
                raise ValueError(f"{name} must increase and lie from 0 to {top - 1}, not {numbers}")
        if not all(0 < share < 1 for share in self.shares):
            raise ValueError(f"shares must lie between 0 and 1, not {self.shares}")
        if self.pushes[:2] != [0, 1] or self.pushes != sorted(set(self.pushes)):
            raise ValueError(f"pushes begin with 0 and 1 and increase, unlike {self.pushes}")
        if self.probed[0] == 0:
            raise ValueError(f"probed levels are sparse ones, from 1 on, unlike {self.probed}")
        if self.dense_seeds < self.seeds:
            raise ValueError(f"dense_seeds ({self.dense_seeds}) are at least the {self.seeds} networks of `seeds`")
        return self

    def limits(self, facts: Facts) -> dict[str, tuple[int, int]]:
        return {"batch_size": (self.batch_size, facts.train // 2)}  # the spread of a loss over batches needs two

    def trainings(self) -> dict[str, int]:
        """How many networks a run of the chapter trains for each purpose, at most."""
        levels, ladders = len(self.probed), len(self.rewind_steps)
        return {
            "dense networks": self.dense_seeds,
            "ladders to the rewind steps": self.seeds * self.rounds * ladders,
            "random pushes": self.seeds * 2 * (levels + 1) * len(self.pushes),
            "copies, for stability": self.seeds * 4 * len(self.stability_steps),
            "several shares at once": self.seeds * levels * 2 * len(self.shares),
            "other masks": self.seeds * 2 * levels,
            "other ways of training again": self.seeds * (2 * self.rounds + 3 * levels),
            "the adaptive ladder": self.seeds * self.rounds,
        }


CHAPTER_PARAMETERS: dict[str, type[Settings]] = {
    "gradient_flow": GradientFlow,
    "dst_updates": DSTUpdates,
    "lt_basin": LTBasin,
    "tweaks": Tweaks,
    "rti_repulsion": RTIRepulsion,
    "lcs_geometry": LCSGeometry,
}
