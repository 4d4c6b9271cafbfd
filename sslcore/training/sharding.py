"""Large backbones: parameters, gradients and optimiser state spread over the ranks by torch's FSDP2."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sslcore.training.batches import map_tensors
from sslcore.training.ranks import Ranks, convert_batch_norm
from sslcore.validate import require

UNITS = ("blocks", "stages", "layers")  # attributes whose children are gathered one at a time


def sharded_copy(method: nn.Module, ranks: Ranks, device: torch.device) -> nn.Module:
    """A copy of the method that holds 1/R of every parameter on each of R ranks; the method itself stays whole.

    Each child of a list called blocks, stages or layers is gathered when it runs and let go after; what is left over
    (patch embedding, norms, heads) is gathered for the whole step. Buffers stay whole on every rank. A teacher is
    sharded as its student is, so that a moving average moves the rank's own part.
    Raises ValueError on one process, on a torch without FSDP2, and for scalar parameters, which cannot be split.
    """
    require(ranks.group is not None, "fsdp: expected several processes (torchrun --nproc-per-node R), got one")
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError as error:
        raise ValueError(f"fsdp: expected torch 2.6 or newer, got {torch.__version__}") from error
    from torch.distributed.device_mesh import init_device_mesh

    scalars = [name for name, weight in method.named_parameters() if weight.ndim == 0]
    require(not scalars, f"fsdp: a scalar parameter cannot be split, give {', '.join(scalars[:3])} the shape (1,)")
    # Every rank must split the same weights, as DistributedDataParallel sees to for itself.
    method = copy.deepcopy(method).to(device)
    for tensor in (*method.parameters(), *method.buffers()):
        dist.broadcast(tensor.detach(), 0, ranks.group)
    convert_batch_norm(method, ranks.group, device)
    mesh = init_device_mesh(device.type, (ranks.size,))
    for unit in _units(method):
        fully_shard(unit, mesh=mesh)
    fully_shard(method, mesh=mesh)
    # Blocks return slices; nothing here writes into them.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    return method


@contextmanager
def needs_parts_only(method: str) -> Iterator[None]:
    """Around the steps: say in words what torch says when a network is run while its weights are in parts."""
    try:
        yield
    except RuntimeError as error:
        if "DTensor" not in str(error):
            raise
        raise ValueError(
            f"fsdp: {method} runs its network outside of its loss, or takes gradients inside it; train it without fsdp"
        ) from error


def _units(method: nn.Module) -> list[nn.Module]:
    lists = [child for name, child in method.named_modules() if name.rpartition(".")[2] in UNITS]
    lists = [child for child in lists if isinstance(child, (nn.ModuleList, nn.Sequential))]
    return [unit for child in lists for unit in child if any(True for _ in unit.parameters())]


def gathered(state: Any, keep: bool = True) -> Any:
    """A state dict with every sharded tensor whole, on the CPU; what was whole stays as it is.

    A collective: every rank calls it. keep=False takes part and returns nothing whole, so that only the rank that
    writes needs the memory.
    """

    def whole(tensor: Tensor) -> Tensor:
        if not hasattr(tensor, "full_tensor"):
            return tensor
        complete = tensor.full_tensor()
        return complete.cpu() if keep else complete.new_empty(0)

    return map_tensors(dict(state), whole)


def like(whole: Tensor, place: Tensor) -> Tensor:
    """`whole` split over the ranks as `place` is; itself where `place` is not split. A collective."""
    if not hasattr(place, "full_tensor"):
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole.to(place.device), place.device_mesh, place.placements)


def split_states(saved: dict[str, Any], method: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Whole states from a checkpoint, split as the method and its optimiser are now: on as many ranks, or on none."""
    own = method.state_dict()
    weights = {name: like(value, own[name]) if name in own else value for name, value in saved["method"].items()}
    parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
    states = {
        row: {
            name: like(value, parameters[row])
            if isinstance(value, Tensor) and value.shape == parameters[row].shape
            else value
            for name, value in state.items()
        }
        for row, state in saved["optimizer"]["state"].items()
    }
    return {"method": weights, "optimizer": {**saved["optimizer"], "state": states}}
