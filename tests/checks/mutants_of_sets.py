"""Wrong k-means, hierarchical losses and filters: mistakes that their checks must find."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def _kmeans(x, start, num_iters, mean=True, fill=True, farthest_centroid=False, last=True):
    centroids = start
    for _ in range(num_iters + last):
        distances = torch.cdist(x, centroids).square()
        labels = distances.argmax(1) if farthest_centroid else distances.argmin(1)
        for empty in range(len(start)) if fill else ():
            if not (labels == empty).any():
                own = distances.gather(1, labels[:, None])[:, 0]
                alone = torch.bincount(labels, minlength=len(start))[labels] == 1
                labels[own.masked_fill(alone, -1).argmax()] = empty
        parts = [x[labels == label] for label in range(len(start))]
        if mean:
            means = [part.mean(0) if len(part) else old for part, old in zip(parts, centroids, strict=True)]
            centroids = torch.stack(means)
    return labels


def _renamed(x, start, num_iters):
    labels = _kmeans(x, start, num_iters)
    return labels.max() - labels


KMEANS = {
    "empty clusters stay empty": lambda x, s, n: _kmeans(x, s, n, fill=False),
    "centroids never move": lambda x, s, n: _kmeans(x, s, n, mean=False),
    "the farthest centroid": lambda x, s, n: _kmeans(x, s, n, farthest_centroid=True),
    "labels of the update before": lambda x, s, n: _kmeans(x, s, n, last=False),
    "names reversed": _renamed,
    "one label": lambda x, s, n: torch.zeros(len(x), dtype=torch.long),
    "centroids returned": lambda x, s, n: s,
}


def _hierarchical(v, w, s, z, first=1.0, second=1.0, own=True, joint=False):
    rows = torch.arange(len(v))
    if joint:
        return first * F.cross_entropy(v, s) + F.cross_entropy(w.flatten(1), s * w.shape[2] + z)
    head = w[rows, s] if own else w.mean(1)
    return first * F.cross_entropy(v, s) + second * F.cross_entropy(head, z)


HIERARCHICAL = {
    "no super-class": lambda *a: _hierarchical(*a, first=0.0),
    "no sub-class": lambda *a: _hierarchical(*a, second=0.0),
    "terms averaged": lambda *a: _hierarchical(*a) / 2,
    "sum over the batch": lambda *a: _hierarchical(*a) * len(a[0]),
    "heads averaged": lambda *a: _hierarchical(*a, own=False),
    "softmax over all heads": lambda *a: _hierarchical(*a, joint=True),
    "head of the wrong super-class": lambda v, w, s, z: _hierarchical(v, w.roll(1, 1), s, z),
    "no return": lambda *a: None,
}


def _sieve(scores, thresholds, every=True, keep=torch.lt, by_place=False):
    limits = list(thresholds.values()) if by_place else [thresholds[name] for name in scores]
    rows = [keep(values, limit) for values, limit in zip(scores.values(), limits, strict=True)]
    return torch.stack(rows).all(0) if every else torch.stack(rows).any(0)


SIEVE = {
    "one stage is enough": lambda s, t: _sieve(s, t, every=False),
    "keeps the hits": lambda s, t: _sieve(s, t, keep=torch.ge),
    "keeps what equals the threshold": lambda s, t: _sieve(s, t, keep=torch.le),
    "thresholds by place": lambda s, t: _sieve(s, t, by_place=True),
    "first stage only": lambda s, t: next(iter(s.values())) < t[next(iter(s))],
    "drop instead of keep": lambda s, t: ~_sieve(s, t),
}


def _share(prevalence, recalls, alarms, of_all=False, best=False, no_alarms=False):
    missed = prevalence * (min(1 - r for r in recalls) if best else math.prod(1 - r for r in recalls))
    clean = (1 - prevalence) * (1 if no_alarms else math.prod(1 - a for a in alarms))
    return missed if of_all else missed / (missed + clean)


RESIDUAL = {
    "share of the whole set": lambda *a: _share(*a, of_all=True),
    "best detector only": lambda *a: _share(*a, best=True),
    "false alarms forgotten": lambda *a: _share(*a, no_alarms=True),
    "recall instead of its miss": lambda p, r, a: _share(p, [1 - x for x in r], a),
}
