"""Wrong versions of the exercises on pair graphs and triplets; every one must fail its check."""

from __future__ import annotations

import torch

from tests.checks.mutants import unit


def _closure(links, tracks, chain=False, mixed=True, moved=True, kept=True, loops=False, both=True, ways=1):
    partner = dict(tracks.tolist())
    if both:
        partner |= {b: a for a, b in tracks.tolist()}
    links = {tuple(pair) for pair in links.tolist()}
    if chain:
        links |= {(a, d) for a, b in links for c, d in links if b == c}
    pairs = {tuple(pair) for pair in tracks.tolist()} if kept else set()
    for a, b in links:
        ends_a, ends_b = {a, partner.get(a, a)}, {b, partner.get(b, b)}
        for x in ends_a:
            for y in ends_b:
                steps = (x != a) + (y != b)
                if (steps != 1 or mixed) and (steps != 2 or moved):
                    pairs.add((x, y))
    pairs = {(min(pair), max(pair)) for pair in pairs} if ways == 1 else pairs
    return {pair for pair in pairs if loops or pair[0] != pair[1]}


CLOSURE = {
    "links are chained": lambda a, b: _closure(a, b, chain=True),
    "one moved end forgotten": lambda a, b: _closure(a, b, mixed=False),
    "both ends never move": lambda a, b: _closure(a, b, moved=False),
    "tracks are left out": lambda a, b: _closure(a, b, kept=False),
    "a node paired with itself": lambda a, b: _closure(a, b, loops=True),
    "tracks walked one way only": lambda a, b: _closure(a, b, both=False),
    "direction kept": lambda a, b: _closure(a, b, ways=2),
}


def _triplet(
    first, second, labels, margin, num, norm=True, active=False, ends=2, shield=True, seen=2, cut=True, mine=True
):
    u, v = (unit(first), unit(second)) if norm else (first, second)
    candidates = torch.cat([u, v][:seen])
    allowed = labels[:, None] != labels.repeat(seen)
    allowed = allowed if shield else torch.ones_like(allowed)
    pull = margin - (u * v).sum(1, keepdim=True)
    hinges = pull + u @ candidates.T
    allowed = allowed & (hinges > 0) if cut and mine else allowed
    total = torch.where(allowed, hinges.relu() if cut else hinges, 0).sum()
    if ends == 2:
        other = pull + v @ candidates.T
        total = total + torch.where(allowed, other.relu() if cut else other, 0).sum()
    return total / ((2 * allowed.sum()).clamp_min(1) if active else 2 * num * len(u))


TRIPLET = {
    "rows not normalised": lambda *a: _triplet(*a, norm=False),
    "divided by the active terms": lambda *a: _triplet(*a, active=True),
    "one anchor a negative": lambda *a: _triplet(*a, ends=1),
    "equal labels pushed apart": lambda *a: _triplet(*a, shield=False),
    "only first ends as negatives": lambda *a: _triplet(*a, seen=1),
    "not cut at zero": lambda *a: _triplet(*a, cut=False),
    "negatives that are not active at first": lambda *a: _triplet(*a, mine=False),
    "margin ignored": lambda a, b, labels, m, n: _triplet(a, b, labels, 0.5, n),
    "second detached": lambda a, b, labels, m, n: _triplet(a, b.detach(), labels, m, n),
}
