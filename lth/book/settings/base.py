"""What the settings of all chapters have in common, and what images must be like to fit them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import Field

from lth.checked import Checked
from lth.errors import UsageError
from lth.files import shown

if TYPE_CHECKING:
    from lth.data import Data

FEWEST = 20  # images, for training and for the test: an error is a share of them
IMAGES = {"dataset", "imagenet"}  # parameters that are names of images, or where they lie
Presets = dict[str, dict[str, Any]]  # preset → parameter → value, where it is not the paper's


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
                    others = [other for other in self.choices("model") if _fits(other, facts)]
                    hint = f". These fit: {', '.join(f'-p model={other}' for other in others)}" if others else ""
                    said = f"dataset={shown(self.dataset)} does not fit the model {name}: {error}{hint}"
                    raise UsageError(said) from error

    @classmethod
    def choices(cls, name: str) -> tuple[str, ...]:
        """The values that a parameter can have, where they are few words; else none."""
        kind = cls.model_fields[name].annotation if name in cls.model_fields else None
        return get_args(kind) if get_origin(kind) is Literal else ()


def _fits(model: str, facts: Facts) -> bool:
    """Whether an architecture takes these images."""
    from lth.models import Model

    try:
        return bool(Model(model, facts.shape, facts.classes).shapes)
    except UsageError:
        return False


def words(text: Any) -> Any:
    """«10,60» → [10, 60], for the command line."""
    return [word for word in text.split(",") if word] if isinstance(text, str) else text


def whole(text: Any) -> Any:
    """«8» and «8.0» → 8, for the command line; anything else stays as it is, for the message that refuses it."""
    try:
        return int(float(text)) if float(text).is_integer() else text
    except (ValueError, TypeError, OverflowError):
        return text


def pruning_within(steps: int, start: int, end: int) -> None:
    """ValueError where gradual pruning does not begin before it ends, within the run."""
    if not start < end <= steps:
        raise ValueError(
            f"pruning must start before it ends, within the run: 0 ≤ prune_start ({start}) < prune_end ({end}) "
            f"≤ steps ({steps})"
        )
