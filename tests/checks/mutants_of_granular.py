"""Wrong versions of the exercises on Mugs; every one must fail its check."""

from __future__ import annotations

import torch

from tests.checks.mutants import _info_nce


def _push(rows, cursor, new, jump=1, wrap=True, flip=False):
    places = cursor + torch.arange(len(new))
    places = places % len(rows) if wrap else places.clamp(max=len(rows) - 1)
    rows[places] = new.flip(0) if flip else new
    return rows, (cursor + jump * len(new)) % len(rows)


PUSH = {
    "cursor moves twice": lambda *a: _push(*a, jump=2),
    "cursor stays": lambda *a: _push(*a, jump=0),
    "piles up at the end": lambda *a: _push(*a, wrap=False),
    "batch reversed": lambda *a: _push(*a, flip=True),
    "starts over at the end": lambda rows, cursor, new: _push(rows, cursor * (cursor + len(new) <= len(rows)), new),
}


def _granular(queries, keys, negatives, temperature, pooled=False, own=False, large=True, norm=True):
    costs = {True: [], False: []}
    for t in range(len(keys)):
        for v in range(len(queries)):
            if v != t or own:
                cost = _info_nce(queries[v], keys[t], negatives, temperature, normalise=norm)
                costs[v < len(keys)].append(cost)
    if pooled:
        return torch.stack(costs[True] + costs[False]).mean()
    kinds = [torch.stack(costs[kind]).mean() for kind in ((True, False) if large else (False,)) if costs[kind]]
    return torch.stack(kinds).mean()


GRANULAR = {
    "one mean over all pairs": lambda *a: _granular(*a, pooled=True),
    "same number compared": lambda *a: _granular(*a, own=True),
    "rows not normalised": lambda *a: _granular(*a, norm=False),
    "temperature ignored": lambda q, k, n, t: _granular(q, k, n, 0.5),
    "usual temperature whatever is asked": lambda q, k, n, t: _granular(q, k, n, 0.2),
    "only the first key": lambda q, k, n, t: torch.stack([_info_nce(x, k[0], n, t) for x in q[1:]]).mean(),
    "small crops divided by zero": lambda q, k, n, t: _granular(q, k, n, t) + 0 * q[len(k) :].mean(),
}
