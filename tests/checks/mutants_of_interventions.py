"""Wrong correlations and edits: mistakes that their checks must find."""

from __future__ import annotations

import torch


def _correlation(x, y, cell, left=True, right=True, centre=True, norms=True):
    def within(v):
        means = torch.zeros(int(cell.max()) + 1).index_add_(0, cell, v) / torch.bincount(cell)
        return v - means[cell]

    x, y = within(x) if left else x - x.mean(), within(y) if right else y - y.mean()
    return x @ y / (x.norm() * y.norm()) if norms else (x * y).mean()


CORRELATION = {
    "place left in both": lambda x, y, c: _correlation(x, y, c, left=False, right=False),
    "place left in x": lambda x, y, c: _correlation(x, y, c, left=False),
    "covariance": lambda x, y, c: _correlation(x, y, c, norms=False),
    "a straight line in the cell's number": lambda x, y, c: _correlation(
        x - c * ((c - c.float().mean()) @ x) / (c - c.float().mean()).square().sum(), y, c, left=False, right=False
    ),
    "sign lost": lambda x, y, c: _correlation(x, y, c).abs(),
    "squared": lambda x, y, c: _correlation(x, y, c).square(),
}


def _shuffle(tokens, basis, alpha, order, whole=False, blend=True, own_image=True):
    index = order[..., None] if own_image else order[:1, :, None].expand(len(tokens), -1, 1)
    moved = tokens.gather(1, index.expand_as(tokens)) - tokens
    change = moved if whole else moved @ basis @ basis.T
    return tokens + (alpha if blend else 1.0) * change


EDIT = {
    "whole tokens moved": lambda t, b, a, o: _shuffle(t, b, a, o, whole=True),
    "alpha ignored": lambda t, b, a, o: _shuffle(t, b, a, o, blend=False),
    "one order for all images": lambda t, b, a, o: _shuffle(t, b, a, o, own_image=False),
    "the inverse order": lambda t, b, a, o: _shuffle(t, b, a, o.argsort(1)),
    "the part is removed": lambda t, b, a, o: t - a * t @ b @ b.T,
    "the rest is moved": lambda t, b, a, o: t + a * ((_shuffle(t, b, 1.0, o, whole=True) - t)
                                                     - (_shuffle(t, b, 1.0, o) - t)),
    "alpha squared": lambda t, b, a, o: _shuffle(t, b, a * a, o),
}
