"""Wrong implementations of the scans and of the cluster mask."""

from __future__ import annotations

import torch


def _scan(x, delta, A, B, C, exp=torch.exp, late=False, early=False, plain=False, swap=False, one=False, final=False):
    B, C = (C, B) if swap else (B, C)
    h, y = x.new_zeros(x.shape[0], *A.shape), []
    A = A.mean(0, keepdim=True).expand_as(A) if one else A
    for t in range(x.shape[1]):
        step = delta[:, t - 1 if late else t]
        before, written = h, (x if plain else delta * x)[:, t, :, None] * B[:, t, None]
        h = exp(step[..., None] * A) * h + written
        y.append(((before if early else h) * C[:, t, None]).sum(-1))
    return torch.stack([y[-1]] * len(y) if final else y, 1)


SELECTIVE = {
    "input not scaled by delta": lambda *t: _scan(*t, plain=True),
    "decay of the token before": lambda *t: _scan(*t, late=True),
    "read before writing": lambda *t: _scan(*t, early=True),
    "B and C swapped": lambda *t: _scan(*t, swap=True),
    "one decay for all channels": lambda *t: _scan(*t, one=True),
    "no exponential": lambda *t: _scan(*t, exp=lambda v: 1 + v),
    "last state everywhere": lambda *t: _scan(*t, final=True),
    "A with the wrong sign": lambda x, delta, A, B, C: _scan(x, delta, A.abs(), B, C),
    "from the end": lambda x, d, A, B, C: _scan(x.flip(1), d.flip(1), A, B.flip(1), C.flip(1)).flip(1),
    "no return": lambda *t: None,
}


def _sweep(a, b, grow=True, double=True, new_a=False, stop=False, loop=False, in_place=False):
    if loop:
        h, out = torch.zeros_like(b[:, 0]), []
        for t in range(a.shape[1]):
            h = a[:, t] * h + b[:, t]
            out.append(h)
        return torch.stack(out, 1)
    span, target, whole = 1, b, a
    while span < (a.shape[1] // 2 if stop else a.shape[1]):
        grown = torch.cat([a[:, :span], a[:, span:] * a[:, :-span]], 1)
        factor = grown if new_a else a
        b = torch.cat([b[:, :span], b[:, span:] + factor[:, span:] * b[:, :-span]], 1)
        a = grown if grow else a
        span = 2 * span if double else span + 1
    if in_place:
        target.copy_(b), whole.copy_(a)
    return b


LINEAR = {
    "a never grows": lambda a, b: _sweep(a, b, grow=False),
    "span grows by one": lambda a, b: _sweep(a, b, double=False),
    "new a in the sweep of b": lambda a, b: _sweep(a, b, new_a=True),
    "one sweep too few": lambda a, b: _sweep(a, b, stop=True),
    "step by step": lambda a, b: _sweep(a, b, loop=True),
    "written in place": lambda a, b: _sweep(a, b, in_place=True),
    "cumulative sum": lambda a, b: b.cumsum(1),
    "no return": lambda a, b: None,
}


def _mask(clusters, size, compare=torch.ge):
    place = torch.arange(clusters * size) // size
    return compare(place[:, None], place)


MASK = {
    "patch by patch": lambda n, size: torch.ones(n * size, n * size).bool().tril(),
    "one cluster too few": lambda n, size: _mask(n, size, torch.gt),
    "own cluster only": lambda n, size: _mask(n, size, torch.eq),
    "transposed": lambda n, size: _mask(n, size).T,
    "everything open": lambda n, size: _mask(n, size) | True,
    "True means hidden": lambda n, size: ~_mask(n, size),
    "numbers instead of bool": lambda n, size: _mask(n, size).float(),
    "clusters interleaved": lambda n, size: (torch.arange(n * size)[:, None] % n >= torch.arange(n * size) % n),
}
