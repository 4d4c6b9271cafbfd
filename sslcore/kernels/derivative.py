"""Backward passes that refuse to be differentiated again."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

Gradients = Tensor | tuple[Tensor | None, ...]


class _Refuse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gradient: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def backward(ctx, _: Tensor) -> None:
        raise RuntimeError(
            "the fast twin of this objective has no second derivative; its plain form has one, and is taken for small "
            "inputs and inside torch.compile"
        )


def first_derivative_only(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """Decorator for a Function's backward: a second derivative through it raises RuntimeError.

    torch's own once_differentiable lets one through, as zero, when the loss is differentiated as it stands; in a graph
    with other parts, such as a normalisation in front, the sum of the rest would pass for the whole.
    """

    @wraps(backward)
    def run(ctx, *grads: Tensor) -> Gradients:
        with torch.no_grad():
            outputs = backward(ctx, *grads)
        if not torch.is_grad_enabled():  # create_graph=False: nobody can ask
            return outputs
        parts = outputs if isinstance(outputs, tuple) else (outputs,)
        marked = tuple(x if x is None else _Refuse.apply(x.detach().requires_grad_()) for x in parts)
        return marked if isinstance(outputs, tuple) else marked[0]

    return run
