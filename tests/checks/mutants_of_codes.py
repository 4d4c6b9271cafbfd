"""Wrong versions of the exercises on BEiT; every one must fail its check."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def _codes(logits, codes, mask, visible=False, everything=False, per_image=False, axis=2, base=1.0, smooth=0.0):
    log_p = logits.log_softmax(axis)
    cost = -log_p.gather(2, codes[..., None])[..., 0] / base
    cost = (1 - smooth) * cost - smooth * log_p.mean(2)
    mask = ~mask if visible else torch.ones_like(mask) if everything else mask
    if per_image:
        return ((cost * mask).sum(1) / mask.sum(1)).mean()
    return (cost * mask).sum() / mask.sum()


CODES = {
    "visible patches scored": lambda x, k, m: _codes(x, k, m, visible=True),
    "all patches scored": lambda x, k, m: _codes(x, k, m, everything=True),
    "mean of image means": lambda x, k, m: _codes(x, k, m, per_image=True),
    "softmax over patches": lambda x, k, m: _codes(x, k, m, axis=1),
    "bits instead of nats": lambda x, k, m: _codes(x, k, m, base=0.6931),
    "label smoothing": lambda x, k, m: _codes(x, k, m, smooth=0.1),
    "divided by all patches": lambda x, k, m: _codes(x, k, m) * m.float().mean(),
    "squared error of one-hot": lambda x, k, m: (
        (x.softmax(2) - F.one_hot(k, x.shape[2])).square().sum(2) * m
    ).sum() / m.sum(),
    "not the logarithm": lambda x, k, m: (
        (1 - x.softmax(2).gather(2, k[..., None])[..., 0]) * m
    ).sum() / m.sum(),
    "mask multiplied into the scores": lambda x, k, m: _codes(x * m[..., None], k, m, everything=True),
    "no return": lambda x, k, m: None,
}  # fmt: skip


def _gumbel(logits, uniform, temperature, noise=None, outside=False, axis=-1, hard=False, multiply=False, still=False):
    noise = -(-uniform.log()).log() if noise is None else noise(uniform)
    logits = logits.detach() if still else logits
    scores = logits + noise
    if outside:
        scores = logits / temperature + noise
    elif multiply:
        scores = scores * temperature
    else:
        scores = scores / temperature
    soft = scores.softmax(axis)
    return F.one_hot(soft.argmax(-1), soft.shape[-1]).float() if hard else soft


GUMBEL = {
    "no noise": lambda x, u, t: _gumbel(x, u, t, noise=torch.zeros_like),
    "one logarithm": lambda x, u, t: _gumbel(x, u, t, noise=lambda v: -v.log()),
    "sign of the noise": lambda x, u, t: _gumbel(x, u, t, noise=lambda v: (-v.log()).log()),
    "uniform noise": lambda x, u, t: _gumbel(x, u, t, noise=lambda v: v),
    "normal noise": lambda x, u, t: _gumbel(x, u, t, noise=torch.special.ndtri),
    "temperature of the logits alone": lambda x, u, t: _gumbel(x, u, t, outside=True),
    "temperature multiplies": lambda x, u, t: _gumbel(x, u, t, multiply=True),
    "softmax over patches": lambda x, u, t: _gumbel(x, u, t, axis=0),
    "one-hot without gradient": lambda x, u, t: _gumbel(x, u, t, hard=True),
    "logits detached": lambda x, u, t: _gumbel(x, u, t, still=True),
    "no return": lambda x, u, t: None,
}
