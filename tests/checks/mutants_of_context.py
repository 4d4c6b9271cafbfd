"""Wrong versions of the exercises on data2vec 2.0; every one must fail its check."""

from __future__ import annotations

import torch
import torch.nn.functional as F


@torch.no_grad()
def _targets(layers, over=1, before=True, norm=True, scale=True, last=True, axis=2):
    def standard(layer):
        centred = layer - layer.mean(over, keepdim=True)
        return centred / (centred.square().mean(over, keepdim=True) + 1e-5).sqrt() if scale else centred

    if norm and before:
        layers = [standard(layer) for layer in layers]
    mean = torch.stack(list(layers)).mean(0)
    mean = standard(mean) if norm and not before else mean
    if not last:
        return mean
    mean = mean - mean.mean(axis, keepdim=True)
    return mean / (mean.square().mean(axis, keepdim=True) + 1e-5).sqrt()


def _in_place(layers):
    for layer in layers:
        with torch.no_grad():
            layer -= layer.mean(1, keepdim=True)
    return _targets(layers)


TARGETS = {
    "no instance norm": lambda x: _targets(x, norm=False),
    "instance norm after the mean": lambda x: _targets(x, before=False),
    "normed over images": lambda x: _targets(x, over=0),
    "normed over images and patches": lambda x: _targets(x, over=(0, 1)),
    "layer norm twice": lambda x: _targets(x, over=2),
    "centred, not scaled": lambda x: _targets(x, scale=False),
    "no last norm": lambda x: _targets(x, last=False),
    "last norm over patches": lambda x: _targets(x, axis=1),
    "only the last layer": lambda x: _targets(x[-1:]),
    "changed in place": _in_place,
    "gradient kept": lambda x: F.layer_norm(torch.stack([F.instance_norm(a.mT).mT for a in x]).mean(0), x[0].shape[2:]),
}


def _loss(pred, target, mask, detach=True, where=None, power=0.5, rows=False, share=False, repeat=False, root=False):
    target = target.detach() if detach else target
    if repeat:  # copies and images mixed up
        goal = target.repeat(pred.shape[1], 1, 1).view(pred.shape)
    else:
        goal = target[:, None].expand_as(pred)
    cost = (pred - goal).square().sum(3) / pred.shape[3] ** power
    cost = cost.sqrt() if root else cost
    mask = mask if where is None else where(mask)
    if rows:
        return ((cost * mask).sum(2) / mask.sum(2).clamp(min=1)).mean()
    return (cost * mask).mean() if share else cost[mask].mean()


LOSS = {
    "copies and images mixed up": lambda *a: _loss(*a, repeat=True),
    "visible patches scored": lambda *a: _loss(*a, where=lambda mask: ~mask),
    "all patches scored": lambda *a: _loss(*a, where=torch.ones_like),
    "mean over channels": lambda *a: _loss(*a, power=1.0),
    "sum over channels": lambda *a: _loss(*a, power=0.0),
    "copy by copy": lambda *a: _loss(*a, rows=True),
    "divided by all patches": lambda *a: _loss(*a, share=True),
    "distance, not its square": lambda *a: _loss(*a, root=True),
    "gradient to the target": lambda *a: _loss(*a, detach=False),
}


def _inverse(batch, grid, ratio, adjust, block, blocks=True, fill=True, invert=True, same=False, inner=False, tall=0):
    height, width = grid
    kept = int(height * width * (1 - ratio) + 1e-9)
    seen = torch.zeros(batch, height, width, dtype=torch.bool)
    draws = 1 if same else batch
    for b in range(draws):
        for _ in range(int(height * width * (1 - ratio + adjust) / block**2 + 1e-9) if blocks else 0):
            edge = block // 2 if inner else 0
            row = int(torch.randint(edge, height - edge, ()))
            column = int(torch.randint(edge, width - edge, ()))
            top, left = row - block // 2, column - block // 2
            seen[b, max(0, top) : top + block + tall, max(0, left) : max(0, left + block - tall)] = True
        flat = seen[b].view(-1)
        while fill and flat.sum() != kept:
            more = bool(flat.sum() < kept)
            places = (flat != more).nonzero().flatten()
            flat[places[torch.randint(len(places), ())]] = more
    seen = seen[:1].expand(batch, -1, -1) if same else seen
    return ~seen.flatten(1) if invert else seen.flatten(1)


INVERSE = {
    "scattered patches": lambda *a: _inverse(*a, blocks=False),
    "count left to chance": lambda *a: _inverse(*a, fill=False),
    "blocks hidden": lambda *a: _inverse(*a, invert=False),
    "one mask for all": lambda *a: _inverse(*a, same=True),
    "centres away from the border": lambda *a: _inverse(*a, inner=True),
    "upright blocks": lambda *a: _inverse(*a, tall=2),
}
