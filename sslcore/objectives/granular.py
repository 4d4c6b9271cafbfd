"""Objectives of Mugs: the same views compared at three granularities, large and small crops weighing the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from sslcore.objectives.contrastive import info_nce
from sslcore.objectives.self_distillation import dino_loss
from sslcore.validate import check_rank, require

if TYPE_CHECKING:  # some builds of torch have no torch.distributed
    from torch.distributed import ProcessGroup


class MugsTerms(NamedTuple):
    """Weighted terms of mugs_total, whose sum is total; a term of weight 0 is 0."""

    instance: Tensor
    local_group: Tensor
    group: Tensor
    total: Tensor


def _pairs(num_teacher: int, num_student: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(teacher crop, student crop) of different number: those with a large student crop, and those with a small one."""
    pairs = [(t, v) for t in range(num_teacher) for v in range(num_student) if v != t]
    return [pair for pair in pairs if pair[1] < num_teacher], [pair for pair in pairs if pair[1] >= num_teacher]


def _check_crops(num_teacher: int, num_student: int) -> None:
    require(
        num_student >= num_teacher >= 2,
        f"crops: expected T >= 2 large crops and V >= T student crops, got T={num_teacher}, V={num_student}",
    )


def granular_nce(
    queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float = 0.2, group: ProcessGroup | None = None
) -> Tensor:
    """InfoNCE of every student crop with the teacher's other crops, against a queue.

        for t in range(T):
            for v in range(V):
                if v != t:
                    (large if v < T else small) += [info_nce(queries[v], keys[t], negatives, temperature)]
        return (mean(large) + mean(small)) / 2                          # mean(large) alone without small crops

    queries: (V, B, D), the first T crops large. keys: (T, B, D) from the teacher, T >= 2. negatives: (K, D).
    group: as in info_nce. A large pair weighs 1 / (2 T (T - 1)), a small one 1 / (2 T (V - T)).
    v != t is by number only: in Mugs the student's crops are other crops than the teacher's, so pairs of equal number
    would be as good as any; the public code leaves them out and so do we.
    Returns a scalar: ln(K + 1) when all embeddings coincide. Raises ValueError as info_nce does and for T < 2 or V < T.
    Source: Zhou et al. 2022 (Mugs, arXiv 2203.14415), equations for IDS and LGDS; the averaging is that of its code.
    """
    check_rank("queries", queries, 3)
    check_rank("keys", keys, 3)
    _check_crops(len(keys), len(queries))
    means = []
    for pairs in _pairs(len(keys), len(queries)):
        if pairs:
            targets, crops = zip(*pairs, strict=True)
            query, key = queries[list(crops)].flatten(0, 1), keys[list(targets)].flatten(0, 1)
            means.append(info_nce(query, key, negatives=negatives, temperature=temperature, group=group))
    return torch.stack(means).mean()


def granular_clustering(
    student_logits: Tensor,
    teacher_logits: Tensor,
    center: Tensor,
    student_temp: float = 0.1,
    teacher_temp: float = 0.04,
) -> Tensor:
    """DINO's cross-entropy with Mugs' averaging: pairs with a large crop and pairs with a small one weigh the same.

    student_logits: (V, B, K), the first T crops large. teacher_logits: (T, B, K), T >= 2. center, temperatures, errors
    and gradients as in dino_loss. Returns a scalar: ln K when all logits are equal; dino_loss without small crops.
    Source: Zhou et al. 2022 (Mugs, arXiv 2203.14415), equation for GDS.
    """
    check_rank("student_logits", student_logits, 3)
    check_rank("teacher_logits", teacher_logits, 3)
    teachers, students = len(teacher_logits), len(student_logits)
    _check_crops(teachers, students)
    large = dino_loss(student_logits[:teachers], teacher_logits, center, student_temp, teacher_temp)
    if students == teachers:
        return large
    # dino_loss averages over all pairs; what is left of its sum without the large pairs is the small ones'.
    every = dino_loss(student_logits, teacher_logits, center, student_temp, teacher_temp)
    small = (every * (students - 1) - large * (teachers - 1)) / (students - teachers)
    return (large + small) / 2


def mugs_total(terms: Sequence[Tensor | None], weights: Sequence[float]) -> MugsTerms:
    """The three losses, weighted: total = sum_i weights[i] * terms[i] / sum_i weights[i].

    terms: instance, local group, group; None is allowed where the weight is 0. The public code uses a weight only as a
    switch and in the divisor, so that weights 2, 1, 1 give (a + b + c) / 4 there and (2a + b + c) / 4 here.
    Raises ValueError for other than three terms and weights, a negative weight, no weight above 0, or a missing term.
    """
    require(len(terms) == len(weights) == 3, f"expected three terms and weights, got {len(terms)} and {len(weights)}")
    require(min(weights) >= 0 and max(weights) > 0, f"weights: expected none below 0 and one above, got {weights}")
    known = [term for term in terms if term is not None]
    missing = [number for number, term in enumerate(terms) if term is None and weights[number] > 0]
    require(not missing, f"terms: expected a loss for every weight above 0, got none for number {missing}")
    scaled = [
        known[0].new_zeros(()) if weight == 0 else term * (weight / sum(weights))
        for term, weight in zip(terms, weights, strict=True)
    ]
    return MugsTerms(*scaled, total=scaled[0] + scaled[1] + scaled[2])
