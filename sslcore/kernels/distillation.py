"""Cross-entropy between teachers and students without a copy of the logits: the loss of DINO and of iBOT.

With p = softmax of the teacher and s the student's scaled logits, the cross-entropy is logsumexp(s) - <p, s>, so the
teachers of an image are added up first and each student crop is read once. Backward reads the logits again and writes
the gradient; nothing else of their size exists.

This is plain torch for CPUs, a few images at a time; sslcore.kernels.distillation_gpu is Triton for NVIDIA GPUs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sslcore.kernels.derivative import first_derivative_only

STRIP_VALUES = 2**18  # logits held in full precision at once, within a core's cache


class Settings(NamedTuple):
    """student_temp, teacher_temp: temperatures. skip_own: leave out the pairs of a crop with itself."""

    student_temp: float
    teacher_temp: float
    skip_own: bool


def _targets(teacher: Tensor, center: Tensor, temperature: float) -> Tensor:
    return ((teacher.to(center.dtype) - center) / temperature).softmax(dim=2)


def masses(num_student: int, num_teacher: int, skip_own: bool, device: torch.device) -> Tensor:
    """(S, 1): how many teachers each student crop is compared with."""
    own = (torch.arange(num_student, device=device)[:, None] < num_teacher) & skip_own
    return num_teacher - own.float()


class _Strips(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, student: Tensor, teacher: Tensor, center: Tensor, weight: Tensor, settings: Settings, strip_values: int
    ) -> Tensor:
        wide = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), center.dtype)
        center = center.to(torch.promote_types(wide, torch.float32))
        num = max(1, strip_values // ((len(student) + len(teacher)) * student.shape[2]))
        wanted = weight.nonzero()[:, 0]
        if len(wanted) == len(weight):  # slices are views, index tensors copy
            ctx.rows = [slice(start, start + num) for start in range(0, len(weight), num)]
        else:
            ctx.rows = wanted.split(num)
        ctx.settings = settings
        ctx.save_for_backward(student, teacher, center, weight)
        losses = []
        for rows in ctx.rows:
            targets = _targets(teacher[:, rows], center, settings.teacher_temp)
            log_probs = (student[:, rows].to(center.dtype) / settings.student_temp).log_softmax(dim=2)
            products = (log_probs.sum(dim=0) * targets.sum(dim=0)).sum(dim=1)
            if settings.skip_own:
                products -= (log_probs[: len(targets)] * targets).sum(dim=(0, 2))
            losses.append(-weight[rows] @ products)
        return torch.stack(losses).sum()

    @staticmethod
    @first_derivative_only
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        student, teacher, center, weight = ctx.saved_tensors
        mass = masses(len(student), len(teacher), ctx.settings.skip_own, student.device).to(center.dtype)
        result = torch.empty_like(student) if isinstance(ctx.rows, list) else torch.zeros_like(student)
        for rows in ctx.rows:
            factor = weight[rows] * (grad / ctx.settings.student_temp)
            targets = _targets(teacher[:, rows], center, ctx.settings.teacher_temp).mul_(factor[:, None])
            shares = (student[:, rows].to(center.dtype) / ctx.settings.student_temp).softmax(dim=2)
            shares.mul_((mass * factor)[..., None]).sub_(targets.sum(dim=0))
            if ctx.settings.skip_own:
                shares[: len(targets)] += targets
            result[:, rows] = shares.to(student.dtype)
        return result, None, None, None, None, None


def summed_cross_entropy(
    student: Tensor,
    teacher: Tensor,
    center: Tensor,
    weight: Tensor,
    student_temp: float,
    teacher_temp: float,
    skip_own: bool,
    strip_values: int = STRIP_VALUES,
) -> Tensor:
    """Weighted sum of cross-entropies of each student crop with the teachers' crops, a strip of rows at a time.

        for r in range(R), s in range(S), t in range(T):
            if not (skip_own and s == t):
                target = softmax((teacher[t, r] - center) / teacher_temp)
                total += weight[r] * cross_entropy(target, student[s, r] / student_temp)

    student (S, R, K), teacher (T, R, K), center (K,): logits of any floating-point type. weight (R,): rows of weight
    zero are not read. strip_values: how many logits may be held in full precision at once. Gradient to student only.
    Chosen on CPUs for large logits; loses on small ones, where the plain form is a few calls.
    """
    settings = Settings(student_temp, teacher_temp, skip_own)
    return _Strips.apply(student, teacher.detach(), center.detach(), weight, settings, strip_values)
