"""This process's place among the ranks, and what a method needs to run on several of them."""

from __future__ import annotations

import gc
import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sslcore.distributed import mean_over_ranks
from sslcore.validate import require


class Ranks:
    """The default process group if torch.distributed has one, else a single process."""

    def __init__(self) -> None:
        running = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self.group = dist.group.WORLD if running else None
        self.rank = dist.get_rank() if running else 0
        self.size = dist.get_world_size() if running else 1

    def part(self, batch_size: int) -> slice:
        """This rank's rows of a batch. Raises ValueError unless the batch divides evenly."""
        require(isinstance(batch_size, int) and batch_size >= 1, f"batch_size: expected at least 1, got {batch_size!r}")
        require(
            batch_size % self.size == 0,
            f"batch_size: expected a multiple of the {self.size} ranks, got {batch_size}",
        )
        rows = batch_size // self.size
        return slice(self.rank * rows, (self.rank + 1) * rows)

    def device(self, wanted: str | torch.device | None) -> torch.device:
        """The device asked for; by default CUDA where there is any: the current device, or this rank's own."""
        device = torch.device(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))
        if device.type == "cuda" and device.index is None:
            place = os.environ.get("LOCAL_RANK") if self.size > 1 else None
            return torch.device("cuda", torch.cuda.current_device() if place is None else int(place))
        return device

    def wrap(self, method: nn.Module, device: torch.device) -> nn.Module:
        """The method itself, or under DistributedDataParallel with BatchNorm over all ranks.

        BatchNorm layers are exchanged in place; they keep their weights and statistics.
        All ranks start from rank 0's weights and buffers. After that buffers are left alone: every rank moves its own
        queue and centre by the same global numbers.
        """
        if self.group is None:
            return method
        convert_batch_norm(method, self.group, device)
        for buffer in method.buffers():
            dist.broadcast(buffer, 0, self.group)
        parallel = nn.parallel.DistributedDataParallel
        renamed = "forward_sync_buffers" in inspect.signature(parallel).parameters  # torch 2.14 renamed the argument
        return parallel(
            method,
            device_ids=[device] if device.type == "cuda" else None,
            process_group=self.group,
            static_graph=True,  # a mask token that a method leaves unused is then no error
            **{"forward_sync_buffers" if renamed else "broadcast_buffers": False},
        )

    def same(self, name: str, value: Any) -> None:
        """Wait for all ranks; raise ValueError on each of them unless they hold the same value."""
        if self.group is None:
            return
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        require(all(other == value for other in values), f"{name}: expected the same on every rank, got {values}")

    @contextmanager
    def entered(self, method: nn.Module) -> Iterator[None]:
        """Let the method's objective see the group while the run lasts."""
        method.group = self.group
        try:
            yield
        finally:
            method.group = None


def leave_group() -> None:
    """End the process group; every rank calls it last.

    Wrapped networks refer to the group in circles. Collected only when the interpreter ends, its threads are at times
    still running then, and the process dies with "terminate called without an active exception".
    """
    gc.collect()
    dist.destroy_process_group()


class GlobalBatchNorm(_BatchNorm):
    """BatchNorm whose statistics are those of the batch of all ranks, on any device.

    torch.nn.SyncBatchNorm does the same, faster, but on CUDA only. Input (n, C, ...); n and further sides may differ
    from rank to rank, as they do where only visible cells are normalised.
    group: None means all ranks there are when it is used, so that a layer can be copied and outlive a group.
    """

    group: dist.ProcessGroup | None = None

    def _check_input_dim(self, input: Tensor) -> None:
        require(input.ndim >= 2, f"input: expected at least 2 dimensions, got shape {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalised input, same shape."""
        if not self.training or not dist.is_initialized():
            return super().forward(input)
        over = [0, *range(2, input.ndim)]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        x, group = input.float(), self.group or dist.group.WORLD
        count = input.numel() // input.shape[1]
        total = mean_over_ranks(torch.tensor(float(count), device=x.device), group) * dist.get_world_size(group)
        weight_of_rank = count * dist.get_world_size(group) / total  # exactly 1 where all ranks hold as much
        mean = mean_over_ranks(x.mean(over) * weight_of_rank, group)
        # Centred first: the mean of squares would cancel where the mean is large.
        centred = x - mean.view(shape)
        var = mean_over_ranks(centred.square().mean(over) * weight_of_rank, group)
        if self.track_running_stats:
            self.num_batches_tracked.add_(1)
            weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), weight)
            self.running_var.lerp_((var.detach() * total / (total - 1).clamp(min=1)).to(self.running_var.dtype), weight)
        out = centred * torch.rsqrt(var + self.eps).view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(input.dtype)


def convert_batch_norm(module: nn.Module, group: dist.ProcessGroup, device: torch.device) -> None:
    """Exchange every BatchNorm inside `module`, in place, for one with statistics over all ranks of `group`."""
    group = None if group is dist.group.WORLD else group  # a group cannot be copied, and a method may be
    for name, child in module.named_children():
        if not isinstance(child, _BatchNorm) or isinstance(child, (nn.SyncBatchNorm, GlobalBatchNorm)):
            convert_batch_norm(child, group, device)
        elif device.type == "cuda":
            setattr(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(child, group))
        else:
            other = GlobalBatchNorm(
                child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
            )
            # The same tensors, because the optimiser already holds them.
            other._parameters, other._buffers = child._parameters, child._buffers
            other.group = group
            setattr(module, name, other.train(child.training))
