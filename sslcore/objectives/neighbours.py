"""Objectives that read labels off neighbours: SupCon wants every mate near, leave-one-out kNN only a few of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sslcore.distributed import gather_with_grad, mean_over_ranks, rank
from sslcore.objectives.precision import same_precision, unit_rows, without_autocast
from sslcore.validate import check_finite, check_float, check_positive, check_rank, check_same_device, require

if TYPE_CHECKING:  # some builds of torch have no torch.distributed
    from torch.distributed import ProcessGroup

MISSING = ("drop", "add")


def _check_rows(name: str, rows: Tensor, **numbers: Tensor | None) -> None:
    check_rank(name, rows, 2)
    check_float(name, rows)
    require(rows.numel() >= 1, f"{name}: expected at least one row and one dimension, got {tuple(rows.shape)}")
    check_finite(name, rows)
    for other, values in numbers.items():
        if values is None:
            continue
        check_rank(other, values, 1)
        if values.is_floating_point() or values.dtype == torch.bool:
            raise TypeError(f"{other}: expected whole numbers, got {values.dtype}")
        require(len(values) == len(rows), f"{other}: expected {len(rows)}, one a row of {name}, got {len(values)}")
        check_same_device(other, values, name, rows)


def _own_rows(z: Tensor, group: ProcessGroup | None) -> Tensor:
    """Place of each row of this rank among the rows of all ranks."""
    return torch.arange(len(z), device=z.device) + rank(group) * len(z)


def _mean_of_kept(values: Tensor, kept: Tensor, group: ProcessGroup | None) -> Tensor:
    """Mean of the kept values over all ranks; 0, with a gradient of 0, when nothing is kept."""
    total = mean_over_ranks(torch.where(kept, values, 0.0).sum(), group)
    return total / mean_over_ranks(kept.sum().to(values.dtype), group).clamp_min(1e-6)


@without_autocast
def supcon(z: Tensor, labels: Tensor, temperature: float = 0.1, group: ProcessGroup | None = None) -> Tensor:
    """Supervised contrastive loss: every other row of the own class is a positive, and each must be found by itself.

        z = normalise(z)
        for i in range(N):
            others = [j for j in range(N) if j != i]
            mates = [j for j in others if labels[j] == labels[i]]
            denominator = log(sum(exp(z[i] @ z[a] / temperature) for a in others))
            costs = [denominator - z[i] @ z[j] / temperature for j in mates]
            losses[i] = mean(costs)                                    # i is left out when it has no mate
        return mean(losses)

    z: (N, D) embeddings, two views of an image being two rows with one label; need not be normalised. labels: (N,)
    whole numbers. temperature > 0. group: process group over which the rows are spread (equal N on every rank), None =
    this process only; the value is that of the global batch.
    Returns a scalar; 0 when no row has a mate. With each label on exactly two rows this is NT-Xent.
    Raises ValueError for wrong rank, unequal lengths, fewer than two rows, NaN, temperature <= 0; TypeError for
    embeddings that are integers or labels that are not.
    Source: Khosla et al. 2020, "Supervised Contrastive Learning", equation 2 (L_out: the mean stands outside the log).
    """
    _check_rows("z", z, labels=labels)
    check_positive("temperature", temperature)
    (rows,) = map(unit_rows, same_precision(z))
    candidates, names = gather_with_grad(rows, group), gather_with_grad(labels, group)
    require(len(candidates) >= 2, f"z: expected at least two rows, got {len(candidates)}")
    logits = rows @ candidates.T / temperature
    place = _own_rows(z, group)
    own = torch.arange(len(candidates), device=z.device) == place[:, None]
    log_share = logits - torch.logsumexp(logits.masked_fill(own, -torch.inf), dim=1, keepdim=True)
    mates = (labels[:, None] == names) & ~own
    count = mates.sum(dim=1)
    losses = -torch.where(mates, log_share, 0.0).sum(dim=1) / count.clamp_min(1)
    return _mean_of_kept(losses, count > 0, group)


def _log_votes(
    z: Tensor,
    labels: Tensor,
    k: int | None,
    temperature: float,
    memory: Tensor | None,
    memory_labels: Tensor | None,
    ids: Tensor | None,
    memory_ids: Tensor | None,
    missing: str,
    group: ProcessGroup | None,
) -> tuple[Tensor, Tensor]:
    """log p (N,) of the true class among the neighbours, and where it is finite (N,) bool."""
    _check_rows("z", z, labels=labels, ids=ids)
    check_positive("temperature", temperature)
    require(k is None or k >= 1, f"k: expected at least 1 neighbour, or None for all, got {k}")
    require(missing in MISSING, f"missing: expected one of {', '.join(MISSING)}, got {missing!r}")
    if memory is None:
        require(memory_labels is None and memory_ids is None, "memory: expected rows for memory_labels and memory_ids")
        (rows,) = map(unit_rows, same_precision(z))
        candidates, names = gather_with_grad(rows, group), gather_with_grad(labels, group)
        banned = torch.arange(len(candidates), device=z.device) == _own_rows(z, group)[:, None]
        marks = None if ids is None else gather_with_grad(ids, group)
    else:
        require(memory_labels is not None, "memory_labels: expected one label a row of memory, got none")
        require((ids is None) == (memory_ids is None), "ids, memory_ids: expected both or neither")
        _check_rows("memory", memory, memory_labels=memory_labels, memory_ids=memory_ids)
        require(memory.shape[1] == z.shape[1], f"memory: expected width {z.shape[1]}, got {memory.shape[1]}")
        rows, candidates = map(unit_rows, same_precision(z, memory))
        names, marks = memory_labels, memory_ids
        banned = torch.zeros(len(rows), len(candidates), dtype=torch.bool, device=z.device)
    if marks is not None:
        banned = banned | (ids[:, None] == marks)
    # Finite, so that a row without any candidate gives no NaN; exp() of it is 0 beside any real similarity.
    lowest = torch.finfo(rows.dtype).min / 4
    logits = (rows @ candidates.T / temperature).masked_fill(banned, lowest)
    number = len(candidates) if k is None else min(k, len(candidates))
    chosen, index = logits.topk(number, dim=1)
    right = labels[:, None] == names[index]
    if missing == "add":
        # The nearest row of the own class joins where the k nearest hold none.
        mates = (labels[:, None] == names) & ~banned
        best, _ = logits.masked_fill(~mates, lowest).max(dim=1, keepdim=True)
        alone = mates.any(dim=1, keepdim=True) & ~(right & (chosen > lowest)).any(dim=1, keepdim=True)
        chosen = torch.cat([chosen, best.masked_fill(~alone, lowest)], dim=1)
        right = torch.cat([right, alone], dim=1)
    right = right & (chosen > lowest)
    log_p = torch.logsumexp(chosen.masked_fill(~right, lowest), dim=1) - torch.logsumexp(chosen, dim=1)
    return log_p, right.any(dim=1)


@torch.no_grad()
@without_autocast
def leave_one_out_votes(
    z: Tensor,
    labels: Tensor,
    k: int | None = 20,
    temperature: float = 0.1,
    memory: Tensor | None = None,
    memory_labels: Tensor | None = None,
    ids: Tensor | None = None,
    memory_ids: Tensor | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """Share (N,) in [0, 1] of the weighted vote that each row's own class gets from its k nearest other rows.

    Arguments as in leave_one_out_knn, whose loss is the mean of -log of these shares where they are above 0. Rows at 0
    are those the loss drops or mends: watch (votes == 0).mean(). No gradient. Raises as leave_one_out_knn.
    """
    log_p, found = _log_votes(z, labels, k, temperature, memory, memory_labels, ids, memory_ids, "drop", group)
    return torch.where(found, log_p.exp(), 0.0)


@without_autocast
def leave_one_out_knn(
    z: Tensor,
    labels: Tensor,
    k: int | None = 20,
    temperature: float = 0.1,
    memory: Tensor | None = None,
    memory_labels: Tensor | None = None,
    ids: Tensor | None = None,
    memory_ids: Tensor | None = None,
    missing: str = "drop",
    group: ProcessGroup | None = None,
) -> Tensor:
    """Leave-one-out kNN loss: among the k nearest other rows, the weight of the own class should be everything.

        z, memory = normalise each row
        for i in range(N):
            others = memory if given else [z[j] for j != i]            # never an entry with the id of row i
            nearest = the k of them with the highest s[j] = z[i] @ others[j] / temperature
            p = sum(exp(s[j]) for j in nearest if its label is labels[i]) / sum(exp(s[j]) for j in nearest)
            losses[i] = -log(p)                                        # p = 0: see missing
        return mean(losses)

    z: (N, D) embeddings, need not be normalised. labels: (N,) whole numbers. k: neighbours, None for all of them,
    which is the soft nearest neighbour loss. temperature > 0. memory (M, D), memory_labels (M,): earlier rows, detached
    by the caller; None takes the batch itself. ids (N,), memory_ids (M,): number of the image behind each row, so that
    an image's other view or older copy is no neighbour of it. missing: what happens to a row without a neighbour of
    its own class: "drop" leaves it out of the mean, "add" lets the nearest row of its class join the k (and drops it
    where there is none). group: spreads the rows of the batch over ranks, leaves a memory alone; the value is global.
    Which rows are nearest carries no gradient; their similarities do. Returns a scalar. A row whose k neighbours are
    all of its class costs exactly 0, with gradient 0, wherever the rest of its class lies.
    Raises ValueError for wrong rank, unequal lengths or widths, k < 1, an unknown `missing`, half-given memories, NaN,
    temperature <= 0; TypeError for embeddings that are integers, labels or ids that are not.
    Source: Feng et al. 2022 (LOOK, arXiv 2110.06014); a reconstruction from its description, as no official code was
    found. k = None: Frosst et al. 2019, equation 1 with cosines; Goldberger et al. 2004 (NCA).
    """
    log_p, found = _log_votes(z, labels, k, temperature, memory, memory_labels, ids, memory_ids, missing, group)
    return _mean_of_kept(-log_p, found, group)
