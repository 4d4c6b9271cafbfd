"""The selective scan step by step, with decays that are never stored: the quick way on a CPU.

One step works on (Bt, N, D) numbers, which stay in the processor's cache. Forward keeps the states, backward computes
the decays again. It loses where single steps are too small to be worth a call: one short sequence, few channels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fused_scan(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """y (Bt, L, D) and the last state (Bt, D, N); arguments as in `selective_scan`, of one floating type.

    For a second derivative (create_graph=True) the gradient is taken from the plain loop.
    """
    return _FusedScan.apply(x, delta, A, B, C, state)


class _FusedScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, delta, A, B, C, state):
        # Time first, channels last: a step is one contiguous block, and its inner loop runs over the channels.
        steps = delta.transpose(0, 1).contiguous()[:, :, None]  # (L, Bt, 1, D)
        taken = steps * x.transpose(0, 1)[:, :, None]
        write, read = (each.transpose(0, 1).contiguous() for each in (B, C))
        rates = A.T.contiguous()
        h = x.new_empty(x.shape[1] + 1, x.shape[0], *rates.shape)  # (L + 1, Bt, N, D)
        h[0] = state.transpose(1, 2)
        decay = torch.empty_like(h[0])
        for t in range(x.shape[1]):
            torch.mul(steps[t], rates, out=decay).exp_()
            torch.mul(decay, h[t], out=h[t + 1])
            h[t + 1].addcmul_(write[t, :, :, None], taken[t])
        y = (read[:, :, None] @ h[1:]).squeeze(2).transpose(0, 1)
        ctx.save_for_backward(x, delta, A, B, C, state, h)
        return y, h[-1].transpose(1, 2).clone()

    @staticmethod
    def backward(ctx, grad_y, grad_last):
        inputs, h = ctx.saved_tensors[:-1], ctx.saved_tensors[-1]
        if torch.is_grad_enabled():  # somebody wants to differentiate this gradient
            from sslcore.backbones.scan import _loop

            # The last state always counts, though perhaps with a gradient of zero.
            outputs = _loop(*inputs)
            wanted = [each for each in inputs if each.requires_grad]
            found = iter(torch.autograd.grad(outputs, wanted, (grad_y, grad_last), create_graph=True))
            return tuple(next(found) if each.requires_grad else None for each in inputs)
        x, delta, A, B, C, _ = inputs
        steps = delta.transpose(0, 1).contiguous()[:, :, None]
        first = x.transpose(0, 1)[:, :, None]
        grad_y = grad_y.transpose(0, 1)[:, :, None].contiguous()  # (L, Bt, 1, D)
        write, read = (each.transpose(0, 1).contiguous()[..., None] for each in (B, C))  # (L, Bt, N, 1)
        rates = A.T.contiguous()
        g = torch.empty_like(h[1:])  # gradient of each state
        carry = grad_last.transpose(1, 2).contiguous()
        decay, grad_rates, grad_steps = torch.empty_like(carry), torch.zeros_like(carry), torch.empty_like(steps)
        for t in range(len(g) - 1, -1, -1):
            torch.addcmul(carry, read[t], grad_y[t], out=g[t])
            torch.mul(steps[t], rates, out=decay).exp_()
            torch.mul(g[t], decay, out=carry)
            torch.mul(carry, h[t], out=decay)  # gradient of the exponent
            grad_rates.addcmul_(decay, steps[t])
            torch.sum(decay.mul_(rates), dim=1, keepdim=True, out=grad_steps[t])
        grad_taken = write.mT @ g  # (L, Bt, 1, D)
        grad_write, grad_read = (g @ (steps * first).mT).squeeze(-1), (h[1:] @ grad_y.mT).squeeze(-1)
        grad_steps += grad_taken * first
        grads = ((grad_taken * steps).squeeze(2), grad_steps.squeeze(2), grad_write, grad_read)
        grad_x, grad_delta, grad_B, grad_C = (each.transpose(0, 1) for each in grads)
        return grad_x, grad_delta, grad_rates.sum(0).T, grad_B, grad_C, carry.transpose(1, 2)
