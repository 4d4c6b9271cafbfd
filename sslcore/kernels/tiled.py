"""The contrastive denominator in strips of rows, with plain torch: any device, any floating-point type.

mean_logsumexp      rows against any candidates; gradients while each strip is at hand
mean_over_pairs     a batch against itself: similarities are symmetric, so each pair is multiplied once, not twice
"""

from __future__ import annotations

import torch
from torch import Tensor

from sslcore.kernels.derivative import first_derivative_only

LARGEST_SCALE = 40.0  # exp(-2 * 40) is still a normal float32: no maximum has to be looked for
CPU_STRIP, GPU_STRIP = 2**18, 2**24  # similarities held at once: within a core's cache; 64 MiB


class _MeanLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, rows: Tensor, candidates: Tensor, extra: Tensor | None, scale: float, skip: int | None, strip: int
    ) -> Tensor:
        # The loss is one number, so its gradient is known up to that number's own gradient while each strip is still
        # at hand: nothing is computed twice.
        for_rows, for_candidates, for_extra = ctx.needs_input_grad[:3]
        grad_rows = torch.empty_like(rows) if for_rows else None
        grad_candidates = torch.zeros_like(candidates) if for_candidates else None  # a queue's costs a third: skip it
        losses = []
        for start in range(0, rows.shape[0], strip):
            part = rows[start : start + strip]
            logits = part @ candidates.T
            logits *= scale
            if skip is not None:
                own = torch.arange(part.shape[0], device=rows.device)
                logits[own, own + (start + skip)] = float("-inf")
            loss = torch.logsumexp(logits, dim=1)
            if extra is not None:
                loss = torch.logaddexp(loss, extra[start : start + strip])
            losses.append(loss)
            if for_rows or for_candidates:
                shares = logits.sub_(loss[:, None]).exp_()
            if for_rows:
                torch.mm(shares, candidates, out=grad_rows[start : start + strip])
            if for_candidates:
                grad_candidates.addmm_(shares.T, part)
        loss = torch.cat(losses)
        for grad in (grad_rows, grad_candidates):
            if grad is not None:
                grad.mul_(scale / rows.shape[0])
        grad_extra = torch.exp(extra - loss) / rows.shape[0] if for_extra else None
        ctx.save_for_backward(grad_rows, grad_candidates, grad_extra)
        return loss.mean()

    @staticmethod
    @first_derivative_only
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*(None if saved is None else saved * grad for saved in ctx.saved_tensors), None, None, None)


def mean_logsumexp(
    rows: Tensor,
    candidates: Tensor,
    scale: float,
    skip: int | None = None,
    extra: Tensor | None = None,
    half_inputs: bool = False,
    strip_values: int | None = None,
) -> Tensor:
    """Twin of sslcore.objectives.contrastive.mean_logsumexp, which states the arguments, in O((M + L) D) memory.

    strip_values: how many similarities may be held at once; None takes 2**18 on a CPU, 2**24 elsewhere. half_inputs is
    of no use here. Returns a scalar. Chosen for large matrices wherever the Triton kernels do not serve: CPUs, rows
    wider than 256, float64. Loses on small ones, where one large matmul is as good and has a second derivative.
    """
    strip_values = (CPU_STRIP if rows.device.type == "cpu" else GPU_STRIP) if strip_values is None else strip_values
    strip = max(1, strip_values // candidates.shape[0])
    return _MeanLogSumExp.apply(rows, candidates, extra, scale, skip, strip)


class _MeanOverPairs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, scale: float, strip: int) -> Tensor:
        offset = rows.new_full((1,), -scale)

        def powers(start: int) -> Tensor:
            """exp(scale * (cosine - 1)) of a strip with itself and all rows behind it; a row with itself gives zero."""
            similar = torch.addmm(offset, rows[start : start + strip], rows[start:].T, alpha=scale).exp_()
            similar.diagonal().zero_()
            return similar

        sums = torch.zeros_like(rows[:, 0])
        for start in range(0, len(rows), strip):
            similar = powers(start)
            stop = start + len(similar)
            sums[start:stop] += similar.sum(dim=1)
            sums[stop:] += similar[:, len(similar) :].sum(dim=0)
        if ctx.needs_input_grad[0]:
            grad, shares = torch.zeros_like(rows), sums.reciprocal()
            for start in range(0, len(rows), strip):
                similar = similar if strip >= len(rows) else powers(start)
                stop = start + len(similar)
                similar *= shares[start:stop, None] + shares[start:]
                grad[start:stop].addmm_(similar, rows[start:])
                grad[stop:].addmm_(similar[:, len(similar) :].T, rows[start:stop])
            ctx.save_for_backward(grad.mul_(scale / len(rows)))
        return sums.log_().mean() + scale

    @staticmethod
    @first_derivative_only
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * grad, None, None


def mean_over_pairs(rows: Tensor, scale: float, strip_values: int | None = None) -> Tensor:
    """Twin of mean_logsumexp(rows, rows, scale, skip=0) in sslcore.objectives.contrastive, for rows of length one.

    scale at most LARGEST_SCALE; strip_values as in mean_logsumexp. Returns a scalar. Two thirds of the products.
    """
    strip_values = (CPU_STRIP if rows.device.type == "cpu" else GPU_STRIP) if strip_values is None else strip_values
    return _MeanOverPairs.apply(rows, scale, max(1, strip_values // len(rows)))
