"""Wrong versions of the exercises on MaskFeat; every one must fail its check."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def _hog(images, cell, swap=False, signed=False, count=False, eps=1e-12, scope="cell", pad="reflect", columns=False):
    kernel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    flat = F.pad(images, (1, 1, 1, 1), mode=pad).flatten(0, 1)[:, None]
    gx, gy = F.conv2d(flat, torch.stack([kernel, kernel.T])[:, None]).unbind(1)
    angle = torch.atan2(gy, gx) if swap else torch.atan2(gx, gy)
    bins = (angle / math.pi * (4.5 if signed else 9)).floor().long() % 9
    length = (gx.square() + gy.square()).sqrt()
    votes = F.one_hot(bins, 9) * (torch.ones_like(length) if count else length)[..., None]
    pooled = F.avg_pool2d(votes.permute(0, 3, 1, 2), cell) * cell**2
    if scope == "cell":
        pooled = pooled / pooled.norm(dim=1, keepdim=True).clamp_min(eps)
    if scope == "image":
        pooled = pooled / pooled.square().sum((1, 2, 3), keepdim=True).sqrt()
    pooled = pooled.mT if columns else pooled
    return pooled.flatten(2).unflatten(0, images.shape[:2]).permute(0, 3, 1, 2).flatten(2)


HOG = {
    "angle of the other axis": lambda *a: _hog(*a, swap=True),
    "signed directions": lambda *a: _hog(*a, signed=True),
    "pixels counted, not weighed": lambda *a: _hog(*a, count=True),
    "zero over zero": lambda *a: _hog(*a, eps=0.0),
    "not normalised": lambda *a: _hog(*a, scope="none"),
    "image normalised": lambda *a: _hog(*a, scope="image"),
    "zeros beyond the border": lambda *a: _hog(*a, pad="constant"),
    "cells column by column": lambda *a: _hog(*a, columns=True),
}


def _features(pred, target, mask, where=None, rows=False, total=False, share=False):
    errors = (pred - target).square()
    errors = errors.sum(2) if total else errors.mean(2)
    mask = mask if where is None else where(mask)
    if rows:
        return ((errors * mask).sum(1) / mask.sum(1)).mean()
    return (errors * mask).mean() if share else errors[mask].mean()


FEATURES = {
    "visible patches scored": lambda *a: _features(*a, where=lambda mask: ~mask),
    "all patches scored": lambda *a: _features(*a, where=torch.ones_like),
    "image by image": lambda *a: _features(*a, rows=True),
    "sum over features": lambda *a: _features(*a, total=True),
    "divided by all patches": lambda *a: _features(*a, share=True),
}
