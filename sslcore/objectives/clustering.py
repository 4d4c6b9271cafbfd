"""Clustering objectives: assign embeddings to prototypes in equal shares, then predict the assignment."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sslcore.distributed import gather_with_grad, world_size
from sslcore.kernels import scaling
from sslcore.objectives.precision import full_precision, without_autocast
from sslcore.objectives.self_distillation import cross_entropy_between_crops
from sslcore.validate import (
    check_finite,
    check_float,
    check_positive,
    check_rank,
    check_same_device,
    require,
    values_are_checked,
)

if TYPE_CHECKING:  # some builds of torch have no torch.distributed
    from torch.distributed import ProcessGroup


def balanced_softmax(logits: Tensor, num_iters: int, log_prior: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """Sinkhorn with logarithms of the two scaling vectors: (B, K) logits -> (B, K) codes. Cannot overflow.

        row, column = zeros(B), zeros(K)
        repeat num_iters times:
            column = log_prior - logsumexp(logits + row[:, None], over the images of all ranks)
            row    = -log(B) - logsumexp(logits + column, over prototypes)
        return softmax(logits + column, over prototypes)

    So a code is a softmax whose prototypes carry an offset: `column`, which makes the shares come out as wanted.
    This is the plain form; sslcore.kernels.scaling is its twin.
    """
    log_images = math.log(logits.shape[0] * world_size(group))
    row, column = logits.new_zeros(logits.shape[0]), torch.zeros_like(log_prior)
    for _ in range(num_iters):
        local = torch.logsumexp(logits + row[:, None], dim=0)
        column = log_prior - torch.logsumexp(gather_with_grad(local[None], group), dim=0)
        row = -log_images - torch.logsumexp(logits + column, dim=1)
    return (logits + column).softmax(dim=1)


@torch.no_grad()
@without_autocast
def sinkhorn_knopp(
    scores: Tensor,
    epsilon: float = 0.05,
    num_iters: int = 3,
    group: ProcessGroup | None = None,
    prior: Tensor | None = None,
) -> Tensor:
    """Codes: soft assignments of images to prototypes, in which the prototypes get the shares that `prior` asks for.

        codes = exp(scores / epsilon)                                  # (B, K)
        repeat num_iters times:
            for k in range(K): codes[:, k] *= prior[k] / sum(codes[:, k])          # over the images of all ranks
            for b in range(B): codes[b]    *= 1 / (B * sum(codes[b]))
        return B * codes

    scores: (B, K), usually cosines. epsilon > 0: towards 0 the codes become an assignment (one prototype an image, with
    the greatest total score if B = K), towards infinity they become `prior`. num_iters >= 1: rows sum to 1 after any
    number, the shares of the prototypes approach prior as it grows. group: processes over which the batch is spread
    (equal B on every rank), None = this process only. prior: (K,) positive, scaled to sum to 1; None = 1 / K each.
    Returns (B, K) without gradient, float32 (float64 for float64 scores).
    Raises ValueError for wrong rank, an empty batch, NaN, epsilon or num_iters out of range, a prior of wrong shape or
    not positive; TypeError for integers.
    Source: Caron et al. 2020 (SwAV), equations 3-5 and algorithm 1; Cuturi 2013. Other priors: Asano et al. 2020.
    """
    check_rank("scores", scores, 2)
    check_float("scores", scores)
    require(scores.numel() >= 1, f"scores: expected (B >= 1, K >= 1), got {tuple(scores.shape)}")
    check_finite("scores", scores)
    check_positive("epsilon", epsilon)
    require(num_iters >= 1, f"num_iters: expected at least 1, got {num_iters}")
    logits = full_precision(scores) / epsilon
    if prior is None:
        log_prior = logits.new_full((logits.shape[1],), -math.log(logits.shape[1]))
    else:
        log_prior = _checked_prior(prior, scores).to(logits.dtype).log()
    # Off the CPU the range of the scores is not looked at (it would stall the host), so the safe form is taken.
    if values_are_checked(logits) and scaling.supports(logits, group):
        return scaling.balanced_softmax(logits, num_iters, log_prior, group)
    return balanced_softmax(logits, num_iters, log_prior, group)


def _checked_prior(prior: Tensor, scores: Tensor) -> Tensor:
    check_float("prior", prior)
    require(prior.shape == scores.shape[1:], f"prior: expected shape ({scores.shape[1]},), got {tuple(prior.shape)}")
    check_same_device("prior", prior, "scores", scores)
    check_finite("prior", prior)
    if values_are_checked(prior):
        require(bool((prior > 0).all()), f"prior: expected shares above 0, got a smallest one of {float(prior.min())}")
    return prior / prior.sum()


def power_law_prior(num_prototypes: int, exponent: float = 0.25) -> Tensor:
    """Shares (K,) that fall with the index j as (j + 1) ** -exponent, and sum to 1; exponent 0 makes them equal.

    For `sinkhorn_knopp(prior=...)` on long-tailed data. exponent >= 0. Raises ValueError out of range.
    Source: an option of the public SwAV/SEER training code (VISSL), where the exponent is 0.25.
    """
    check_positive("num_prototypes", num_prototypes)
    require(0 <= exponent < float("inf"), f"exponent: expected a finite number >= 0, got {exponent}")
    shares = torch.arange(1, num_prototypes + 1, dtype=torch.float32) ** -exponent
    return shares / shares.sum()


@without_autocast
def swapped_prediction(scores: Tensor, codes: Tensor, temperature: float = 0.1) -> Tensor:
    """SwAV: from every crop, predict the code that each *other* assigning crop of the same image got.

        for a in range(A):                                             # assigning crops, the first ones
            for v in range(V):
                if v != a:
                    losses += [-sum(codes[a] * log_softmax(scores[v] / temperature)) / B]
        return mean(losses)

    scores: (V, B, K) of all crops. codes: (A, B, K), A <= V, crop a's own codes, rows summing to 1; no gradient reaches
    them. temperature > 0. Returns a scalar: at least ln K when all codes are uniform.
    Raises ValueError for wrong rank, differing B or K, A > V, no pair of different crops, NaN, temperature <= 0;
    TypeError for integers. Source: Caron et al. 2020 (SwAV), equations 1-2 and 6 (multi-crop).
    """
    for name, value in (("scores", scores), ("codes", codes)):
        check_rank(name, value, 3)
        check_float(name, value)
        require(value.numel() >= 1, f"{name}: expected at least one value, got shape {tuple(value.shape)}")
        check_finite(name, value)
    check_same_device("scores", scores, "codes", codes)
    check_positive("temperature", temperature)
    require(
        scores.shape[1:] == codes.shape[1:],
        f"scores, codes: expected one batch size B and one K, got {tuple(scores.shape)} and {tuple(codes.shape)}",
    )
    require(
        len(scores) >= max(len(codes), 2),
        f"expected V >= A crops and a pair v != a, got V={len(scores)}, A={len(codes)}",
    )
    log_probs = (full_precision(scores) / temperature).log_softmax(dim=2)
    return cross_entropy_between_crops(full_precision(codes).detach(), log_probs)
