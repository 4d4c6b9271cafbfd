"""Wrong implementations of reversed attention, of pruning by received mass, and of attachment."""

from __future__ import annotations

import torch


def _sent(a, s, m, transpose=True, of_receiver=False, heads=True, gate=True, normal=False, mean=False, swap=False):
    share = s if heads else torch.ones_like(s)
    share = share * m[..., None] if gate else share
    share = share.transpose(1, 2)
    share = share[:, :, None, :] if of_receiver else share[..., None]
    sent = a * share
    sent = sent.transpose(2, 3) if transpose else sent
    sent = sent.flip(1) if swap else sent
    if normal:
        sent = sent / sent.sum(3, keepdim=True)
    return sent / a.shape[1] if mean else sent


REVERSED = {
    "not reversed": lambda a, s, m: _sent(a, s, m, transpose=False),
    "selector and message of the receiver": lambda a, s, m: _sent(a, s, m, of_receiver=True),
    "no selector": lambda a, s, m: _sent(a, s, m, heads=False),
    "no message": lambda a, s, m: _sent(a, s, m, gate=False),
    "normalised at the receiver": lambda a, s, m: _sent(a, s, m, normal=True),
    "divided by heads": lambda a, s, m: _sent(a, s, m, mean=True),
    "heads mixed up": lambda a, s, m: _sent(a, s, m, swap=True),
    "summed over heads": lambda a, s, m: _sent(a, s, m).sum(1),
    "no return": lambda a, s, m: None,
}


def _keep(d, count, axis=2, largest=True, sort=True, own=False):
    score = d.diagonal(dim1=1, dim2=2) if own else d.sum(axis)
    kept = score.topk(count, dim=1, largest=largest).indices
    return kept.sort(1).values if sort else kept


KEEP = {
    "sent mass": lambda d, n: _keep(d, n, axis=1),
    "least": lambda d, n: _keep(d, n, largest=False),
    "not sorted": lambda d, n: _keep(d, n, sort=False),
    "what a token keeps": lambda d, n: _keep(d, n, own=True),
    "the first": lambda d, n: torch.arange(n).expand(len(d), -1),
    "one choice for all images": lambda d, n: _keep(d.mean(0, keepdim=True), n).expand(len(d), -1),
}


def _attach(p, y, grid, roots=False, ground=False, mean_by_image=False, self_too=False, away=True, border=True):
    places = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).float()
    lengths = torch.cdist(places, places)
    lengths = lengths.round(decimals=3)
    scored = (p >= 0) | roots
    scored = scored if ground else scored & (y > 0)
    image, child = scored.nonzero(as_tuple=True)
    parent = p[image, child]
    same = (y[image] == y[image, child][:, None]).double()
    hit = same.gather(1, parent.clamp_min(0)[:, None])[:, 0]
    rows = lengths[child]
    edges = rows.gather(1, parent.clamp_min(0)[:, None])[:, 0]
    top = weight = 0.0
    for length in edges.unique():
        ring = (rows == length).double()
        share = (edges == length).double().mean() if away else 1.0
        there = (ring.sum(1) > 0).double() if border else torch.ones(len(ring)).double()
        top = top + share * (ring * same).sum(1) / ring.sum(1).clamp_min(1)
        weight = weight + share * there
    matched = (top / weight).mean()
    if mean_by_image:
        hit = torch.stack([hit[image == b].mean() for b in image.unique()])
    if self_too:
        matched = same.mean()
    return float(hit.mean()), float(matched)


ATTACH = {
    "roots scored": lambda p, y, g: _attach(p, y, g, roots=True),
    "background scored": lambda p, y, g: _attach(p, y, g, ground=True),
    "mean of images": lambda p, y, g: _attach(p, y, g, mean_by_image=True),
    "any token as base rate": lambda p, y, g: _attach(p, y, g, self_too=True),
    "distances weighed alike": lambda p, y, g: _attach(p, y, g, away=False),
    "border counted as wrong": lambda p, y, g: _attach(p, y, g, border=False),
    "one number": lambda p, y, g: _attach(p, y, g)[0],
    "the accuracy twice": lambda p, y, g: (_attach(p, y, g)[0],) * 2,
}
