"""The few collectives, all of them part of the autograd graph.

Convention. Every rank calls the objective on its own rows and gets the loss of the *global* batch back. The adjoint
of each collective is exact, so the parameter gradient that DistributedDataParallel averages over the ranks is the
gradient of that global loss. `group=None` means local: nothing is exchanged, also when torch.distributed is running.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from sslcore.validate import check_tensor, require, values_are_checked


def _check_group(group: dist.ProcessGroup) -> None:
    require(
        dist.is_available() and dist.is_initialized(),
        "group: expected None while torch.distributed is not initialised; call init_process_group first",
    )
    require(
        dist.get_rank(group) >= 0,
        f"group: expected a group this process belongs to, got none for rank {dist.get_rank()}",
    )


def world_size(group: dist.ProcessGroup | None = None) -> int:
    """Number of processes in the group; 1 for None. Raises ValueError for a group without torch.distributed."""
    if group is None:
        return 1
    _check_group(group)
    return dist.get_world_size(group)


def rank(group: dist.ProcessGroup | None = None) -> int:
    """This process's place in the group, from 0; 0 for None. Raises ValueError for a group it is not in."""
    if group is None:
        return 0
    _check_group(group)
    return dist.get_rank(group)


def is_distributed(group: dist.ProcessGroup | None = None) -> bool:
    """Whether the group has more than one process. False for None, whatever torch.distributed is doing."""
    return world_size(group) > 1


def _check_equal_shapes(x: Tensor, group: dist.ProcessGroup) -> None:
    # Unequal rows would hang or corrupt the collective, and their mean would weigh ranks wrongly. The check itself is
    # a collective, so it runs on every rank or on none: it must not depend on this rank's data.
    if not values_are_checked(x):
        return
    shapes: list[tuple[int, ...] | None] = [None] * dist.get_world_size(group)
    dist.all_gather_object(shapes, tuple(x.shape), group=group)
    require(len(set(shapes)) == 1, f"expected the same shape on every rank, got {shapes}")


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        ctx.rows = x.shape[0]
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, x.contiguous(), group=group)
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        # Every rank's loss used this rank's rows, so their gradients are added before the own slice is cut out.
        total = grad.contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total.narrow(0, dist.get_rank(ctx.group) * ctx.rows, ctx.rows), None


class _Mean(torch.autograd.Function):
    @staticmethod
    def _mean(x: Tensor, group: dist.ProcessGroup) -> Tensor:
        total = x.detach().contiguous().clone()
        dist.all_reduce(total, group=group)
        return total / dist.get_world_size(group)

    @staticmethod
    def forward(ctx, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _Mean._mean(x, group)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        # y_s = sum_r x_r / R for every s is symmetric in r and s: the adjoint is the same mean.
        return _Mean._mean(grad, ctx.group), None


def gather_with_grad(x: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Concatenate every rank's x along dimension 0, in rank order, and let gradients through.

    x: (n, ...), the same shape on every rank. Returns (R * n, ...); x itself for None or one process.
    Backward: the gradients of all ranks are summed, this rank's slice is returned.
    Raises ValueError when shapes differ between ranks; on an accelerator that check runs only with
    SSLCORE_CHECK_VALUES=1 (it would stall the host), and unequal shapes there may hang: drop the last short batch.
    """
    check_tensor("x", x)
    if not is_distributed(group):
        return x
    require(x.ndim >= 1, "x: expected at least one dimension to concatenate along, got a scalar")
    _check_equal_shapes(x, group)
    return _Gather.apply(x, group)


def mean_over_ranks(x: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Average x over the ranks, elementwise, and let gradients through.

    x: any shape, the same on every rank. Returns the same shape; x itself for None or one process.
    Backward: the gradient is averaged over the ranks in the same way. Raises as gather_with_grad does.
    """
    check_tensor("x", x)
    if not is_distributed(group):
        return x
    _check_equal_shapes(x, group)
    return _Mean.apply(x, group)


def from_first_rank(x: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The first rank's x on every rank, for numbers that all must share, such as random directions. No gradient.

    x: any shape, the same on every rank. Returns a tensor of that shape; x itself for None or one process.
    Raises as gather_with_grad does.
    """
    check_tensor("x", x)
    if not is_distributed(group):
        return x
    _check_equal_shapes(x, group)
    shared = x.detach().contiguous().clone()
    dist.broadcast(shared, src=dist.get_global_rank(group, 0), group=group)
    return shared
