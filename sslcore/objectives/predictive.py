"""Prediction in the space of embeddings: which comes next in a sequence, or which are hidden in a map."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torch.distributed import ProcessGroup

from sslcore.distributed import mean_over_ranks
from sslcore.objectives.precision import full_precision, without_autocast
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


@without_autocast
def next_embedding_loss(outputs: Tensor, sequence: Tensor, stop_gradient: bool = True) -> Tensor:
    """Output i points where embedding i + 1 will lie: minus their cosine, averaged over images and places.

        target = sequence.detach() if stop_gradient else sequence
        return mean(-cosine(outputs[b, i], target[b, i + 1]) for b in range(B) for i in range(L - 1))

    outputs: (B, L, D) floating point, what the network says at each place. sequence: (B, L, D), the embeddings it read,
    class token first where there is one, then the patches in reading order. The last output and the first embedding
    are not used. stop_gradient=False is the ablation: targets may then move towards predictions.
    next_embedding_loss(z, z) is the baseline that copies the current embedding.

    Returns a scalar in [-1, 1]. Computed in float32 under autocast; a zero vector has cosine 0 with everything.
    Raises ValueError for other ranks or shapes, L < 2, an empty batch or NaN; TypeError for integers.
    Source: NEPA (arXiv 2512.16922), the training objective: shift by one, cosine, stop-gradient on the target.
    """
    for name, tensor in (("outputs", outputs), ("sequence", sequence)):
        check_rank(name, tensor, 3)
        check_float(name, tensor)
    check_same_shape("outputs", outputs, "sequence", sequence)
    batch, length, width = sequence.shape
    require(batch >= 1 and width >= 1, f"sequence: expected images and channels, got shape {(batch, length, width)}")
    require(length >= 2, f"sequence: expected at least two places, got shape {(batch, length, width)}")
    check_finite("outputs", outputs)
    check_finite("sequence", sequence)
    target = full_precision(sequence.detach() if stop_gradient else sequence)[:, 1:]
    prediction = full_precision(outputs)[:, :-1]
    return -(F.normalize(prediction, dim=2) * F.normalize(target, dim=2)).sum(dim=2).mean()


@without_autocast
def masked_latent_loss(
    pred: Tensor,
    target: Tensor,
    mask: Tensor,
    beta: float = 1.0,
    stop_gradient: bool = True,
    group: ProcessGroup | None = None,
) -> Tensor:
    """CNN-JEPA: at hidden cells, the direction of the prediction against the direction of the teacher's features.

        p, t = pred / norm(pred), target / norm(target)        # over channels, cell by cell
        cost[b, n] = sum(smooth_l1(p[b, n, d] - t[b, n, d], beta) for d)
        return sum(cost * mask) / sum(mask)                    # over the whole batch

    pred, target: (B, N, D) floating point. mask: (B, N) bool, True = hidden; visible cells do not count. beta: below it
    smooth_l1 is quadratic, d**2 / (2 beta). At beta = 1, and unless some |p - t| exceeds 1, cost = 1 - cosine; none
    does where features are non-negative, as after a ReLU, and the loss then lies in [0, 1]. stop_gradient=False is the
    ablation: targets may then move towards predictions. A zero vector has direction 0 and costs 1/2. group: processes
    over which the batch is spread; images may hide different numbers of cells, so the mean is over all cells of all
    ranks. Computed in float32 under autocast. Raises ValueError for shapes that do not fit, an empty mask, beta not
    above 0 or NaN; TypeError for integers or a mask that is not boolean.
    Source: CNN-JEPA (arXiv 2408.07514), the loss of its public code.
    """
    for name, tensor in (("pred", pred), ("target", target)):
        check_rank(name, tensor, 3)
        check_float(name, tensor)
        check_finite(name, tensor)
    check_same_shape("pred", pred, "target", target)
    require(pred.shape[2] >= 1, f"pred: expected channels, got shape {tuple(pred.shape)}")
    check_mask("mask", mask, tuple(pred.shape[:2]))
    check_same_device("pred", pred, "mask", mask)
    check_positive("beta", beta)
    p, t = (F.normalize(full_precision(x), dim=2) for x in (pred, target.detach() if stop_gradient else target))
    cost = F.smooth_l1_loss(p, t, reduction="none", beta=beta).sum(dim=2)
    hidden = mask.to(cost.dtype)
    return mean_over_ranks((cost * hidden).sum(), group) / mean_over_ranks(hidden.sum(), group)
