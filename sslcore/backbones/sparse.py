"""Convolutions that see only what is visible: hidden cells are exactly zero after every layer.

A convolutional net cannot drop positions as a transformer drops tokens. Zeroing the pixels alone does not hide them
well: within a few layers the holes fill up with what lies beside them, and the zeros enter the statistics of batch
norm. So the mask is applied again after every layer, and batch norm reads visible cells only. Nothing is saved: every
convolution still runs over the whole map. Source: SparK (arXiv 2301.03580), section 3; CNN-JEPA (arXiv 2408.07514).
"""

from __future__ import annotations

from itertools import zip_longest

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sslcore.validate import check_tensor, require, values_are_checked

KEEP_ZERO = (nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Identity, nn.Dropout)  # they map 0 to 0
SPATIAL = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


class Visibility:
    """One mask, at every resolution that is a whole multiple of its own.

    mask: (B, h * w) bool, True = hidden, row by row over grid = (h, w). It travels as an argument through the network,
    so two passes with different masks cannot mix them up.
    Raises TypeError for a mask that is not boolean, ValueError for another shape or nothing visible in the batch.
    """

    def __init__(self, mask: Tensor, batch: int, grid: tuple[int, int]) -> None:
        check_tensor("mask", mask)
        if mask.dtype != torch.bool:
            raise TypeError(f"mask: expected a boolean mask (True = hidden), got {mask.dtype}")
        expected = (batch, grid[0] * grid[1])
        require(tuple(mask.shape) == expected, f"mask: expected shape {expected}, got {tuple(mask.shape)}")
        if values_are_checked(mask):
            require(not bool(mask.all()), "mask: expected at least one visible cell in the batch, got none")
        self.hidden = {grid: mask.reshape(batch, 1, *grid)}
        self.grid = grid
        self.rows: dict[tuple[int, int], Tensor] = {}

    def hidden_at(self, size: tuple[int, int]) -> Tensor:
        """(B, 1, H, W) bool, True = hidden, for maps of this size: each cell of the mask repeated."""
        if size not in self.hidden:
            (height, width), (rows, columns) = size, self.grid
            require(
                height % rows == 0 and width % columns == 0,
                f"mask: expected maps whose sides are multiples of {self.grid}, got a map of {size}",
            )
            fine = self.hidden[self.grid].repeat_interleave(height // rows, 2)
            self.hidden[size] = fine.repeat_interleave(width // columns, 3)
        return self.hidden[size]

    def visible_rows(self, size: tuple[int, int]) -> Tensor:
        """(n,) int64: which cells are visible when maps of this size are laid out as rows (B * H * W, C)."""
        if size not in self.rows:
            self.rows[size] = (~self.hidden_at(size)).flatten().nonzero().squeeze(1)
        return self.rows[size]

    def hide(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) with zeros at hidden cells, whatever stood there."""
        return x.masked_fill(self.hidden_at(tuple(x.shape[2:])), 0)


class _Take(torch.autograd.Function):
    """Chosen cells of a map (B, C, H, W) as rows (n, C). Each is taken once: the gradient is copied back, not added."""

    @staticmethod
    def forward(ctx, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = x.shape
        return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).index_select(0, rows)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return _Put.apply(grad, rows, ctx.shape), None


class _Put(torch.autograd.Function):
    """A map of zeros, channels last, with these rows (n, C) in it: the adjoint of _Take."""

    @staticmethod
    def forward(ctx, values: Tensor, rows: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(rows)
        look = {"dtype": values.dtype, "device": values.device, "memory_format": torch.channels_last}
        x = torch.empty(shape, **look).zero_()  # not a view, so that a ReLU may work on it in place
        x.permute(0, 2, 3, 1).view(-1, shape[1]).index_copy_(0, rows, values)
        return x

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        (rows,) = ctx.saved_tensors
        return _Take.apply(grad, rows), None, None


def norm_of_visible(norm: nn.Module, x: Tensor, visibility: Visibility) -> Tensor:
    """Batch norm whose statistics, running ones included, are those of the visible cells; zero elsewhere.

    x (B, C, H, W). The visible cells are laid out as one map (1, C, n, 1), so that any 2-D batch norm serves, also one
    over several processes. A result of 0 or below does not mean hidden: cells are hidden after the offset is added.
    """
    rows = visibility.visible_rows((x.shape[2], x.shape[3]))
    seen = _Take.apply(x, rows)
    # This order of view and permute gives strides that say channels last beyond doubt. Others look alike, and torch
    # (2.14, on the CPU) then takes the gradient of the batch norm for one laid out the other way: wrong numbers.
    seen = norm(seen.view(1, len(rows), 1, -1).permute(0, 3, 1, 2))
    return _Put.apply(seen.permute(0, 2, 3, 1).reshape(len(rows), -1), rows, x.shape)


def sparse_pass(module: nn.Module, x: Tensor, visibility: Visibility) -> Tensor:
    """module(x) with the mask applied after every layer; x (B, C, H, W) is zero at hidden cells, so is the result.

    module: convolutions, pooling, 2-D batch norm, activations that keep zero, chains of these, and residual blocks
    named as torchvision names them. The module's own weights are used: there is no copy to keep in step.
    Raises ValueError for anything else: a layer that looks at the whole map has no sparse form of this kind.
    """
    if isinstance(module, nn.Sequential):
        return _chain(list(module), x, visibility)
    if isinstance(module, KEEP_ZERO):
        return module(x)
    if isinstance(module, SPATIAL):
        return visibility.hide(module(x))
    if isinstance(module, _BatchNorm):
        return norm_of_visible(module, x, visibility)
    require(
        all(hasattr(module, name) for name in ("conv1", "bn1", "conv2", "bn2", "relu", "downsample")),
        f"mask: {type(module).__name__} has no sparse form here; expected convolutions, pooling, batch norm, "
        "activations that keep zero, or torchvision's residual blocks",
    )
    shortcut = x if module.downsample is None else sparse_pass(module.downsample, x, visibility)
    layers = [module.conv1, module.bn1, module.relu, module.conv2, module.bn2]
    if hasattr(module, "conv3"):
        layers += [module.relu, module.conv3, module.bn3]
    return module.relu(_chain(layers, x, visibility) + shortcut)


class Stage(nn.Sequential):
    """A chain called as one, also with cells hidden: FSDP gathers the weights of what is called."""

    def forward(self, x: Tensor, visibility: Visibility | None = None) -> Tensor:
        return super().forward(x) if visibility is None else sparse_pass(self, x, visibility)


def _chain(layers: list[nn.Module], x: Tensor, visibility: Visibility) -> Tensor:
    for layer, after in zip_longest(layers, layers[1:]):
        # A batch norm reads visible cells and leaves zeros elsewhere: no need to hide right in front of it.
        hidden_next = isinstance(layer, SPATIAL) and isinstance(after, _BatchNorm)
        x = layer(x) if hidden_next else sparse_pass(layer, x, visibility)
    return x
