"""Exponential-moving-average teachers."""

from __future__ import annotations

import copy

import torch
from torch import nn

from sslcore.validate import require


def ema_copy(module: nn.Module) -> nn.Module:
    """A deep copy whose parameters take no gradient: the starting point of a teacher.

    The copy keeps the train/eval mode of `module`. BYOL and MoCo run their teachers in train mode.
    """
    teacher = copy.deepcopy(module)
    return teacher.requires_grad_(False)


@torch.no_grad()
def update_ema(teacher: nn.Module, student: nn.Module, momentum: float, buffers: bool = True) -> None:
    """Move every teacher parameter towards the student: teacher <- momentum * teacher + (1 - momentum) * student.

    momentum in [0, 1]. 0 makes the teacher an exact copy; 1 leaves it untouched, buffers included.
    Buffers (batch-norm statistics and counters) are not averaged but copied from the student, so a teacher in eval
    mode normalises with the statistics its weights are about to meet. buffers=False leaves them to the teacher, which
    gathers its own where it sees other images than the student. All parameters move in one fused call.
    Raises ValueError if momentum is outside [0, 1] or the two modules differ in parameter or buffer names or shapes.
    """
    require(0.0 <= momentum <= 1.0, f"momentum: expected a number in [0, 1], got {momentum}")
    averaged = _paired(dict(teacher.named_parameters()), dict(student.named_parameters()), "parameters")
    copied = _paired(dict(teacher.named_buffers()), dict(student.named_buffers()), "buffers")
    if momentum == 1.0:
        return
    if averaged[0]:
        torch._foreach_lerp_(averaged[0], averaged[1], 1.0 - momentum)
    if buffers and copied[0]:
        torch._foreach_copy_(copied[0], copied[1])


def _paired(
    teacher: dict[str, torch.Tensor], student: dict[str, torch.Tensor], kind: str
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    odd = sorted(teacher.keys() ^ student.keys())
    require(not odd, f"teacher and student: expected the same {kind}, only one of them has {', '.join(odd[:5])}")
    for name, tensor in teacher.items():
        require(
            tensor.shape == student[name].shape,
            f"{name}: expected equal shapes, teacher has {tuple(tensor.shape)}, student {tuple(student[name].shape)}",
        )
    names = list(teacher)
    return [teacher[name] for name in names], [student[name] for name in names]
