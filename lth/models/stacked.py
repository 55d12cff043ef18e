"""R networks of one architecture as a single network that is R times as wide.

On a GPU, R small convolutions one after another leave it idle. So every layer of a plain module is exchanged for
one that holds all replicas: activations have R·C channels, replica by replica, a convolution becomes a grouped
one with R groups, batch norm has R·C channels, a linear layer is R matrix products at once. What lies between the
layers (activations, pooling, sums) does not care how many channels there are: the architectures are written once.

What a small network costs a GPU is not arithmetic but memory: bytes read and written, and kernels started. So there
(`on_gpu`) layers take another form where one moves fewer of them, as counted from the compiler's code for a step
(`tests/test_kernels.py`):

- A linear layer computes W·xᵀ in place of x·Wᵀ. Then W's gradient, gᵀ·x, arrives with its numbers in the order of W,
  and one kernel updates all weights; transposed, each needs a kernel of its own, which reads against the grain.
- Its output is put in order, (B, R, O), before the activation sees it: what ReLU writes is then also what the backward
  pass wants kept. In the order of the product it is written twice. The bias joins that kernel.
- A 1×1 convolution with a stride is a product of matrices, and passes back the gradient of the pixels that it saw.

Counted and left out: 1×1 convolutions without a stride as products, whose layout then has to be changed back; strided
3×3 ones, those of few channels and LeNet5's as products of their unfolded images. They spare grouped convolutions, but
a window of 3×3 writes every pixel several times.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def on_gpu(x: Tensor) -> bool:
    """Whether layers take the form that moves fewer bytes on a GPU; it rounds otherwise, and a CPU keeps its digits."""
    return x.is_cuda


class StackedConv2d(nn.Module):
    """Convolution of R replicas: (B, R·C, H, W) → (B, R·O, H', W'); `weight` is (R, O, C/groups, k, k)."""

    def __init__(self, one: nn.Conv2d) -> None:
        super().__init__()
        self.stride, self.padding, self.dilation, self.groups = one.stride, one.padding, one.dilation, one.groups
        self.weight, self.bias = one.weight, one.bias

    def forward(self, x: Tensor) -> Tensor:
        one_pixel = self.weight.shape[3:] == (1, 1) and (self.padding, self.groups) == ((0, 0), 1)
        if on_gpu(x) and one_pixel and self.stride != (1, 1):
            out = self._product(x)
            return out if self.bias is None else out + self.bias.flatten().to(out.dtype)[:, None, None]
        weight, bias = self.weight.flatten(0, 1), None if self.bias is None else self.bias.flatten()
        groups = self.groups * len(self.weight)
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, groups)

    def _product(self, x: Tensor) -> Tensor:
        """A 1×1 convolution as R products of matrices, of the pixels that its stride leaves."""
        down, across = self.stride
        x = x.unflatten(1, (len(self.weight), -1))[..., ::down, ::across].permute(1, 2, 0, 3, 4)  # (R, C, B, H', W')
        out = self.weight[..., 0, 0] @ x.flatten(2)
        return out.unflatten(2, x.shape[2:]).permute(2, 0, 1, 3, 4).flatten(1, 2)


class StackedBatchNorm2d(nn.Module):
    """Batch norm of R replicas: (B, R·C, H, W) → the same; `running_mean` is (R, C)."""

    def __init__(self, one: nn.BatchNorm2d) -> None:
        super().__init__()
        self.momentum, self.eps = one.momentum, one.eps
        self.weight, self.bias = one.weight, one.bias
        self.register_buffer("running_mean", one.running_mean)
        self.register_buffer("running_var", one.running_var)

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean.flatten(), self.running_var.flatten()  # views: the statistics are kept
        affine = (None, None) if self.weight is None else (self.weight.flatten(), self.bias.flatten())
        return F.batch_norm(x, mean, var, *affine, self.training, self.momentum, self.eps)


class StackedLinear(nn.Module):
    """Linear layer of R replicas: (B, R·I) or (B, R, I) → (B, R, O); `weight` is (R, O, I)."""

    def __init__(self, one: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = one.weight, one.bias

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(1, (len(self.weight), -1)) if x.ndim == 2 else x
        if on_gpu(x):
            out = (self.weight @ x.permute(1, 2, 0)).permute(2, 0, 1).contiguous()
            return out if self.bias is None else out + self.bias.to(out.dtype)
        x, weight = x.transpose(0, 1), self.weight.mT
        out = x @ weight if self.bias is None else self.bias[:, None].baddbmm(x, weight)
        return out.transpose(0, 1)


STACKED = {nn.Conv2d: StackedConv2d, nn.BatchNorm2d: StackedBatchNorm2d, nn.Linear: StackedLinear}


def stack(module: nn.Module) -> nn.Module:
    """The same network, its layers exchanged in place for those above; parameters keep their names.

    What the layers hold is still one replica's: put the stacked tensors, (R, *shape), in their place. The network
    then maps (B, R·C, H, W) to (B, R, classes).
    """
    for name, child in module.named_children():
        if type(child) in STACKED:
            setattr(module, name, STACKED[type(child)](child))
        else:
            stack(child)
    return module
