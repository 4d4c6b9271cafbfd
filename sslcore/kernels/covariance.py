"""Energies of covariance and correlation matrices, with gradients in closed form: the inputs and little more are held.

The energy ||A'B||^2 of a D x D matrix equals <AA', BB'> of two N x N ones. Whichever costs fewer products is formed,
the D x D one in strips when it is large. Only the inputs are kept for backward: centring and scaling are done again.
Plain torch, any device. A step's gradient has the columns' mean removed already, because each of its terms is centred.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sslcore.kernels.derivative import first_derivative_only

STRIP_VALUES = 2**24  # entries of a D x D matrix held at once: 64 MiB, so up to D = 4096 it is formed once and kept


def gram_is_cheaper(rows: int, dims: int, same: bool) -> bool:
    """Whether <AA', BB'> takes fewer products than ||A'B||^2: one N x N matrix when A is B, else two."""
    return rows * (1 if same else 2) < dims


def _energy(a: Tensor, b: Tensor, strip_values: int) -> tuple[Tensor, list[Tensor]]:
    """||A'B||^2 and the matrices worth keeping for its gradient; a, b (N, D)."""
    if gram_is_cheaper(*a.shape, a is b):
        grams = [a @ a.T] if a is b else [a @ a.T, b @ b.T]
        return torch.dot(grams[0].flatten(), grams[-1].flatten()), grams
    parts = a.split(max(1, strip_values // a.shape[1]), dim=1)
    total = a.new_zeros(())
    for part in parts:
        product = part.T @ b
        total += torch.dot(product.flatten(), product.flatten())
    return total, [product] if len(parts) == 1 else []


def _energy_gradients(a: Tensor, b: Tensor, kept: list[Tensor], strip_values: int) -> list[Tensor]:
    """Gradients of ||A'B||^2 to a and b; of ||A'A||^2 to a alone when a is b."""
    if gram_is_cheaper(*a.shape, a is b):
        return [4 * (kept[0] @ a)] if a is b else [2 * (kept[1] @ a), 2 * (kept[0] @ b)]
    width = max(1, strip_values // a.shape[1])
    to_a, to_b = torch.empty_like(a), None if a is b else torch.zeros_like(b)
    for start in range(0, a.shape[1], width):
        part = a[:, start : start + width]
        product = kept[0] if kept else part.T @ b
        torch.mm(b, product.T, out=to_a[:, start : start + width])
        if to_b is not None:
            to_b.addmm_(part, product)
    return [to_a.mul_(4)] if to_b is None else [to_a.mul_(2), to_b.mul_(2)]


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z: Tensor, strip_values: int) -> tuple[Tensor, Tensor]:
        ctx.strip_values = strip_values
        centred = z - z.mean(dim=0)
        energy, kept = _energy(centred, centred, strip_values)
        variance = torch.linalg.vector_norm(centred, dim=0).square_() / len(z)
        ctx.save_for_backward(z, *kept)
        return variance, energy / len(z) ** 2

    @staticmethod
    @first_derivative_only
    def backward(ctx, grad_variance: Tensor, grad_energy: Tensor) -> tuple[Tensor, None]:
        z, *kept = ctx.saved_tensors
        centred = z - z.mean(dim=0)
        (result,) = _energy_gradients(centred, centred, kept, ctx.strip_values)
        result *= grad_energy / len(z) ** 2
        return result.add_(centred.mul_(grad_variance * (2 / len(z)))), None


class _Correlation(torch.autograd.Function):
    @staticmethod
    def _standard(z: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        z = z - z.mean(dim=0)
        scale = torch.rsqrt(torch.linalg.vector_norm(z, dim=0).square_() / len(z) + epsilon)
        return z.mul_(scale), scale

    @staticmethod
    def forward(ctx, z0: Tensor, z1: Tensor, epsilon: float, strip_values: int) -> tuple[Tensor, Tensor]:
        ctx.epsilon, ctx.strip_values = epsilon, strip_values
        a, b = (_Correlation._standard(z, epsilon)[0] for z in (z0, z1))
        energy, kept = _energy(a, b, strip_values)
        ctx.save_for_backward(z0, z1, *kept)
        return torch.linalg.vecdot(a, b, dim=0) / len(z0), energy / len(z0) ** 2

    @staticmethod
    @first_derivative_only
    def backward(ctx, grad_diagonal: Tensor, grad_energy: Tensor) -> tuple[Tensor | None, ...]:
        z0, z1, *kept = ctx.saved_tensors
        num, results = len(z0), []
        (a, scale_a), (b, scale_b) = (_Correlation._standard(z, ctx.epsilon) for z in (z0, z1))
        gradients = _energy_gradients(a, b, kept, ctx.strip_values)
        for result, own, other, scale in ((gradients[0], a, b, scale_a), (gradients[1], b, a, scale_b)):
            result.mul_(grad_energy / num**2).addcmul_(other, grad_diagonal / num)
            along = torch.linalg.vecdot(result, own, dim=0) / num  # what scaling to unit variance takes away
            results.append(result.addcmul_(own, along, value=-1).mul_(scale))
        return (*results, None, None)


def spread(z: Tensor, strip_values: int = STRIP_VALUES) -> tuple[Tensor, Tensor]:
    """Variance of each column (D,), biased, and the energy of the whole biased covariance matrix; z (N, D).

    strip_values: entries of the covariance matrix that may be held at once.
    Chosen for large inputs of one process; loses on small ones, where the plain form is a few calls with a second
    derivative. Several ranks need the matrix itself, to average it.
    """
    return _Spread.apply(z, strip_values)


def correlation(z0: Tensor, z1: Tensor, epsilon: float, strip_values: int = STRIP_VALUES) -> tuple[Tensor, Tensor]:
    """Diagonal (D,) and energy of the cross-correlation matrix of z0, z1 (N, D), standardised with variance + epsilon.

    strip_values, and when it is chosen: as in spread.
    """
    return _Correlation.apply(z0, z1, epsilon, strip_values)
