"""Sinkhorn by two scaling vectors on a fixed matrix, with plain torch.

The matrix of codes after any number of steps is diag(row) @ exp(logits) @ diag(column). Only the two vectors change, so
a step is two matrix-vector products instead of two passes that rewrite the matrix, and the exponentials are taken once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sslcore.distributed import gather_with_grad, mean_over_ranks, world_size

if TYPE_CHECKING:  # some builds of torch have no torch.distributed
    from torch.distributed import ProcessGroup

LARGEST_RANGE = 60.0  # exp(-60) and its reciprocal lie well inside float32; cosines have this range at epsilon 1/30


def _extremes(logits: Tensor, group: ProcessGroup | None) -> Tensor:
    """(2,): largest logit and largest negated logit over all ranks."""
    return gather_with_grad(torch.stack([logits.max(), -logits.min()])[None], group).amax(dim=0)


def supports(logits: Tensor, group: ProcessGroup | None = None) -> bool:
    """Whether exp(logits) keeps its digits in float32. Reads a value, so it is for the CPU. The same on every rank."""
    return bool(_extremes(logits, group).sum() <= LARGEST_RANGE)


def balanced_softmax(logits: Tensor, num_iters: int, log_prior: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """Twin of sslcore.objectives.clustering.balanced_softmax, which states the arguments.

    Chosen on the CPU when logits span at most LARGEST_RANGE; loses beyond, where sums underflow. No gradient.
    """
    matrix = (logits - _extremes(logits, group)[0]).exp()
    prior, ranks = log_prior.exp(), world_size(group)
    images = matrix.shape[0] * ranks
    row = matrix.new_ones(matrix.shape[0])
    for _ in range(num_iters):
        column = prior / (mean_over_ranks(row @ matrix, group) * ranks)
        row = 1 / (images * (matrix @ column))  # total mass 1, or the vectors would drift apart
    return matrix.mul_(column).mul_(images * row[:, None])
