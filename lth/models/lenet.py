"""The two small networks of the MNIST experiments."""

from __future__ import annotations

from torch import Tensor, nn

from lth.errors import UsageError
from lth.models.activation import ACTIVATIONS, pooled


class LeNet5(nn.Module):
    """LeNet5 as [E] uses it: 44,426 parameters on 1×28×28 inputs with 10 classes.

    conv 6@5×5 – pool – conv 16@5×5 – pool – 120 – 84 – classes, the activation after each but the last.
    `widths` are the numbers of channels and neurons of the four hidden layers; [E]'s small dense network has
    (3, 3, 27, 20). Raises UsageError for images smaller than 16×16, of which the convolutions would leave
    nothing.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        activation: str = "relu",
        widths: tuple[int, ...] = (6, 16, 120, 84),
    ) -> None:
        super().__init__()
        channels, height, width = shape
        if min(height, width) < 16:
            raise UsageError(f"LeNet5 needs images of at least 16×16 pixels, not {height}×{width}")
        self.activation = ACTIVATIONS[activation]
        maps1, maps2, neurons1, neurons2 = widths
        self.conv1 = nn.Conv2d(channels, maps1, 5)
        self.conv2 = nn.Conv2d(maps1, maps2, 5)
        flat = maps2 * (((height - 4) // 2 - 4) // 2) * (((width - 4) // 2 - 4) // 2)
        self.fc1 = nn.Linear(flat, neurons1)
        self.fc2 = nn.Linear(neurons1, neurons2)
        self.fc3 = nn.Linear(neurons2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → logits (B, classes)."""
        x = pooled(self.activation, self.conv1(x))
        x = pooled(self.activation, self.conv2(x))
        x = self.activation(self.fc1(x.flatten(1)))
        x = self.activation(self.fc2(x))
        return self.fc3(x)


class LeNet300100(nn.Module):
    """The fully connected LeNet 300-100: 266,610 parameters on 784 inputs with 10 classes.

    `widths` are the numbers of neurons of its two hidden layers; [E]'s small dense network has (8, 8).
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        activation: str = "relu",
        widths: tuple[int, ...] = (300, 100),
    ) -> None:
        super().__init__()
        channels, height, width = shape
        self.activation = ACTIVATIONS[activation]
        neurons1, neurons2 = widths
        self.fc1 = nn.Linear(channels * height * width, neurons1)
        self.fc2 = nn.Linear(neurons1, neurons2)
        self.fc3 = nn.Linear(neurons2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → logits (B, classes)."""
        x = self.activation(self.fc1(x.flatten(1)))
        x = self.activation(self.fc2(x))
        return self.fc3(x)
