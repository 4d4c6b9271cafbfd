"""SIGReg's characteristic function by one cosine and one sine a sample and slice, strip by strip.

The knots are equally spaced, so the values at knot j are the j-th power of w = exp(i * step * u): each knot is one
complex product away from the last. Backward computes u and w again and evaluates the gradient as a polynomial in w
(Horner's rule). What is held at once is a strip of u, never all samples x slices x knots.

Plain torch serves any device; on NVIDIA GPUs two Triton kernels keep w and its powers in registers. Their agreement
with the plain form is tested on the CPU in Triton's interpreter. Their speed on CUDA has not been measured.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from sslcore.kernels.derivative import first_derivative_only
from sslcore.kernels.optional_triton import HAS_TRITON, jit, tl, triton

CPU_STRIP, GPU_STRIP = 2**18, 2**23  # values of u held at once: within a core's cache; 32 MiB
BLOCK_ROWS, BLOCK_SLICES = 128, 32


@jit
def _sums_kernel(
    u_ptr,  # (views, rows, slices)
    out_ptr,  # (row blocks, views, KNOTS, slices, 2): partial sums, so that the order of addition is fixed
    rows,
    slices,
    step,
    KNOTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_SLICES: tl.constexpr,
):
    view = tl.program_id(2)
    n = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    s = tl.program_id(0) * BLOCK_SLICES + tl.arange(0, BLOCK_SLICES)
    inside = (n[:, None] < rows) & (s[None, :] < slices)
    angle = tl.load(u_ptr + (view * rows + n[:, None]) * slices + s[None, :], mask=inside, other=0.0) * step
    # Zero outside: it stays zero through every product, so the sums need no mask.
    cos1, sin1 = tl.where(inside, tl.cos(angle), 0.0), tl.where(inside, tl.sin(angle), 0.0)
    cos, sin = cos1, sin1
    out = out_ptr + ((tl.program_id(1) * tl.num_programs(2) + view) * KNOTS * slices + s) * 2
    for _ in range(KNOTS):
        tl.store(out, tl.sum(cos, axis=0), mask=s < slices)
        tl.store(out + 1, tl.sum(sin, axis=0), mask=s < slices)
        out += 2 * slices
        turned = cos * cos1 - sin * sin1
        sin = sin * cos1 + cos * sin1
        cos = turned


@jit
def _gradient_kernel(
    u_ptr,  # (views, rows, slices) in, its gradient out
    factor_ptr,  # (views, KNOTS, slices, 2): complex factor of each power of w
    rows,
    slices,
    step,
    KNOTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_SLICES: tl.constexpr,
):
    view = tl.program_id(2)
    n = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    s = tl.program_id(0) * BLOCK_SLICES + tl.arange(0, BLOCK_SLICES)
    inside = (n[:, None] < rows) & (s[None, :] < slices)
    place = u_ptr + (view * rows + n[:, None]) * slices + s[None, :]
    angle = tl.load(place, mask=inside, other=0.0) * step
    cos, sin = tl.cos(angle), tl.sin(angle)
    real = tl.full((BLOCK_ROWS, BLOCK_SLICES), 0.0, tl.float32)
    imaginary = tl.full((BLOCK_ROWS, BLOCK_SLICES), 0.0, tl.float32)
    factor = factor_ptr + ((view * KNOTS + KNOTS - 1) * slices + s) * 2
    for _ in range(KNOTS):
        more_real = real + tl.load(factor, mask=s < slices, other=0.0)[None, :]
        more_imaginary = imaginary + tl.load(factor + 1, mask=s < slices, other=0.0)[None, :]
        real = more_real * cos - more_imaginary * sin
        imaginary = more_real * sin + more_imaginary * cos
        factor -= 2 * slices
    tl.store(place, real, mask=inside)


def _powers_summed(u: Tensor, num: int, step: float) -> Tensor:
    """(V, num, S, 2): sums over rows of the first `num` powers of exp(i * step * u), u (V, N, S)."""
    first = torch.polar(torch.ones_like(u), u * step)
    power, sums = first.clone(), [first.sum(dim=1)]
    for _ in range(num - 1):
        power *= first
        sums.append(power.sum(dim=1))
    return torch.view_as_real(torch.stack(sums, dim=1))


def _powers_weighted(u: Tensor, factors: Tensor, step: float) -> Tensor:
    """(V, N, S): real part of the sum over j of factors[:, j] * w**(j + 1); factors (V, num, S, 2)."""
    factors = torch.view_as_complex(factors)
    first = torch.polar(torch.ones_like(u), u * step)
    result = first * factors[:, -1, None]
    for j in range(factors.shape[1] - 2, -1, -1):
        result += factors[:, j, None]
        result *= first
    return result.real


def _launch(kernel, u: Tensor, other: Tensor, knots: int, step: float) -> None:
    grid = (triton.cdiv(u.shape[2], BLOCK_SLICES), triton.cdiv(u.shape[1], BLOCK_ROWS), u.shape[0])
    with torch.cuda.device(u.device) if u.is_cuda else nullcontext():
        kernel[grid](u, other, u.shape[1], u.shape[2], step, knots, BLOCK_ROWS, BLOCK_SLICES, num_warps=4)


def strip_sums(u: Tensor, num: int, step: float) -> Tensor:
    """_powers_summed in Triton; u (V, N, S) contiguous float32."""
    blocks = triton.cdiv(u.shape[1], BLOCK_ROWS)
    partial = torch.empty(blocks, u.shape[0], num, u.shape[2], 2, dtype=u.dtype, device=u.device)
    _launch(_sums_kernel, u, partial, num, step)
    return partial.sum(dim=0)


def strip_gradient(u: Tensor, factors: Tensor, step: float) -> Tensor:
    """_powers_weighted in Triton, written over u (V, N, S) contiguous float32."""
    _launch(_gradient_kernel, u, factors.contiguous(), factors.shape[1], step)
    return u


def supports(z: Tensor) -> bool:
    """Whether the Triton kernels take it: float32 on an NVIDIA GPU."""
    return HAS_TRITON and z.is_cuda and torch.version.hip is None and z.dtype == torch.float32


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z: Tensor, slices: Tensor, knots: int, step: float, strip: int, triton_kernels: bool) -> Tensor:
        ctx.knots, ctx.step, ctx.strip, ctx.triton_kernels = knots, step, strip, triton_kernels
        ctx.save_for_backward(z, slices)
        summed = strip_sums if triton_kernels else _powers_summed
        parts = slices.split(strip, dim=1)
        return torch.cat([summed(z @ part, knots, step) for part in parts], dim=2)

    @staticmethod
    @first_derivative_only
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, slices = ctx.saved_tensors
        # d cos(t u) = -t sin(t u) and d sin(t u) = t cos(t u): the real part of t (grad_sin + i grad_cos) w**j.
        knots = torch.arange(1, ctx.knots + 1, device=z.device, dtype=z.dtype) * ctx.step
        factors = grad.flip(-1) * knots[:, None, None]
        weighted = strip_gradient if ctx.triton_kernels else _powers_weighted
        total = torch.zeros_like(z).flatten(0, 1)
        parts = zip(slices.split(ctx.strip, dim=1), factors.split(ctx.strip, dim=2), strict=True)
        for part, factor in parts:
            total.addmm_(weighted(z @ part, factor, ctx.step).flatten(0, 1), part.T)
        return total.view_as(z), None, None, None, None, None


def characteristic_sums(
    z: Tensor, slices: Tensor, num_knots: int, t_max: float, strip_values: int | None = None
) -> Tensor:
    """Twin of sslcore.objectives.sigreg.characteristic_sums, which states the arguments, in O(V N D + strip) memory.

    strip_values: how many values of u may be held at once; None takes 2**18 on a CPU, 2**23 elsewhere.
    Loses on small inputs, where the plain form is a few calls and has a second derivative. Rounding grows with
    num_knots as it does for t * u itself. No gradient reaches slices.
    """
    strip_values = (CPU_STRIP if z.device.type == "cpu" else GPU_STRIP) if strip_values is None else strip_values
    strip = max(1, strip_values // max(1, z.shape[0] * z.shape[1]))
    step = t_max / (num_knots - 1)
    return _Sums.apply(z.contiguous(), slices.detach().contiguous(), num_knots - 1, step, strip, supports(z))
