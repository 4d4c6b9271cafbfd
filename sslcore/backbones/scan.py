"""The selective scan of Mamba: one recurrence, computed in several ways."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcore.backbones.scan_steps import fused_scan
from sslcore.validate import check_finite, check_float, check_positive, check_rank, require, unknown

LINEAR_BACKENDS = ("loop", "doubling", "chunked")
BACKENDS = (*LINEAR_BACKENDS, "fused")


def selective_scan(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    state: Tensor | None = None,
    return_state: bool = False,
    backend: str = "auto",
    chunk_size: int = 16,
) -> Tensor | tuple[Tensor, Tensor]:
    """Each channel keeps a few numbers that fade and take in: h_t = exp(delta_t A) h_(t-1) + delta_t B_t x_t.

        h = state                                                    # (Bt, D, N), zero at the start
        for t in range(L):
            h = exp(delta[:, t, :, None] * A) * h + (delta * x)[:, t, :, None] * B[:, t, None, :]
            y[:, t] = (h * C[:, t, None, :]).sum(-1) + D * x[:, t]

    x, delta: (Bt, L, D), Bt sequences of L tokens with D channels; delta is the step, 0 or more for a stable scan.
    A: (D, N), below 0, N numbers of state a channel. B, C: (Bt, L, N), how a token writes and reads. D: (D,) or None.
    state, return_state: the state to start from and the one left, (Bt, D, N): a sequence may be cut and carried on.
    backend: "loop" is the readable reference. "doubling" takes log2 L sweeps over whole sequences, each doubling the
        span that every position has seen (Hillis and Steele); only products of decays occur, so it cannot overflow.
        "chunked" doubles inside chunks of chunk_size and loops over their carries. "fused" goes step by step without
        storing decays and computes them again backward. "auto" is "fused" on the CPU, else "chunked".
    Returns y (Bt, L, D), with return_state also the state. Runs in float32 under autocast (float64 stays).
    Raises ValueError for shapes that do not fit, NaN, or an unknown backend; TypeError for integers.
    Source: Gu & Dao 2023 (Mamba, arXiv 2312.00752), algorithm 2, with B discretised as delta B.
    """
    if backend == "auto":
        backend = "fused" if x.device.type == "cpu" else "chunked"
    if backend not in BACKENDS:
        unknown("backend", backend, (*BACKENDS, "auto"))
    check_positive("chunk_size", chunk_size)
    _check(x, delta, A, B, C, D, state)
    out = x.dtype
    # The state sums many small terms: half precision would lose them.
    with torch.autocast(x.device.type, enabled=False):
        x, delta, A, B, C = (each if each.dtype == torch.float64 else each.float() for each in (x, delta, A, B, C))
        start = x.new_zeros(x.shape[0], *A.shape) if state is None else state.to(x.dtype)
        if backend == "loop":
            y, last = _loop(x, delta, A, B, C, start)
        elif backend == "fused":
            y, last = fused_scan(x, delta, A, B, C, start)
        else:
            decay = (delta[..., None] * A).exp()  # (Bt, L, D, N)
            h = linear_scan(decay, (delta * x)[..., None] * B[:, :, None], start, backend, chunk_size)
            y, last = (h @ C[..., None]).squeeze(-1), h[:, -1]
        y = y if D is None else y + D.to(x.dtype) * x
    return (y.to(out), last) if return_state else y.to(out)


def linear_scan(
    a: Tensor, b: Tensor, state: Tensor | None = None, backend: str = "doubling", chunk_size: int = 16
) -> Tensor:
    """All h_t = a_t h_(t-1) + b_t along axis 1, elementwise.

        h = state                       # zero if None
        for t in range(L): h = out[:, t] = a[:, t] * h + b[:, t]

    a, b: (Bt, L, ...) of one shape. state: (Bt, ...). Returns (Bt, L, ...). The gradient is the same recurrence, run
    from the end. Raises ValueError for shapes that do not fit or an unknown backend ("loop", "doubling", "chunked").
    """
    if backend not in LINEAR_BACKENDS:
        unknown("backend", backend, LINEAR_BACKENDS)
    check_float("a", a)
    require(a.ndim >= 2 and a.shape[1] >= 1, f"a: expected (batch, L >= 1, ...), got shape {tuple(a.shape)}")
    require(a.shape == b.shape, f"b: expected the shape of a {tuple(a.shape)}, got {tuple(b.shape)}")
    if state is not None:
        fits = state.shape == a[:, 0].shape
        require(fits, f"state: expected {tuple(a[:, 0].shape)}, got {tuple(state.shape)}")
        b = torch.cat([(a[:, 0] * state + b[:, 0])[:, None], b[:, 1:]], dim=1)
    if backend == "loop":
        h, steps = torch.zeros_like(b[:, 0]), []
        for t in range(a.shape[1]):
            h = a[:, t] * h + b[:, t]
            steps.append(h)
        return torch.stack(steps, dim=1)
    return _Recurrence.apply(a, b, a.shape[1] if backend == "doubling" else chunk_size)


def _loop(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    y = []
    for t in range(x.shape[1]):
        h = (delta[:, t, :, None] * A).exp() * h + (delta * x)[:, t, :, None] * B[:, t, None]
        y.append((h * C[:, t, None]).sum(-1))
    return torch.stack(y, dim=1), h


def _double(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Running products of a and states h along axis 2, each row of axis 1 on its own from a zero state."""
    span = 1
    while span < a.shape[2]:
        # Position t has seen the last `span` inputs; it takes over what position t - span has seen.
        b = torch.cat([b[:, :, :span], b[:, :, span:] + a[:, :, span:] * b[:, :, :-span]], dim=2)
        a = torch.cat([a[:, :, :span], a[:, :, span:] * a[:, :, :-span]], dim=2)
        span *= 2
    return a, b


def _solve(a: Tensor, b: Tensor, chunk_size: int) -> Tensor:
    length = a.shape[1]
    chunks = -(-length // chunk_size)
    if chunks == 1:
        return _double(a[:, None], b[:, None])[1][:, 0]
    empty = a.new_zeros(len(a), chunks * chunk_size - length, *a.shape[2:])
    a, b = (torch.cat([each, empty], dim=1).unflatten(1, (chunks, chunk_size)) for each in (a, b))
    a, b = _double(a, b)
    carry, done = b[:, 0, -1], [b[:, 0]]
    for number in range(1, chunks):
        done.append(b[:, number] + a[:, number] * carry[:, None])
        carry = done[-1][:, -1]
    return torch.cat(done, dim=1)[:, :length]


class _Recurrence(torch.autograd.Function):
    """h_t = a_t h_(t-1) + b_t. Only a and h are kept, however many sweeps were made."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, chunk_size: int) -> Tensor:
        h = _solve(a, b, chunk_size)
        ctx.save_for_backward(a, h)
        ctx.chunk_size = chunk_size
        return h

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        a, h = ctx.saved_tensors
        # g_t = grad_t + a_(t+1) g_(t+1): the same recurrence from the end, so it can be differentiated again.
        later = torch.cat([a[:, 1:], torch.zeros_like(a[:, :1])], dim=1)
        g = _Recurrence.apply(later.flip(1), grad.flip(1), ctx.chunk_size).flip(1)
        before = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], dim=1)
        return g * before, g, None


def _check(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor | None
) -> None:
    check_rank("x", x, 3)
    check_rank("A", A, 2)
    batch, length, dim = x.shape
    require(batch >= 1 and length >= 1, f"x: expected at least one sequence and token, got shape {tuple(x.shape)}")
    require(A.shape[0] == dim and A.shape[1] >= 1, f"A: expected ({dim}, N >= 1), got {tuple(A.shape)}")
    number = A.shape[1]
    expected = {"x": (x, x.shape), "delta": (delta, x.shape), "A": (A, A.shape)}
    expected |= {"B": (B, (batch, length, number)), "C": (C, (batch, length, number))}
    expected |= {} if D is None else {"D": (D, (dim,))}
    expected |= {} if state is None else {"state": (state, (batch, dim, number))}
    for name, (tensor, shape) in expected.items():
        check_float(name, tensor)
        require(tensor.shape == shape, f"{name}: expected shape {tuple(shape)}, got {tuple(tensor.shape)}")
        check_finite(name, tensor)
