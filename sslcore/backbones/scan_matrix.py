"""Relatives of the selective scan: the matrix it multiplies by, and Mamba-2's scan with one decay a head."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcore.backbones.scan import linear_scan
from sslcore.validate import check_float, check_positive, check_rank, require


def _decays(log_decay: Tensor) -> Tensor:
    """(..., L) logs of decays -> (..., L, L): entry [t, s] = exp(sum of them over s < r <= t), 0 for s > t."""
    length = log_decay.shape[-1]
    total = log_decay.cumsum(-1)
    later = torch.ones(length, length, dtype=torch.bool, device=log_decay.device).triu(1)
    # Masked before the exponential: above the diagonal it would overflow, and infinity times zero has no gradient.
    return (total[..., :, None] - total[..., None, :]).masked_fill(later, -torch.inf).exp()


def scan_matrix(delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The selective scan as one lower triangular matrix for each channel: y[:, t, d] = sum_s M[:, d, t, s] x[:, s, d].

        M[b, d, t, s] = sum_n C[b, t, n] * exp(A[d, n] * sum(delta[b, s+1 : t+1, d])) * delta[b, s, d] * B[b, s, n]

    Shapes as in selective_scan; D x is left out. Returns (Bt, D, L, L) in float32 or float64: what takes the place of
    attention, exact, signed, and with rows that do not sum to one. Memory Bt * D * L^2, one n after the other.
    Source: Ali et al. 2024, The hidden attention of Mamba models, arXiv 2403.01590.
    """
    check_rank("delta", delta, 3)
    check_float("delta", delta)
    batch, length, dim = delta.shape
    require(A.ndim == 2 and len(A) == dim, f"A: expected ({dim}, N), got {tuple(A.shape)}")
    for name, tensor in (("B", B), ("C", C)):
        expected = (batch, length, A.shape[1])
        require(tuple(tensor.shape) == expected, f"{name}: expected {expected}, got {tuple(tensor.shape)}")
    delta, A, B, C = (each if each.dtype == torch.float64 else each.float() for each in (delta, A, B, C))
    step, total = delta.transpose(1, 2), 0
    for n in range(A.shape[1]):
        link = C[:, None, :, None, n] * B[:, None, None, :, n]  # (Bt, 1, t, s)
        total = total + link * _decays(step * A[:, n, None])
    return total * step[:, :, None]


def ssd_scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk_size: int = 16) -> Tensor:
    """Mamba-2's layer, *not* Mamba's: one decay for all channels and states of a head, hence matrix products.

        M[b, h, t, s] = (C[b, t] @ B[b, s]) * exp(A[h] * sum(delta[b, s+1 : t+1, h])) * delta[b, s, h]    # s <= t
        y[b, t, h] = sum(M[b, h, t, s] * x[b, s, h] for s)

    x: (Bt, L, H, P), H heads of P channels. delta: (Bt, L, H). A: (H,), below 0. B, C: (Bt, L, N), shared by the heads.
    Returns (Bt, L, H, P). Inside a chunk M is built and multiplied, from chunk to chunk a state (N, P) is handed on.
    The selective scan gives the same if its A is constant within each head, and its delta too.
    Raises ValueError for shapes that do not fit. Source: Dao & Gu 2024 (state space duality, arXiv 2405.21060).
    """
    check_rank("x", x, 4)
    check_float("x", x)
    check_positive("chunk_size", chunk_size)
    batch, length, heads, _ = x.shape
    for name, tensor, shape in (("delta", delta, (batch, length, heads)), ("A", A, (heads,)),
                                ("B", B, (batch, length, B.shape[-1])), ("C", C, B.shape)):  # fmt: skip
        require(tuple(tensor.shape) == tuple(shape), f"{name}: expected {tuple(shape)}, got {tuple(tensor.shape)}")
    with torch.autocast(x.device.type, enabled=False):
        x, delta, A, B, C = (each if each.dtype == torch.float64 else each.float() for each in (x, delta, A, B, C))
        chunks = -(-length // chunk_size)
        # Padding behind the end: a step of 0 writes nothing and lets nothing fade.
        x, delta, B, C = (
            torch.cat([each, each.new_zeros(batch, chunks * chunk_size - length, *each.shape[2:])], dim=1)
            .unflatten(1, (chunks, chunk_size))
            for each in (x * delta[..., None], delta, B, C)
        )
        fade = (delta * A).movedim(-1, 2)  # (Bt, chunks, H, T)
        within = _decays(fade) * (C @ B.mT)[:, :, None]  # (Bt, chunks, H, T, T)
        y = torch.einsum("bchts,bcshp->bcthp", within, x)
        so_far = fade.cumsum(-1)  # from the chunk's start up to and with t
        left = (so_far[..., -1:] - so_far).exp()
        made = torch.einsum("bchs,bcsn,bcshp->bchnp", left, B, x)
        whole = so_far[..., -1].exp()[..., None, None].expand_as(made)
        states = linear_scan(whole, made)  # after each chunk
        before = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], dim=1)
        y = y + torch.einsum("bcht,bctn,bchnp->bcthp", so_far.exp(), C, before)
        return y.flatten(1, 2)[:, :length]
