"""The two small networks of the MNIST experiments."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lth.errors import UsageError


class LeNet5(nn.Module):
    """LeNet5 with ReLU, as [E] uses it: 44,426 parameters on 1×28×28 inputs with 10 classes.

    conv 6@5×5 – pool – conv 16@5×5 – pool – 120 – 84 – classes. The pool comes before the ReLU: the two
    commute (both are monotone), and in this order the ReLU has a quarter of the work. Raises UsageError for
    images smaller than 16×16, of which the convolutions would leave nothing.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        if min(height, width) < 16:
            raise UsageError(f"LeNet5 needs images of at least 16×16 pixels, not {height}×{width}")
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        flat = 16 * (((height - 4) // 2 - 4) // 2) * (((width - 4) // 2 - 4) // 2)
        self.fc1 = nn.Linear(flat, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → logits (B, classes)."""
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        x = F.relu(self.fc1(x.flatten(1)))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


class LeNet300100(nn.Module):
    """The fully connected LeNet 300-100: 266,610 parameters on 784 inputs with 10 classes."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.fc1 = nn.Linear(channels * height * width, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → logits (B, classes)."""
        x = F.relu(self.fc1(x.flatten(1)))
        x = F.relu(self.fc2(x))
        return self.fc3(x)
