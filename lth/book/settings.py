"""What can be set in each chapter: types, ranges and meaning. The defaults are the papers' own settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

SMALLEST_LAYER = 150  # weights of LeNet5's first layer on images of one channel


class SparseTraining(BaseModel):
    """What the chapters on sparse training, 1 and 2, have in common: LeNet5, its pruning, its mask updates.

    The defaults are the papers' settings [E, Table 4], with more networks than its five: of two in three that learn and
    all that learn, five of each cannot be told apart. The two chapters share the networks that they train alike.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

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
    dst_every: int = Field(500, gt=0, description="steps between two mask updates (100 in the authors' code)")
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


class GradientFlow(SparseTraining):
    """Chapter 1: initial weights of sparse networks, and the gradient flow in training."""

    high_sparsity: float = Field(0.98, gt=0, lt=1, description="sparsity of the second table, and of the MLP 300-100")
    mlp_seeds: int = Field(10, ge=3, le=100, description="networks per method of the MLP 300-100")
    mlp_lr: float = Field(0.2, gt=0, description="learning rate of the MLP 300-100 at the start, as the text has it")
    mlp_weight_decay: float = Field(1e-4, ge=0, description="and its weight decay; `lr` and `weight_decay` beside them")
    draws: int = Field(10_000, ge=100, description="random draws in the checks of the derivation")
    inputs: int = Field(200, ge=10, description="random images for the signal propagation")


class DSTUpdates(SparseTraining):
    """Chapter 2: what mask updates do to the gradient and to the Hessian."""

    hessian_images: int = Field(60_000, ge=10, description="training images that give an exact Hessian, at most all")
    lanczos_images: int = Field(1_000, ge=10, description="training images that give an estimated one, at most all")
    lanczos_steps: int = Field(40, ge=10, description="Hessian-vector products per estimated spectrum")


class LTBasin(BaseModel):
    """Chapter 3: lottery tickets and the basin of the pruning solution.

    The defaults are the papers' settings [E, Table 3].
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dataset: str = Field("mnist", description="digits, mnist, fashion_mnist, or a folder or archive of images")
    model: Literal["lenet5", "lenet_300_100"] = Field("lenet5", description="architecture")
    seeds: int = Field(5, ge=3, le=200, description="networks per method; the jackknife over pairs needs three")
    first_seed: int = Field(0, ge=0, description="seed of the first network; the others follow")
    sparsity: float = Field(0.95, gt=0, lt=1, description="fraction of each layer's weights that is pruned")
    steps: int = Field(11_719, gt=0, description="optimiser steps of every training run")
    batch_size: int = Field(128, gt=0, description="training images per step")
    lr: float = Field(0.05, gt=0, description="learning rate at the start of the cosine schedule")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD")
    weight_decay: float = Field(0.0, ge=0, description="weight decay, in PyTorch's convention")
    prune_start: int = Field(3_000, ge=0, description="step at which gradual pruning begins")
    prune_end: int = Field(7_000, gt=0, description="step at which the final sparsity is reached")
    prune_every: int = Field(100, gt=0, description="steps between two prunings")
    rewind_step: int = Field(0, ge=0, description="K: step of the pruning run that tickets are rewound to")
    points: Annotated[Literal[8, 15, 29], BeforeValidator(int)] = Field(
        29, description="points on each path, α from −0.2 to 1.2"
    )

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
        return self


def _numbers(text: Any) -> Any:
    """«10,60» → [10, 60], for the command line."""
    return [word for word in text.split(",") if word] if isinstance(text, str) else text


Network = Literal[
    "resnet8", "resnet14", "resnet20", "resnet32", "resnet18", "resnet34", "resnet50", "vgg16_bn", "mobilenet"
]


class Tweaks(BaseModel):
    """Chapter 4: what to do with a ticket once it is drawn.

    The defaults are ResNet-18 on CIFAR-100 [J, Sec. 4.1]; what the paper leaves open is the authors' code's, or ours
    (`kappa`, `temperature`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dataset: str = Field(
        "cifar100", description="digits, mnist, fashion_mnist, cifar10, cifar100, or a folder or archive of images"
    )
    model: Network = Field("resnet18", description="architecture")
    seeds: int = Field(3, ge=2, le=100, description="networks per method")
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
    precision: Literal["fp32", "tf32", "bf16"] = Field("fp32", description="of the products in training")
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
    rewind_step: int = Field(11_583, gt=0, description="step whose weights rewound tickets start from: epoch 33")
    batches: int = Field(10, gt=0, description="batches on which the Hessian's top eigenvalue is found")
    tolerance: float = Field(1e-3, gt=0, lt=1, description="relative error of an eigenvalue at which the search ends")
    grid: int = Field(21, ge=3, description="points along each side of a picture of the landscape; odd")
    images: int = Field(1_000, ge=10, description="test images whose loss it shows, at most all")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.levels != sorted(set(self.levels)) or not 1 <= self.levels[0] <= self.levels[-1] <= self.rounds:
            raise ValueError(f"levels must increase and lie from 1 to {self.rounds}, not {self.levels}")
        if self.shown not in self.levels:
            raise ValueError(f"shown ({self.shown}) must be one of the levels {self.levels}")
        for name in ("rewind_step", "validate_every"):
            if getattr(self, name) > self.steps - (name == "rewind_step"):
                raise ValueError(f"{name} ({getattr(self, name)}) lies beyond the run of {self.steps} steps")
        if self.grid % 2 == 0:
            raise ValueError(f"grid must be odd, so that the network itself is in the picture, not {self.grid}")
        if self.skips != "none" and not self.model.startswith("resnet"):
            raise ValueError(f"{self.model} has no place for extra skips: set skips=none")
        return self


class RTIRepulsion(BaseModel):
    """Chapter 5: do tickets find an old solution again, and what if that is forbidden?

    The defaults are LeNet 300-100 on MNIST [M, Table 1]; the batch sizes below 60 are ours.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dataset: str = Field("mnist", description="digits, mnist, fashion_mnist, cifar10, or a folder or archive of images")
    model: Literal["lenet_300_100", "conv4", "resnet20"] = Field("lenet_300_100", description="architecture")
    seeds: int = Field(3, ge=3, le=100, description="networks per method and batch size")
    first_seed: int = Field(0, ge=0, description="seed of the first network; the others follow")
    rounds: int = Field(25, ge=4, description="rounds of pruning")
    ratio: float = Field(0.2, gt=0, lt=1, description="share of the weights left that a round prunes")
    epochs: int = Field(25, gt=0, description="passes through the training images in every round")
    batch_sizes: Annotated[list[int], BeforeValidator(_numbers)] = Field(
        [20, 60], min_length=2, description="training images per step; the smallest is for the unstable training"
    )
    optimizer: Literal["adam", "sgd"] = Field("adam", description="adam, or sgd with momentum 0.9")
    lr: float = Field(1.2e-3, gt=0, description="learning rate")
    schedule: Literal["constant", "cosine", "step"] = Field(
        "constant", description="of the learning rate; step: to a tenth after 2/3 and after 5/6 of the run"
    )
    warmup: int = Field(0, ge=0, description="epochs over which the learning rate rises at the start")
    weight_decay: float = Field(0.0, ge=0, description="weight decay, in PyTorch's convention")
    decay_tested: float = Field(1e-4, gt=0, description="weight decay of the networks compared with the others")
    augment: bool = Field(False, description="crop and flip the training images at random")
    repel: float = Field(2.0, gt=0, description="λ_r of repulsion")
    attract: float = Field(-1.0, lt=0, description="λ_r of attraction")
    points: int = Field(20, ge=3, description="points on a line between two networks")

    @model_validator(mode="after")
    def _increasing(self) -> Self:
        if self.batch_sizes != sorted(set(self.batch_sizes)) or self.batch_sizes[0] < 1:
            raise ValueError(f"batch_sizes must increase, as in 8,60, not {self.batch_sizes}")
        if self.warmup > self.epochs:
            raise ValueError(f"warmup ({self.warmup} epochs) is longer than the {self.epochs} epochs of a round")
        if not any(0.02 <= (1 - self.ratio) ** level <= 0.3 for level in range(2, self.rounds + 1)):
            raise ValueError(
                f"{self.rounds} rounds at ratio {self.ratio} never leave 2 to 30 % of the weights, at which claims are "
                "judged: change `rounds` or `ratio`"
            )
        return self


class LCSGeometry(BaseModel):
    """Chapter 6: why iterative magnitude pruning works, seen in the landscape.

    The defaults are ResNet-20 on CIFAR-10 [P, App. B].
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dataset: str = Field(
        "cifar10", description="digits, mnist, fashion_mnist, cifar10, cifar100, or a folder or archive of images"
    )
    model: Literal["lenet_300_100", "resnet20", "resnet18"] = Field("resnet20", description="architecture")
    seeds: int = Field(4, ge=3, le=100, description="networks per method")
    first_seed: int = Field(0, ge=0, description="seed of the first network; the others follow")
    rounds: int = Field(12, ge=3, description="rounds of pruning")
    ratio: float = Field(0.2, gt=0, lt=1, description="share of the weights left that a round prunes")
    rewind_steps: Annotated[list[int], BeforeValidator(_numbers)] = Field(
        [0, 250, 2_000], min_length=2, description="steps that ladders go back to; the last should give tickets"
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
    tune_lr: float = Field(1e-3, gt=0, description="constant learning rate of fine-tuning, a hundredth of `lr`")
    points: int = Field(11, ge=3, description="points on a line between two networks")
    grid: int = Field(51, ge=5, description="points along each side of a slice")
    probed: Annotated[list[int], BeforeValidator(_numbers)] = Field(
        [2, 4, 6, 8], min_length=2, description="levels at which the predicted pruning ratio is tested"
    )
    shares: Annotated[list[float], BeforeValidator(_numbers)] = Field(
        [tenth / 10 for tenth in range(1, 10)], min_length=2, description="shares of the weights that are pruned there"
    )
    lanczos_images: int = Field(
        10_000, ge=10, description="training images that a Hessian is estimated on, at most all"
    )
    lanczos_steps: int = Field(512, ge=10, description="Hessian-vector products per run of Lanczos' method")
    lanczos_runs: int = Field(4, ge=1, description="runs of Lanczos' method per estimated spectrum")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rewind_steps[0] != 0 or 0 in self.milestones:
            raise ValueError(
                f"rewind_steps begin with 0 and milestones do not, unlike {self.rewind_steps} and {self.milestones}"
            )
        for name, top in (("rewind_steps", self.steps), ("milestones", self.steps), ("probed", self.rounds)):
            numbers = getattr(self, name)
            if numbers != sorted(set(numbers)) or (numbers and not 0 <= numbers[0] <= numbers[-1] < top):
                raise ValueError(f"{name} must increase and lie from 0 to {top - 1}, not {numbers}")
        if not all(0 < share < 1 for share in self.shares):
            raise ValueError(f"shares must lie between 0 and 1, not {self.shares}")
        return self


CHAPTER_PARAMETERS: dict[str, type[BaseModel]] = {
    "gradient_flow": GradientFlow,
    "dst_updates": DSTUpdates,
    "lt_basin": LTBasin,
    "tweaks": Tweaks,
    "rti_repulsion": RTIRepulsion,
    "lcs_geometry": LCSGeometry,
}
