"""The contrastive denominator in strips of rows, with plain torch: any device, any floating-point type."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

STRIP_VALUES = 2**20  # similarities held at once: 4 MiB in float32, about one CPU core's share of the cache


class _MeanLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, rows: Tensor, candidates: Tensor, extra: Tensor | None, scale: float, skip: int | None, strip: int
    ) -> Tensor:
        # The loss is one number, so its gradient is known up to that number's own gradient while each strip is still
        # at hand: nothing is computed twice.
        wanted = any(ctx.needs_input_grad[:3])
        grads = [torch.zeros_like(rows), torch.zeros_like(candidates)] if wanted else []
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
            if wanted:
                shares = logits.sub_(loss[:, None]).exp_()
                torch.mm(shares, candidates, out=grads[0][start : start + strip])
                grads[1].addmm_(shares.T, part)
        loss = torch.cat(losses)
        if wanted:
            num = rows.shape[0]
            grads = [grad.mul_(scale / num) for grad in grads]
            if extra is not None:
                grads.append(torch.exp(extra - loss) / num)
            ctx.save_for_backward(*grads)
        return loss.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads = [saved * grad for saved in ctx.saved_tensors]
        return (*grads, *[None] * (6 - len(grads)))


def mean_logsumexp(
    rows: Tensor,
    candidates: Tensor,
    scale: float,
    skip: int | None = None,
    extra: Tensor | None = None,
    half_inputs: bool = False,
    strip_values: int = STRIP_VALUES,
) -> Tensor:
    """Twin of sslcore.objectives.contrastive.mean_logsumexp, which states the arguments, in O((M + L) D) memory.

    strip_values: how many similarities may be held at once. half_inputs is of no use here. Returns a scalar.
    Chosen off the GPU for matrices too large for the cache; loses below that, where one large matmul is as good and
    a second derivative can be had.
    """
    strip = max(1, strip_values // candidates.shape[0])
    return _MeanLogSumExp.apply(rows, candidates, extra, scale, skip, strip)
