"""Self-distillation objectives: predict what a slowly moving copy of yourself says about another view."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sslcore.distributed import mean_over_ranks
from sslcore.kernels import distillation
from sslcore.objectives.precision import full_precision, unit_rows, without_autocast
from sslcore.validate import (
    check_finite,
    check_float,
    check_mask,
    check_positive,
    check_rank,
    check_same_device,
    check_same_shape,
    require,
)

if TYPE_CHECKING:  # some builds of torch have no torch.distributed
    from torch.distributed import ProcessGroup


@without_autocast
def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """Minus the cosine between a prediction and its target.

        for n in range(N):
            losses[n] = -normalise(p[n]) @ normalise(z[n])
        return mean(losses)

    p: (N, D) predictions. z: (N, D) targets; gradients reach both, so the caller detaches z. Returns a scalar in
    [-1, 1]. SimSiam is half the sum of the two directions; BYOL is 4 + 2 * that sum.
    Raises ValueError for wrong rank, shapes that differ, an empty batch or NaN; TypeError for integers.
    Source: Chen & He 2021 (SimSiam), equation 1; Grill et al. 2020 (BYOL), equation 2.
    """
    for name, value in (("p", p), ("z", z)):
        check_rank(name, value, 2)
        check_float(name, value)
        check_finite(name, value)
    check_same_shape("p", p, "z", z)
    require(p.numel() >= 1, f"p, z: expected at least one row and one dimension, got {tuple(p.shape)}")
    return -(unit_rows(p) * unit_rows(z)).sum(dim=1).mean()


def _check_logits(student: Tensor, teacher: Tensor, center: Tensor, student_temp: float, teacher_temp: float) -> None:
    for name, value, rank in (("student_logits", student, 3), ("teacher_logits", teacher, 3), ("center", center, 1)):
        check_rank(name, value, rank)
        check_float(name, value)
        require(value.numel() >= 1, f"{name}: expected at least one value, got shape {tuple(value.shape)}")
        check_finite(name, value)
    check_same_device("student_logits", student, "teacher_logits", teacher)
    check_same_device("student_logits", student, "center", center)
    classes = (student.shape[2], teacher.shape[2], center.shape[0])
    require(len(set(classes)) == 1, f"expected one number of prototypes K for student, teacher, center, got {classes}")
    check_positive("student_temp", student_temp)
    check_positive("teacher_temp", teacher_temp)


def cross_entropy_between_crops(targets: Tensor, log_probs: Tensor) -> Tensor:
    """Mean over pairs t != s of -sum(targets[t] * log_probs[s]) / B: targets (T, B, K), log_probs (S >= T, B, K).

    Targets and predictions are summed over crops before they are multiplied, so the cost is S + T passes over (B, K)
    instead of S * T. Inputs are taken as they are; the public objectives check them. Returns a scalar.
    """
    num_targets, batch, _ = targets.shape
    all_pairs = (targets.sum(dim=0) * log_probs.sum(dim=0)).sum()
    same_crop = (targets * log_probs[:num_targets]).sum()
    return (same_crop - all_pairs) / (batch * num_targets * (log_probs.shape[0] - 1))


TWIN_LOGITS = 2**20  # student logits of a step: from here reading them in strips beats copies of all of them


def _twin(student: Tensor, teacher: Tensor, center: Tensor) -> Callable[..., Tensor] | None:
    """The twin from sslcore.kernels that suits device and size, None for the plain form."""
    if student.numel() < TWIN_LOGITS or torch.compiler.is_compiling():
        return None
    if student.device.type == "cpu":
        return distillation.summed_cross_entropy
    if not student.is_cuda:
        return None
    from sslcore.kernels import distillation_gpu  # here, because importing Triton takes a while

    return distillation_gpu.summed_cross_entropy if distillation_gpu.supports(student, teacher, center) else None


@without_autocast
def dino_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    center: Tensor,
    student_temp: float = 0.1,
    teacher_temp: float = 0.04,
) -> Tensor:
    """DINO: every student crop predicts the teacher's sharpened, centred distribution for every other global crop.

        for t in range(T):                                             # teacher: global crops only
            target = softmax((teacher_logits[t] - center) / teacher_temp)          # (B, K), no gradient
            for s in range(S):                                         # student: global crops first, then local ones
                if s != t:
                    losses += [-sum(target * log_softmax(student_logits[s] / student_temp)) / B]
        return mean(losses)

    student_logits: (S, B, K), the first T crops being the global ones the teacher saw. teacher_logits: (T, B, K),
    S >= T. center: (K,) running mean of teacher logits. Temperatures > 0; teacher below student sharpens.
    No gradient reaches teacher_logits or center. Returns a scalar: ln K when all logits are equal.
    Raises ValueError for wrong rank, differing B or K, S < T, no pair s != t, NaN, temperature <= 0; TypeError for
    integers. Source: Caron et al. 2021 (DINO), equations 2-4 and algorithm 1.
    """
    _check_logits(student_logits, teacher_logits, center, student_temp, teacher_temp)
    num_student, batch, _ = student_logits.shape
    num_teacher = teacher_logits.shape[0]
    require(
        batch == teacher_logits.shape[1],
        f"student_logits, teacher_logits: expected one batch size B, got {batch} and {teacher_logits.shape[1]}",
    )
    require(
        num_student >= max(num_teacher, 2),
        f"expected S >= T student crops and a pair s != t, got S={num_student}, T={num_teacher}",
    )
    pairs = batch * num_teacher * (num_student - 1)
    if twin := _twin(student_logits, teacher_logits, center):
        weight = torch.full((batch,), 1 / pairs, dtype=full_precision(center).dtype, device=center.device)
        return twin(student_logits, teacher_logits, center, weight, student_temp, teacher_temp, skip_own=True)
    targets = ((full_precision(teacher_logits) - center).detach() / teacher_temp).softmax(dim=2)
    log_probs = (full_precision(student_logits) / student_temp).log_softmax(dim=2)
    return cross_entropy_between_crops(targets, log_probs)


@without_autocast
def ibot_patch_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor,
    center: Tensor,
    student_temp: float = 0.1,
    teacher_temp: float = 0.04,
) -> Tensor:
    """iBOT: at the patches hidden from the student, predict the teacher's distribution for the same patch.

        for b in range(B):
            for n where mask[b, n]:
                target = softmax((teacher_logits[b, n] - center) / teacher_temp)   # (K,), no gradient
                losses[b] += -sum(target * log_softmax(student_logits[b, n] / student_temp))
            losses[b] /= max(sum(mask[b]), 1)
        return mean(losses)

    student_logits, teacher_logits: (B, N, K) of one view. mask: (B, N) bool, True where the student saw the mask token.
    center: (K,). No gradient reaches teacher_logits or center. An image with nothing masked counts as zero.
    Raises ValueError for wrong rank, differing shapes or K, a mask that is empty everywhere, NaN, temperature <= 0;
    TypeError for integers or a mask that is not boolean. Source: Zhou et al. 2022 (iBOT), equation 2.
    """
    _check_logits(student_logits, teacher_logits, center, student_temp, teacher_temp)
    check_same_shape("student_logits", student_logits, "teacher_logits", teacher_logits)
    check_mask("mask", mask, tuple(student_logits.shape[:2]))
    weights = mask.to(full_precision(center).dtype)
    weights = weights / weights.sum(dim=1, keepdim=True).clamp_min(1)
    if twin := _twin(student_logits, teacher_logits, center):
        rows = [logits.flatten(0, 1)[None] for logits in (student_logits, teacher_logits)]
        return twin(*rows, center, weights.flatten() / len(mask), student_temp, teacher_temp, skip_own=False)
    targets = ((full_precision(teacher_logits) - center).detach() / teacher_temp).softmax(dim=2)
    log_probs = (full_precision(student_logits) / student_temp).log_softmax(dim=2)
    return -((targets * log_probs).sum(dim=2) * weights).sum(dim=1).mean()


@without_autocast
def koleo(z: Tensor) -> Tensor:
    """KoLeo: push every embedding away from its nearest neighbour, so that the batch spreads over the sphere.

        z = normalise(z)
        for i in range(N):
            nearest = argmax over j != i of z[i] @ z[j]                # no gradient through the choice
            losses[i] = -log(norm(z[i] - z[nearest]) + 1e-8)
        return mean(losses)

    z: (N, D) with N >= 2; need not be normalised. Returns a scalar >= -ln 2 (an antipodal pair); 18.4 when all
    embeddings coincide, with a zero gradient there. Raises ValueError for wrong rank, N < 2 or NaN; TypeError for
    integers. Source: Sablayrolles et al. 2019, equation 3; Oquab et al. 2023 (DINOv2), section 4.
    """
    check_rank("z", z, 2)
    check_float("z", z)
    require(z.shape[0] >= 2 and z.shape[1] >= 1, f"z: expected (N >= 2, D >= 1), got {tuple(z.shape)}")
    check_finite("z", z)
    z = unit_rows(z)
    with torch.no_grad():
        nearest = (z @ z.T).fill_diagonal_(-2.0).argmax(dim=1)  # below every cosine
    distance = torch.linalg.vector_norm(z - z[nearest], dim=1)
    return -torch.log(distance + 1e-8).mean()


@torch.no_grad()
def update_center(
    center: Tensor, teacher_logits: Tensor, momentum: float = 0.9, group: ProcessGroup | None = None
) -> Tensor:
    """The next DINO centre: momentum * center + (1 - momentum) * mean of all teacher logits. Changes nothing in place.

    center: (K,) float32. teacher_logits: (..., K), all crops and images of the step. momentum in [0, 1]. group:
    processes to average over (equal batches), None = this one. Returns (K,) in center's dtype, without gradient.
    Raises ValueError for mismatched K, an empty batch, NaN or momentum outside [0, 1]; TypeError for integers.
    Source: Caron et al. 2021 (DINO), equation 4.
    """
    check_rank("center", center, 1)
    check_float("center", center)
    check_float("teacher_logits", teacher_logits)
    require(0 <= momentum <= 1, f"momentum: expected a number in [0, 1], got {momentum}")
    require(
        teacher_logits.ndim >= 2 and teacher_logits.shape[-1] == center.shape[0] and teacher_logits.numel() > 0,
        f"teacher_logits: expected (..., {center.shape[0]}), not empty, got {tuple(teacher_logits.shape)}",
    )
    check_finite("teacher_logits", teacher_logits)
    batch_center = full_precision(teacher_logits).flatten(0, -2).mean(dim=0)
    return (center * momentum + mean_over_ranks(batch_center, group) * (1 - momentum)).to(center.dtype)
