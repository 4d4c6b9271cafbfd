"""Wrong implementations of next-embedding prediction and of the leak test."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def _next(o, s, shift=1, normalise=True, detach=True, wrap=False, sign=-1.0, flat=False, both=False):
    s = s.detach() if detach else s
    o = o.detach() if both else o
    said, target = (o, s.roll(-1, 1)) if wrap else (o[:, : o.shape[1] - shift], s[:, shift:])
    if flat:
        said, target = said.flatten(1)[:, None], target.flatten(1)[:, None]
    if normalise:
        said, target = F.normalize(said, dim=2), F.normalize(target, dim=2)
    return sign * (said * target).sum(2).mean()


NEXT = {
    "no shift": lambda o, s: _next(o, s, shift=0),
    "two ahead": lambda o, s: _next(o, s, shift=2),
    "previous embedding": lambda o, s: _next(o.flip(1), s.flip(1)),
    "not normalised": lambda o, s: _next(o, s, normalise=False),
    "targets not detached": lambda o, s: _next(o, s, detach=False),
    "outputs detached": lambda o, s: _next(o, s, both=True),
    "last place wraps to the first": lambda o, s: _next(o, s, wrap=True),
    "sign forgotten": lambda o, s: _next(o, s, sign=1.0),
    "one cosine an image": lambda o, s: _next(o, s, flat=True),
    "squared error": lambda o, s: (o[:, :-1] - s.detach()[:, 1:]).square().mean(),
    "no return": lambda o, s: None,
}


def _influence(network, sequence, transposed=False, in_place=False, keep=False, channel=None, image=None, later=False):
    before, columns = network(sequence).clone(), []
    changed = sequence if in_place else sequence.clone()
    for j in range(sequence.shape[1]):
        changed = changed if in_place or keep else sequence.clone()
        changed[:, j] = changed[:, j] + 7
        move = (network(changed) - before).abs()
        move = move[..., channel : channel + 1] if channel is not None else move
        move = (move[image : image + 1] if image is not None else move).amax((0, 2))
        columns.append(torch.where(torch.arange(len(move)) >= j, move, 0) if later else move)
    return torch.stack(columns, 0 if transposed else 1)


INFLUENCE = {
    "transposed": lambda f, x: _influence(f, x, transposed=True),
    "sequence overwritten": lambda f, x: _influence(f, x, in_place=True),
    "changes pile up": lambda f, x: _influence(f, x, keep=True),
    "first channel only": lambda f, x: _influence(f, x, channel=0),
    "first image only": lambda f, x: _influence(f, x, image=0),
    "later outputs only": lambda f, x: _influence(f, x, later=True),
    "one number a token": lambda f, x: _influence(f, x).amax(1),
}
