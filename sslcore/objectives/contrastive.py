"""Contrastive objectives: tell the other view of your image from all other images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sslcore.distributed import gather_with_grad, mean_over_ranks, rank
from sslcore.kernels import tiled
from sslcore.objectives.precision import same_precision, unit_rows, without_autocast
from sslcore.validate import (
    check_finite,
    check_float,
    check_positive,
    check_rank,
    check_same_device,
    check_same_shape,
    require,
)

if TYPE_CHECKING:  # some builds of torch have no torch.distributed
    from torch.distributed import ProcessGroup


TILED_SIMILARITIES = 2**16  # a matrix of 256 KiB: from here strips of rows are at least as fast as one large matmul


def mean_logsumexp(
    rows: Tensor,
    candidates: Tensor,
    scale: float,
    skip: int | None = None,
    extra: Tensor | None = None,
    half_inputs: bool = False,
) -> Tensor:
    """The denominator of every contrastive loss, averaged over the rows.

        for i in range(M):
            logits = [scale * rows[i] @ candidates[j] for j in range(L) if j != i + skip]
            losses[i] = log(sum(exp(logits + [extra[i]])))
        return mean(losses)

    rows (M, D), candidates (L, D): taken as they are, not normalised. scale: 1 / temperature. skip: the candidate at
    i + skip is row i itself and is left out; None leaves out nothing. extra (M,): one more logit a row, or None.
    half_inputs: the embeddings came in half precision; only the Triton twin makes use of it. Returns a scalar.
    This is the plain form. sslcore.kernels.tiled and sslcore.kernels.similarity are its twins.
    """
    logits = rows @ candidates.T * scale
    if skip is not None:
        own = torch.arange(rows.shape[0], device=rows.device)
        logits = logits.index_put((own, own + skip), logits.new_full((), float("-inf")))
    if extra is not None:
        logits = torch.cat([extra[:, None], logits], dim=1)
    return torch.logsumexp(logits, dim=1).mean()


def _denominator(
    rows: Tensor, candidates: Tensor, scale: float, skip: int | None, extra: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """mean_logsumexp by the form that suits device and size; each twin's page says when that is."""
    half_inputs = dtype in (torch.float16, torch.bfloat16)
    if rows.is_cuda:
        from sslcore.kernels import similarity  # here, because importing Triton takes a while

        if similarity.supports(rows, candidates):
            return similarity.mean_logsumexp(rows, candidates, scale, skip, extra, half_inputs)
    if rows.shape[0] * candidates.shape[0] >= TILED_SIMILARITIES and not torch.compiler.is_compiling():
        if rows is candidates and skip == 0 and scale <= tiled.LARGEST_SCALE:
            return tiled.mean_over_pairs(rows, scale)
        return tiled.mean_logsumexp(rows, candidates, scale, skip, extra)
    return mean_logsumexp(rows, candidates, scale, skip, extra)


def _check_embeddings(**embeddings: Tensor) -> None:
    for name, value in embeddings.items():
        check_rank(name, value, 2)
        check_float(name, value)
        require(value.shape[1] >= 1, f"{name}: expected embeddings of at least one dimension, got {tuple(value.shape)}")
        check_finite(name, value)


@without_autocast
def nt_xent(z0: Tensor, z1: Tensor, temperature: float = 0.5, group: ProcessGroup | None = None) -> Tensor:
    """NT-Xent: among the 2N - 1 other embeddings of the batch, pick the other view of the same image.

        z = normalise(cat(z0, z1))                                     # (2N, D)
        for i in range(2N):
            partner = (i + N) % (2N)
            logits = [z[i] @ z[j] / temperature for j in range(2N) if j != i]
            losses[i] = -z[i] @ z[partner] / temperature + log(sum(exp(logits)))
        return mean(losses)

    z0, z1: (N, D) embeddings of two views, row n of both from image n; need not be normalised. temperature > 0.
    group: process group over which the batch is spread (equal N on every rank), None = this process only; the value
    returned is that of the global batch on every rank. Gradients reach both views, on all ranks. Large batches take a
    twin from sslcore.kernels (same numbers, less memory, no second derivative).
    Returns a scalar: ln(2N - 1) when all embeddings coincide. The authors' code reports twice this mean.
    Raises ValueError for wrong rank, shapes that differ, fewer than two images (no negatives), NaN, temperature <= 0;
    TypeError for integers.
    Source: Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations", equation 1.
    """
    _check_embeddings(z0=z0, z1=z1)
    check_same_shape("z0", z0, "z1", z1)
    check_positive("temperature", temperature)
    num, dtype = z0.shape[0], z0.dtype
    z0, z1 = map(unit_rows, same_precision(z0, z1))
    rows = torch.cat([z0, z1])
    candidates = gather_with_grad(rows, group)
    require(candidates.shape[0] >= 4, f"z0, z1: expected at least two images (no negatives otherwise), got {num}")
    denominator = _denominator(rows, candidates, 1 / temperature, rank(group) * 2 * num, None, dtype)
    positive = (z0 * z1).sum(dim=1).mean() / temperature
    return mean_over_ranks(denominator - positive, group)


@without_autocast
def info_nce(
    query: Tensor,
    key: Tensor,
    negatives: Tensor | None = None,
    temperature: float = 0.07,
    group: ProcessGroup | None = None,
) -> Tensor:
    """InfoNCE: pick each query's own key among the negatives.

        query, key, negatives = normalise each row
        for i in range(N):
            wrong = negatives if given else [key[j] for j != i]        # (K, D) or (N - 1, D)
            logits = [query[i] @ k / temperature for k in [key[i], *wrong]]
            losses[i] = -logits[0] + log(sum(exp(logits)))
        return mean(losses)

    query, key: (N, D), row n of both from image n. negatives: (K, D), a queue of earlier keys, or None to use the other
    keys of the batch. temperature > 0. group: as in nt_xent; spreads the in-batch keys, leaves the queue alone.
    Gradients reach all three inputs: a momentum encoder's keys are detached by the caller.
    Returns a scalar: ln(K + 1) or ln N when all embeddings coincide. MoCo v3 reports 2 * temperature times this.
    Raises as nt_xent; one query is enough when a queue is given, and the queue must not be empty.
    Source: van den Oord et al. 2018, equation 4; the queue is He et al. 2020 (MoCo), equation 1.
    """
    _check_embeddings(query=query, key=key)
    check_same_shape("query", query, "key", key)
    check_positive("temperature", temperature)
    num, dtype = query.shape[0], query.dtype
    if negatives is None:
        query, key = map(unit_rows, same_precision(query, key))
        positive = (query * key).sum(dim=1) / temperature
        candidates = gather_with_grad(key, group)
        require(candidates.shape[0] >= 2, f"query, key: expected two or more images or a queue, got {num}")
        denominator = _denominator(query, candidates, 1 / temperature, None, None, dtype)
    else:
        _check_embeddings(negatives=negatives)
        check_same_device("query", query, "negatives", negatives)
        require(num >= 1, "query, key: expected at least one image, got none")
        require(
            negatives.shape[0] >= 1 and negatives.shape[1] == query.shape[1],
            f"negatives: expected (K >= 1, {query.shape[1]}), got {tuple(negatives.shape)}",
        )
        query, key, negatives = map(unit_rows, same_precision(query, key, negatives))
        positive = (query * key).sum(dim=1) / temperature
        denominator = _denominator(query, negatives, 1 / temperature, None, positive, dtype)
    return mean_over_ranks(denominator - positive.mean(), group)
