"""Wrong implementations of masked patch selection and of the ratio of spreads."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from scipy.stats import t as student


def _ask(pooled, places, embedded, hidden, plus=True, peek=False, shared=False, ordered=False, batch=False):
    hidden = hidden.sort(1).values if ordered else hidden[:1].expand_as(hidden) if shared else hidden
    keys = torch.take_along_dim(embedded, hidden[..., None], 1)
    keys = keys.roll(1, 0) if batch else keys
    queries = pooled[:, None] + places[hidden] if plus else pooled[:, None] * places[hidden]
    return (queries + keys if peek else queries), keys


ASK = {
    "place multiplied": lambda *a: _ask(*a, plus=False),
    "answer added to the question": lambda *a: _ask(*a, peek=True),
    "one set of places for the batch": lambda *a: _ask(*a, shared=True),
    "hidden sorted": lambda *a: _ask(*a, ordered=True),
    "keys of another image": lambda *a: _ask(*a, batch=True),
    "no place": lambda u, p, h, t: (u[:, None].expand(-1, t.shape[1], -1), _ask(u, p, h, t)[1]),
    "first T places": lambda u, p, h, t: (u[:, None] + p[: t.shape[1]], _ask(u, p, h, t)[1]),
    "keys alone": lambda u, p, h, t: _ask(u, p, h, t)[1],
}


def _select(q, k, twice=False, cosine=False, over=2, total=False, pooled=False, shift=0):
    if cosine:
        q, k = F.normalize(q, dim=2), F.normalize(k, dim=2)
    if pooled:
        q, k = q.flatten(0, 1)[None], k.flatten(0, 1)[None]
    scores = q @ k.mT
    logits = (scores.softmax(over) if twice else scores).log_softmax(over)
    losses = -logits.diagonal(shift, 1, 2)
    return losses.sum() if total else losses.mean()


SELECT = {
    "softmax twice": lambda q, k: _select(q, k, twice=True),
    "cosines": lambda q, k: _select(q, k, cosine=True),
    "softmax over questions": lambda q, k: _select(q, k, over=1),
    "summed": lambda q, k: _select(q, k, total=True),
    "candidates of the whole batch": lambda q, k: _select(q, k, pooled=True),
    "next candidate is right": lambda q, k: _select(q, k, shift=1),
    "no return": lambda q, k: None,
}


def _spread(a, b, degrees=2, paired=True, root=True, swap=False, unbiased_twice=False):
    a, b = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    n, f = len(a), float(a.var() / b.var())
    r2 = float(torch.corrcoef(torch.stack([a, b]))[0, 1]) ** 2 if paired else 0.0
    k = 1 + 2 * (1 - r2) * float(student.ppf(0.975, n - degrees)) ** 2 / (n - degrees)
    ends = [f * (k - math.sqrt(k * k - 1)), f * (k + math.sqrt(k * k - 1))]
    values = [f, *(ends[::-1] if swap else ends)]
    return tuple(math.sqrt(v) for v in values) if root else tuple(values)


SPREAD = {
    "variances": lambda a, b: _spread(a, b, root=False),
    "n - 1 degrees": lambda a, b: _spread(a, b, degrees=1),
    "not paired": lambda a, b: _spread(a, b, paired=False),
    "ends swapped": lambda a, b: _spread(a, b, swap=True),
    "plus and minus a tenth": lambda a, b: (_spread(a, b)[0], _spread(a, b)[0] - 0.1, _spread(a, b)[0] + 0.1),
    "ratio alone": lambda a, b: _spread(a, b)[0],
}
