"""Wrong rank correlations and permutation p-values."""

from __future__ import annotations

import itertools

import torch

from sslcore.bench import ranks, spearman


def _correlation(a, b):
    a, b = a - a.mean(), b - b.mean()
    return a @ b / (a.norm() * b.norm())


def _first_come(x):
    return x.argsort().argsort().double()


SPEARMAN = {
    "values, not ranks": _correlation,
    "argsort once": lambda x, y: _correlation(x.argsort().double(), y.argsort().double()),
    "ties in the order they come": lambda x, y: _correlation(_first_come(x), _first_come(y)),
    "ties share the lowest rank": lambda x, y: _correlation(*((v[:, None] > v).double().sum(1) for v in (x, y))),
    "absolute value": lambda x, y: spearman(x, y).abs(),
    "squared": lambda x, y: spearman(x, y) ** 2,
    "not centred": lambda x, y: ranks(x) @ ranks(y) / (ranks(x).norm() * ranks(y).norm()),
}


def _share(x, y, one_sided=False, strict=False, squeeze=False, values=False):
    def rho(b):
        return float(_correlation(x, b) if values else spearman(x, b))

    seen = rho(y)
    found = [rho(y[list(order)]) for order in itertools.permutations(range(len(x)))]
    if one_sided:
        hits = [value >= seen - 1e-9 for value in found]
    elif strict:
        hits = [abs(value) > abs(seen) + 1e-9 for value in found]
    else:
        hits = [abs(value) >= abs(seen) - 1e-9 for value in found]
    return torch.tensor(hits[1:] if squeeze else hits).double().mean()


PERMUTATION = {
    "one side only": lambda x, y: _share(x, y, one_sided=True),
    "ties not counted": lambda x, y: _share(x, y, strict=True),
    "the order seen left out": lambda x, y: _share(x, y, squeeze=True),
    "values, not ranks": lambda x, y: _share(x, y, values=True),
    "the correlation itself": spearman,
}
