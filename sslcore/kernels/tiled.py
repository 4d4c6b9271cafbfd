"""The contrastive denominator in strips of rows, with plain torch: any device, any floating-point type."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CPU_STRIP, GPU_STRIP = 2**20, 2**24  # similarities held at once: a core's share of the cache; 64 MiB


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
    @once_differentiable
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

    strip_values: how many similarities may be held at once; None takes 2**20 on a CPU, 2**24 elsewhere. half_inputs is
    of no use here. Returns a scalar. Chosen for large matrices wherever the Triton kernels do not serve: CPUs, rows
    wider than 256, float64. Loses on small ones, where one large matmul is as good and has a second derivative.
    """
    strip_values = (CPU_STRIP if rows.device.type == "cpu" else GPU_STRIP) if strip_values is None else strip_values
    strip = max(1, strip_values // candidates.shape[0])
    return _MeanLogSumExp.apply(rows, candidates, extra, scale, skip, strip)
