"""The triplet objective of tracked patches: a pair stays closer than negatives mined from the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sslcore.distributed import gather_with_grad, mean_over_ranks, rank
from sslcore.objectives.precision import same_precision, unit_rows, without_autocast
from sslcore.validate import check_finite, check_float, check_positive, check_rank, check_same_shape, require

if TYPE_CHECKING:  # some builds of torch have no torch.distributed
    from torch.distributed import ProcessGroup


@torch.no_grad()
def mine_negatives(similarity: Tensor, eligible: Tensor, lottery: Tensor, num: int, hard_ratio: float = 0.5) -> Tensor:
    """Which candidates each anchor is compared with: some of the hardest, some by lot.

        for i in range(N):
            able = [j for j in range(M) if eligible[i, j]]
            if len(able) > num:
                hardest = the num of them with the highest similarity[i]
                able = [round(hard_ratio * num) of hardest, the rest of num from the others], both by lowest lottery[i]
            chosen[i, able] = True

    similarity, lottery: (N, M) float. eligible: (N, M) bool. Returns (N, M) bool.
    Raises ValueError for shapes that differ, num < 1 or hard_ratio outside [0, 1]; TypeError where eligible is no mask.
    Source: the hard-negative rule of Wang & Gupta 2015, as their published loss layer has it.
    """
    check_rank("similarity", similarity, 2)
    check_same_shape("similarity", similarity, "eligible", eligible)
    check_same_shape("similarity", similarity, "lottery", lottery)
    if eligible.dtype != torch.bool:
        raise TypeError(f"eligible: expected a boolean mask, got {eligible.dtype}")
    require(num >= 1, f"num: expected at least 1, got {num}")
    require(0 <= hard_ratio <= 1, f"hard_ratio: expected a part in [0, 1], got {hard_ratio}")
    num = min(num, similarity.shape[1])
    hard = round(hard_ratio * num)
    order = similarity.masked_fill(~eligible, float("-inf")).argsort(dim=1, descending=True)
    pool = torch.zeros_like(eligible).scatter(1, order[:, :num], True) & eligible
    chosen = torch.zeros_like(eligible)
    for among, count in ((pool, hard), (eligible & ~pool, num - hard)):
        drawn = lottery.masked_fill(~among, float("inf")).argsort(dim=1)[:, :count]
        chosen |= torch.zeros_like(eligible).scatter(1, drawn, True) & among
    few = eligible.sum(dim=1, keepdim=True) <= num
    return torch.where(few, eligible, chosen)


@without_autocast
def mined_triplet_loss(
    first: Tensor,
    second: Tensor,
    labels: Tensor | None = None,
    draws: Tensor | None = None,
    margin: float = 0.5,
    num_negatives: int = 4,
    hard_ratio: float = 0.5,
    group: ProcessGroup | None = None,
) -> Tensor:
    """Triplet loss of N positive pairs: both ends of a pair keep `margin` more distance from negatives than they have.

        distance(a, b) = 1 - cosine(a, b)
        for i in range(N):
            active = items c of the batch with labels[c] != labels[i] and
                     distance(first[i], second[i]) - distance(first[i], c) + margin > 0
            for c in mine_negatives(active):                            # at most num_negatives, no gradient
                for anchor in (first[i], second[i]):
                    total += max(0, distance(first[i], second[i]) - distance(anchor, c) + margin)
        return total / (2 * num_negatives * N)                          # fixed: a missing negative counts as 0

    first, second: (N, D), row n of both is a positive pair; need not be normalised. labels: (N,) whole numbers, pairs
    of equal label are no negatives of each other; None makes every pair its own label. draws: (N, 2) in [0, 1), the
    lots by which random negatives are drawn; None draws them here. hard_ratio in [0, 1]: part of the negatives taken
    from the hardest. group: processes that share the batch; negatives then come from all of them.
    Returns a scalar: `margin` when all embeddings coincide. Gradients reach pairs and negatives.
    Raises ValueError for wrong rank, shapes that differ, NaN, margin <= 0, num_negatives < 1 or hard_ratio outside
    [0, 1]; TypeError for integer embeddings.
    Source: Wang, He & Gupta 2017 (arXiv 1708.02901), which takes the loss from Wang & Gupta 2015 (arXiv 1505.00687).
    """
    for name, value in (("first", first), ("second", second)):
        check_rank(name, value, 2)
        check_float(name, value)
        check_finite(name, value)
    check_same_shape("first", first, "second", second)
    require(first.numel() >= 1, f"first, second: expected at least one row, got {tuple(first.shape)}")
    check_positive("margin", margin)
    require(num_negatives >= 1, f"num_negatives: expected at least 1, got {num_negatives}")
    require(0 <= hard_ratio <= 1, f"hard_ratio: expected a part in [0, 1], got {hard_ratio}")
    num = first.shape[0]
    if labels is None:
        labels = torch.arange(num, device=first.device) + rank(group) * num
    if draws is None:
        draws = torch.rand(num, 2, device=first.device)
    check_rank("labels", labels, 1)
    require(len(labels) == num, f"labels: expected {num}, one a pair, got {len(labels)}")
    require(draws.shape == (num, 2), f"draws: expected {(num, 2)}, got {tuple(draws.shape)}")

    first, second = map(unit_rows, same_precision(first, second))
    candidates = gather_with_grad(torch.stack([first, second], dim=1), group).flatten(0, 1)  # (M, D)
    other = gather_with_grad(labels, group).repeat_interleave(2)
    lots = gather_with_grad(draws, group).flatten()
    # Distances enter as differences only, so minus the cosine serves as distance.
    pull = margin - (first * second).sum(dim=1, keepdim=True)
    from_first, from_second = pull + first @ candidates.T, pull + second @ candidates.T
    eligible = (labels[:, None] != other) & (from_first > 0)
    # One lot a candidate; each anchor reads them from its own place on the circle.
    lottery = (lots - draws[:, :1]).remainder(1)
    chosen = mine_negatives(from_first.detach(), eligible, lottery, num_negatives, hard_ratio)
    hinges = torch.where(chosen, from_first.relu() + from_second.relu(), 0.0)
    return mean_over_ranks(hinges.sum() / (2 * num_negatives * num), group)
