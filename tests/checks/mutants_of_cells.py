"""Planted mistakes in batch norm of visible cells and in the loss at hidden ones."""

from __future__ import annotations

import torch.nn.functional as F


def _norm(
    x,
    hidden,
    over=(0, 2, 3),
    mean_of_all=False,
    var_of_all=False,
    hide=True,
    unbiased=0,
    eps=1e-5,
    before=False,
    in_place=False,
):
    seen = (~hidden).to(x.dtype)
    if in_place:
        x.mul_(seen)
    if before:
        return F.batch_norm(x * seen, None, None, training=True)
    count = seen.sum(over, keepdim=True).clamp(min=2)
    mean = x.mean(over, keepdim=True) if mean_of_all else (x * seen).sum(over, keepdim=True) / count
    gap = (x - mean).square()
    var = gap.mean(over, keepdim=True) if var_of_all else (gap * seen).sum(over, keepdim=True) / (count - unbiased)
    out = (x - mean) / (var + eps).sqrt()
    return out * seen if hide else out


NORM = {
    "hidden cells not zeroed": lambda x, h: _norm(x, h, hide=False),
    "mean over all cells": lambda x, h: _norm(x, h, mean_of_all=True),
    "variance over all cells": lambda x, h: _norm(x, h, var_of_all=True),
    "zeros join the statistics": lambda x, h: _norm(x, h, before=True),
    "zeros join the statistics, then hidden": lambda x, h: _norm(x, h, before=True) * ~h,
    "image by image": lambda x, h: _norm(x, h, over=(2, 3)),
    "one mean for all channels": lambda x, h: _norm(x, h, over=(0, 1, 2, 3)),
    "mask inverted": lambda x, h: _norm(x, ~h),
    "no epsilon": lambda x, h: _norm(x, h, eps=0.0),
    "unbiased variance": lambda x, h: _norm(x, h, unbiased=1),
    "written in place": lambda x, h: _norm(x, h, in_place=True),
    "no return": lambda x, h: None,
}


def _latent(p, t, m, detach=True, both=False, unit=(True, True), visible=False, half=1.0, how="all", dim=2):
    t = t.detach() if detach else t
    p = p.detach() + 0 * p if both else p
    p = F.normalize(p, dim=dim) if unit[0] else p
    t = F.normalize(t, dim=dim) if unit[1] else t
    cost, m = half * (p - t).square().sum(2) / 2, ~m if visible else m
    if how == "mean":
        return (cost * m).mean()
    if how == "image":
        return ((cost * m).sum(1) / m.sum(1)).mean()
    return cost.mean() if how == "everywhere" else (cost * m).sum() / m.sum()


LATENT = {
    "target not detached": lambda *a: _latent(*a, detach=False),
    "prediction detached": lambda *a: _latent(*a, both=True),
    "lengths kept": lambda *a: _latent(*a, unit=(False, False)),
    "length of the target kept": lambda *a: _latent(*a, unit=(True, False)),
    "visible cells scored": lambda *a: _latent(*a, visible=True),
    "all cells scored": lambda *a: _latent(*a, how="everywhere"),
    "divided by all cells": lambda *a: _latent(*a, how="mean"),
    "image by image": lambda *a: _latent(*a, how="image"),
    "mean over channels": lambda p, t, m: _latent(p, t, m, half=1 / p.shape[2]),
    "not halved": lambda *a: _latent(*a, half=2.0),
    "normalised over cells": lambda *a: _latent(*a, dim=1),
    "no return": lambda p, t, m: None,
}
