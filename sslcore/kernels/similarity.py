"""The contrastive denominator as two Triton kernels: similarities live in registers, one tile at a time.

Forward keeps a running maximum and a running sum for each row (the online log-sum-exp). Backward computes every tile
again instead of storing it. Memory is O((M + L) D); the M x L matrix never exists.
Its agreement with the plain form is tested on the CPU in Triton's interpreter. Its speed on CUDA has not been measured.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor

from sslcore.kernels.derivative import first_derivative_only
from sslcore.kernels.optional_triton import HAS_TRITON, jit, tl, triton

MAX_DIM = 256  # a whole row of each side must fit in one tile
MIN_SIMILARITIES = 2**20  # below, the whole matrix is 4 MiB and launching costs more than computing


@jit
def _tile(ptr, index, num, dim, BLOCK_DIM: tl.constexpr):
    column = tl.arange(0, BLOCK_DIM)
    inside = (index[:, None] < num) & (column[None, :] < dim)
    return tl.load(ptr + index[:, None] * dim + column[None, :], mask=inside, other=0.0)


@jit
def _logsumexp_kernel(
    rows_ptr,  # (num_rows, dim)
    candidates_ptr,  # (num_candidates, dim)
    extra_ptr,  # (num_rows,), already in base 2
    loss_ptr,  # (num_rows,) out, base 2
    num_rows,
    num_candidates,
    dim,
    scale,  # log2(e) / temperature: exp2 is one instruction, exp is two
    skip,
    HAS_SKIP: tl.constexpr,
    HAS_EXTRA: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CANDIDATES: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    i = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    row = _tile(rows_ptr, i, num_rows, dim, BLOCK_DIM)
    if HAS_EXTRA:
        highest = tl.load(extra_ptr + i, mask=i < num_rows, other=0.0)
        total = tl.full((BLOCK_ROWS,), 1.0, tl.float32)
    else:
        highest = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
        total = tl.full((BLOCK_ROWS,), 0.0, tl.float32)
    for start in range(0, num_candidates, BLOCK_CANDIDATES):
        j = start + tl.arange(0, BLOCK_CANDIDATES)
        candidate = _tile(candidates_ptr, j, num_candidates, dim, BLOCK_DIM)
        logits = tl.dot(row, tl.trans(candidate), input_precision=PRECISION) * scale
        counted = (j < num_candidates)[None, :]
        if HAS_SKIP:
            counted = counted & (j[None, :] != i[:, None] + skip)
        logits = tl.where(counted, logits, float("-inf"))
        higher = tl.maximum(highest, tl.max(logits, axis=1))
        # Finite from the first tile on: it holds at least two candidates, so one that is not the row itself.
        total = total * tl.exp2(highest - higher) + tl.sum(tl.exp2(logits - higher[:, None]), axis=1)
        highest = higher
    tl.store(loss_ptr + i, highest + tl.log2(total), mask=i < num_rows)


@jit
def _gradient_kernel(
    own_ptr,  # (num_own, dim): the side whose gradient is wanted
    other_ptr,  # (num_other, dim)
    loss_ptr,  # base 2, one for each of the rows: of own if OWN, of other if OTHER
    grad_ptr,  # (num_own, dim) out, float32
    num_own,
    num_other,
    dim,
    scale,
    skip,
    HAS_SKIP: tl.constexpr,
    OWN: tl.constexpr,  # own are the rows
    OTHER: tl.constexpr,  # other are the rows; both for a batch compared with itself
    PRECISION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CANDIDATES: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    i = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.arange(0, BLOCK_DIM)
    own = _tile(own_ptr, i, num_own, dim, BLOCK_DIM)
    own_loss = tl.load(loss_ptr + i, mask=(i < num_own) & OWN, other=0.0)
    grad = tl.full((BLOCK_ROWS, BLOCK_DIM), 0.0, tl.float32)
    for start in range(0, num_other, BLOCK_CANDIDATES):
        j = start + tl.arange(0, BLOCK_CANDIDATES)
        other = _tile(other_ptr, j, num_other, dim, BLOCK_DIM)
        logits = tl.dot(own, tl.trans(other), input_precision=PRECISION) * scale
        counted = (i < num_own)[:, None] & (j < num_other)[None, :]
        if HAS_SKIP:
            counted = counted & (j[None, :] != i[:, None] + skip)
        logits = tl.where(counted, logits, float("-inf"))
        share = tl.full((BLOCK_ROWS, BLOCK_CANDIDATES), 0.0, tl.float32)
        if OWN:
            share += tl.exp2(logits - own_loss[:, None])
        if OTHER:
            other_loss = tl.load(loss_ptr + j, mask=j < num_other, other=0.0)
            share += tl.exp2(logits - other_loss[None, :])
        # Shares of a large batch would fall below float16's smallest normal number; 2 * 2**14 is still in its range.
        grad += tl.dot((share * 16384.0).to(other.dtype), other, input_precision=PRECISION)
    inside = (i[:, None] < num_own) & (column[None, :] < dim)
    tl.store(grad_ptr + i[:, None] * dim + column[None, :], grad / 16384.0, mask=inside)


def tile_options(dim: int, element_size: int) -> dict[str, int | str]:
    """Tile sizes that keep a program within 96 KiB of shared memory and nearly all its numbers in registers.

    Read off the compiler's report for compute capabilities 8.0, 8.6 (which has 99 KiB, the least) and 9.0.

    dim: embedding width, 1 to 256. element_size: bytes of one number, 2 or 4. Returns launch keywords.
    float32 tiles are multiplied as three TF32 products, which keeps float32's accuracy on the tensor cores.
    """
    block_dim = max(16, 1 << (dim - 1).bit_length())
    if element_size == 2:
        rows, candidates, warps = (64, 64, 8) if block_dim <= 128 else (64, 32, 8)
    else:
        rows, candidates, warps = (32, 32, 4) if block_dim <= 128 else (16, 32, 4)
    return {
        "BLOCK_ROWS": rows,
        "BLOCK_CANDIDATES": candidates,
        "BLOCK_DIM": block_dim,
        "PRECISION": "ieee" if element_size == 2 else "tf32x3",
        "num_warps": warps,
        "num_stages": 2,
    }


class _MeanLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        rows: Tensor,
        candidates: Tensor,
        extra: Tensor | None,
        scale: float,
        skip: int | None,
        symmetric: bool,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.scale, ctx.skip, ctx.symmetric = scale, skip, symmetric
        a = rows.to(dtype).contiguous()
        b = a if symmetric else candidates.to(dtype).contiguous()
        extra = None if extra is None else extra.float() / math.log(2)
        loss = torch.empty(rows.shape[0], dtype=torch.float32, device=rows.device)
        options = tile_options(a.shape[1], a.element_size())
        with torch.cuda.device(rows.device) if rows.is_cuda else nullcontext():
            _logsumexp_kernel[(triton.cdiv(a.shape[0], options["BLOCK_ROWS"]),)](
                a,
                b,
                loss if extra is None else extra,  # any pointer will do where it is not read
                loss,
                a.shape[0],
                b.shape[0],
                a.shape[1],
                scale / math.log(2),
                skip or 0,
                HAS_SKIP=skip is not None,
                HAS_EXTRA=extra is not None,
                **options,
            )
        ctx.save_for_backward(a, b, loss, extra)
        return loss.mean() * math.log(2)

    @staticmethod
    @first_derivative_only
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, b, loss, extra = ctx.saved_tensors

        def gradient(own: Tensor, other: Tensor, skip: int | None, is_rows: bool, other_is_rows: bool) -> Tensor:
            result = torch.empty(own.shape, dtype=torch.float32, device=own.device)
            options = tile_options(own.shape[1], own.element_size())
            with torch.cuda.device(own.device) if own.is_cuda else nullcontext():
                _gradient_kernel[(triton.cdiv(own.shape[0], options["BLOCK_ROWS"]),)](
                    own,
                    other,
                    loss,
                    result,
                    own.shape[0],
                    other.shape[0],
                    own.shape[1],
                    ctx.scale / math.log(2),
                    skip or 0,
                    HAS_SKIP=skip is not None,
                    OWN=is_rows,
                    OTHER=other_is_rows,
                    **options,
                )
            return result.mul_(grad * (ctx.scale / a.shape[0]))

        grad_rows = grad_candidates = grad_extra = None
        if ctx.symmetric:
            grad_rows = gradient(a, a, ctx.skip, True, True)
        else:
            if ctx.needs_input_grad[0]:
                grad_rows = gradient(a, b, ctx.skip, True, False)
            if ctx.needs_input_grad[1]:
                grad_candidates = gradient(b, a, None if ctx.skip is None else -ctx.skip, False, True)
        if extra is not None and ctx.needs_input_grad[2]:
            grad_extra = torch.exp2(extra - loss) * (grad / a.shape[0])
        return grad_rows, grad_candidates, grad_extra, None, None, None, None


def supports(rows: Tensor, candidates: Tensor) -> bool:
    """Whether mean_logsumexp below takes these: float32 on an NVIDIA GPU of the Ampere generation or later, at most 256
    wide, and large enough to be worth it."""
    return (
        HAS_TRITON
        and rows.is_cuda
        and torch.version.hip is None
        and rows.dtype == candidates.dtype == torch.float32
        and rows.shape[1] <= MAX_DIM
        and rows.shape[0] * candidates.shape[0] >= MIN_SIMILARITIES
        and max(rows.numel(), candidates.numel()) < 2**31  # offsets are 32-bit
        and torch.cuda.get_device_capability(rows.device) >= (8, 0)
    )


def mean_logsumexp(
    rows: Tensor,
    candidates: Tensor,
    scale: float,
    skip: int | None = None,
    extra: Tensor | None = None,
    half_inputs: bool = False,
) -> Tensor:
    """Twin of sslcore.objectives.contrastive.mean_logsumexp, which states the arguments; rows must be of length one.

    half_inputs: the embeddings came in half precision (or torch may use TF32 for matmuls), so the tiles are multiplied
    as float16, which holds numbers in [-1, 1] to the same 11 bits as TF32; sums stay float32. Returns a scalar.
    Chosen on CUDA where `supports` says so; loses on small batches, where plain torch launches as few kernels.
    """
    half = half_inputs or torch.get_float32_matmul_precision() != "highest"
    symmetric = rows is candidates and skip == 0
    dtype = torch.float16 if half else torch.float32
    return _MeanLogSumExp.apply(rows, candidates, extra, scale, skip, symmetric, dtype)
