"""Wrong implementations, each a mistake students make; every one must fail its check."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from sslcore import objectives
from sslcore.probes import knn_predict, rollout, token_labels
from sslcore.probes.same_object.pairs import match_pairs
from sslcore.views import random_mask


def unit(x):
    return F.normalize(x, dim=1)


def _simclr(z0, z1, temperature, normalise=True, own=False, half=False, scale=None):
    z0, z1 = (unit(z0), unit(z1)) if normalise else (z0, z1)
    rows = z0 if half else torch.cat([z0, z1])
    every = torch.cat([z0, z1])
    logits = rows @ every.T / (scale or temperature)
    if not own:
        logits = logits.masked_fill(torch.eye(len(rows), len(every), dtype=torch.bool), -torch.inf)
    partner = (torch.arange(len(rows)) + len(z0)) % len(every)
    return F.cross_entropy(logits, partner)


def _overflowing(z0, z1, temperature):
    z = torch.cat([unit(z0), unit(z1)])
    similarity = (z @ z.T / temperature).exp() * (1 - torch.eye(len(z)))
    partner = (torch.arange(len(z)) + len(z0)) % len(z)
    return -(similarity[torch.arange(len(z)), partner] / similarity.sum(1)).log().mean()


NT_XENT = {
    "rows not normalised": lambda a, b, t: _simclr(a, b, t, normalise=False),
    "itself among the candidates": lambda a, b, t: _simclr(a, b, t, own=True),
    "only the first view as anchor": lambda a, b, t: _simclr(a, b, t, half=True),
    "temperature ignored": lambda a, b, t: _simclr(a, b, t, scale=0.5),
    "temperature multiplied": lambda a, b, t: _simclr(a, b, t, scale=1 / t),
    "twice the mean": lambda a, b, t: 2 * _simclr(a, b, t),
    "one view detached": lambda a, b, t: _simclr(a, b.detach(), t),
    "wrong partner": lambda a, b, t: _simclr(a, b.roll(1, 0), t),
    "exp overflows": _overflowing,
    "no return": lambda a, b, t: None,
    "one loss a row": lambda a, b, t: torch.ones(len(a)),
}


def _info_nce(query, key, negatives=None, temperature=0.07, normalise=True, batch=False, shift=0):
    if normalise:
        query, key = unit(query), unit(key)
        negatives = None if negatives is None else unit(negatives)
    positive = (query * key).sum(1, keepdim=True)
    if negatives is None or batch:
        logits = query @ (key if negatives is None else torch.cat([key, negatives])).T
        return F.cross_entropy(logits / temperature, (torch.arange(len(query)) + shift) % len(query))
    logits = torch.cat([positive, query @ negatives.T], 1)
    return F.cross_entropy(logits / temperature, torch.zeros(len(query), dtype=torch.long))


INFO_NCE = {
    "rows not normalised": lambda q, k, **kw: _info_nce(q, k, **kw, normalise=False),
    "wrong key": lambda q, k, **kw: _info_nce(q, k, **kw, shift=1),
    "batch keys beside the queue": lambda q, k, **kw: _info_nce(q, k, **kw, batch=True),
    "temperature ignored": lambda q, k, negatives=None, temperature=0.2: _info_nce(q, k, negatives, 0.5),
    "queue ignored": lambda q, k, negatives=None, temperature=0.2: _info_nce(q, k, None, temperature),
}


def _barlow(z0, z1, lambd, standard=True, centre=True, square=True, within=False, shift=0, one=True):
    def prepare(z):
        z = z - z.mean(0) if centre else z
        return z / z.std(0, correction=0).clamp_min(1e-6) if standard else z

    a, b = prepare(z0), prepare(z0 if within else z1).roll(shift, 0)
    matrix = a.T @ b / len(a)
    diagonal = matrix.diagonal()
    off = matrix - torch.diag(diagonal)
    invariance = ((diagonal - 1) if one else (diagonal.abs() - 1)).square().sum()
    return invariance + lambd * (off.square() if square else off.abs() * 2).sum()


BARLOW = {
    "not standardised": lambda a, b, w: _barlow(a, b, w, standard=False),
    "not centred": lambda a, b, w: _barlow(a, b, w, centre=False),
    "absolute instead of square": lambda a, b, w: _barlow(a, b, w, square=False),
    "within one view": lambda a, b, w: _barlow(a, b, w, within=True),
    "diagonal pulled to any unit length": lambda a, b, w: _barlow(a, b, w, one=False),
    "lambd ignored": lambda a, b, w: _barlow(a, b, 0.1),
    "rows mispaired": lambda a, b, w: _barlow(a, b, w, shift=1),
    "not divided by N": lambda a, b, w: _barlow(a, b, w) * len(a),
}


def _vicreg(z0, z1, sim=25.0, std=25.0, cov=1.0, summed=False, cut=True, both=True, diagonal=False, mean=False):
    invariance = (z0 - z1).square().sum(1).mean() if summed else F.mse_loss(z0, z1)
    variance = covariance = 0.0
    for z in (z0, z1) if both else (z0, z0):
        gap = 1 - (z.var(0) + 1e-4).sqrt()
        variance = variance + (gap.relu() if cut else gap).mean() / 2
        matrix = (z - z.mean(0)).T @ (z - z.mean(0)) / (len(z) - 1)
        matrix = matrix if diagonal else matrix - torch.diag(matrix.diagonal())
        covariance = covariance + matrix.square().sum() / (matrix.numel() if mean else z.shape[1])
    return sim * invariance + std * variance + cov * covariance


VICREG = {
    "distance summed over dimensions": lambda a, b, **kw: _vicreg(a, b, **kw, summed=True),
    "no relu": lambda a, b, **kw: _vicreg(a, b, **kw, cut=False),
    "only the first view guarded": lambda a, b, **kw: _vicreg(a, b, **kw, both=False),
    "diagonal in the covariance": lambda a, b, **kw: _vicreg(a, b, **kw, diagonal=True),
    "covariance over D * D": lambda a, b, **kw: _vicreg(a, b, **kw, mean=True),
    "weights ignored": lambda a, b, sim=25, std=25, cov=1: _vicreg(a, b),
}

COSINE = {
    "sign": lambda p, z: (unit(p) * unit(z)).sum(1).mean(),
    "not normalised": lambda p, z: -(p * z).sum(1).mean(),
    "all pairs": lambda p, z: -(unit(p) @ unit(z).T).mean(),
    "summed": lambda p, z: -(unit(p) * unit(z)).sum(1).sum(),
    "norm detached": lambda p, z: -(p / p.norm(dim=1, keepdim=True).detach() * unit(z)).sum(1).mean(),
}


def _dino(student, teacher, center, student_temp, teacher_temp, same=False, flip=False, keep=False, late=False):
    if late:
        targets = (teacher / teacher_temp - center).softmax(-1)
    else:
        targets = ((teacher - center) / teacher_temp).softmax(-1)
    targets = targets if keep else targets.detach()
    shifted = student - center if flip else student
    log_probs = (shifted / student_temp).log_softmax(-1)
    terms = [
        -(targets[t] * log_probs[s]).sum(-1).mean()
        for t in range(len(teacher))
        for s in range(len(student))
        if same or s != t
    ]
    return torch.stack(terms).mean()


DINO = {
    "same crop compared": lambda *a: _dino(*a, same=True),
    "student centred": lambda *a: _dino(*a, flip=True),
    "teacher not detached": lambda *a: _dino(*a, keep=True),
    "centred after the temperature": lambda *a: _dino(*a, late=True),
    "no centre": lambda s, t, c, a, b: _dino(s, t, torch.zeros_like(c), a, b),
    "temperatures exchanged": lambda s, t, c, a, b: _dino(s, t, c, b, a),
    "summed over pairs": lambda *a: 6 * _dino(*a),
    "usual temperatures whatever is asked": lambda s, t, c, a, b: _dino(s, t, c, 0.1, 0.04),
}


def _koleo(z, normalise=True, own=False, sign=1.0):
    z = unit(z) if normalise else z
    distances = torch.cdist(z, z) + (0 if own else torch.diag(torch.full((len(z),), 1e9)))
    return -sign * (distances.min(1).values + 1e-8).log().mean()


KOLEO = {
    "not normalised": lambda z: _koleo(z, normalise=False),
    "its own neighbour": lambda z: _koleo(z, own=True),
    "sign": lambda z: _koleo(z, sign=-1.0),
    "mean distance": lambda z: -torch.pdist(unit(z)).log().mean(),
}

CENTER = {
    "momentum exchanged": lambda c, x, m: (1 - m) * c + m * x.detach().flatten(0, 1).mean(0),
    "mean over prototypes": lambda c, x, m: m * c + (1 - m) * x.detach().mean(),
    "sum over the batch": lambda c, x, m: m * c + (1 - m) * x.detach().flatten(0, 1).sum(0),
    "history kept": lambda c, x, m: m * c + (1 - m) * x.flatten(0, 1).mean(0),
}


def _ema(teacher, student, momentum, skip=0):
    with torch.no_grad():
        for a, b in list(zip(teacher.parameters(), student.parameters(), strict=True))[skip:]:
            a.copy_(momentum * a + (1 - momentum) * b)


def _ema_assigned(teacher, student, momentum):
    _ema(teacher, student, momentum)
    if momentum == 0.0:
        for a, b in zip(teacher.parameters(), student.parameters(), strict=True):
            a.data = b.data


def _ema_both(teacher, student, momentum):
    _ema(teacher, student, momentum)
    _ema(student, teacher, momentum)


EMA = {
    "momentum exchanged": lambda t, s, m: _ema(t, s, 1 - m),
    "first parameter forgotten": lambda t, s, m: _ema(t, s, m, skip=1),
    "memory shared": _ema_assigned,
    "student moves too": _ema_both,
    "does nothing": lambda t, s, m: None,
}


def _patches(images, p, order="bhpwqc->bhwpqc"):
    b, c, h, w = images.shape
    tiles = images.reshape(b, c, h // p, p, w // p, p)
    return tiles, (b, (h // p) * (w // p), p * p * c)


def _patchify(images, p, axes):
    tiles, shape = _patches(images, p)
    return tiles.permute(*axes).reshape(shape)


PATCHIFY = {
    "channels first": lambda x, p: _patchify(x, p, (0, 2, 4, 1, 3, 5)),
    "columns of patches first": lambda x, p: _patchify(x, p, (0, 4, 2, 3, 5, 1)),
    "transposed inside": lambda x, p: _patchify(x, p, (0, 2, 4, 5, 3, 1)),
    "only reshaped": lambda x, p: x.reshape(_patches(x, p)[1]),
}


def _shared_mask(batch, num, ratio):
    return tuple(part.expand(batch, -1) for part in random_mask(1, num, ratio))


def _first_hidden(batch, num, ratio):
    keep, restore, mask = random_mask(batch, num, ratio)
    return keep, restore, ~mask


def _order_as_restore(batch, num, ratio):
    order = torch.rand(batch, num).argsort(1)
    kept = int(num * (1 - ratio))
    return order[:, :kept], order, torch.ones(batch, num, dtype=torch.bool).scatter(1, order[:, :kept], False)


def _uneven(batch, num, ratio):
    order = (torch.rand(batch, num) + torch.linspace(0, 0.6, num)).argsort(1)
    restore = order.argsort(1)
    kept = int(num * (1 - ratio))
    return order[:, :kept], restore, restore >= kept


def _rounded_mask(batch, num, ratio, rounding=round):
    order = torch.rand(batch, num).argsort(1)
    restore = order.argsort(1)
    kept = rounding(num * (1 - ratio))
    return order[:, :kept], restore, restore >= kept


RANDOM_MASK = {
    "one mask for all images": _shared_mask,
    "True marks the visible": _first_hidden,
    "ids_restore is the shuffle itself": _order_as_restore,
    "early patches favoured": _uneven,
    "hides the kept share": lambda b, n, r: random_mask(b, n, 1 - r),
    "rounds to the nearest": _rounded_mask,
    "always keeps four": lambda *a: _rounded_mask(*a, rounding=lambda kept: 4),
}


def _pixels(pred, images, mask, p, norm=True, unbiased=True, where="hidden", each=False, eps=1e-6):
    target = objectives.patchify(images, p)
    if norm:
        deviation = target.var(2, keepdim=True, correction=int(unbiased))
        target = (target - target.mean(2, keepdim=True)) / (deviation + eps).sqrt()
    error = (pred - target).square().mean(2)
    if where == "all":
        return error.mean()
    if each:
        return ((error * mask).sum(1) / mask.sum(1)).mean()
    return error[mask if where == "hidden" else ~mask].mean()


PIXELS = {
    "visible patches counted": lambda *a: _pixels(*a, where="all"),
    "only visible patches": lambda *a: _pixels(*a, where="visible"),
    "not standardised": lambda *a: _pixels(*a, norm=False),
    "biased variance": lambda *a: _pixels(*a, unbiased=False),
    "averaged image by image": lambda *a: _pixels(*a, each=True),
    "zero over zero": lambda *a: _pixels(*a, eps=0.0),
    "divided by all patches": lambda pred, x, m, p: _pixels(pred, x, m, p) * m.float().mean(),
    "summed over pixels": lambda *a: 48 * _pixels(*a),
}


def _knn(train, labels, test, k, temperature, normalise=True, weighted=True, shift=True):
    a, b = (unit(test), unit(train)) if normalise else (test, train)
    similarity, index = (a @ b.T).topk(k, dim=1)
    largest = similarity[:, :1] if shift else 0
    weight = ((similarity - largest) / temperature).exp() if weighted else torch.ones_like(similarity)
    votes = torch.zeros(len(test), int(labels.max()) + 1).scatter_add_(1, labels[index], weight)
    return votes.argmax(1)


KNN = {
    "not normalised": lambda *a: _knn(*a, normalise=False),
    "unweighted": lambda *a: _knn(*a, weighted=False),
    "weights overflow": lambda *a: _knn(*a, shift=False),
    "all rows vote": lambda x, y, t, k, temperature: knn_predict(x, y, t, len(x), temperature),
    "nearest only": lambda x, y, t, k, temperature: knn_predict(x, y, t, 1, temperature),
    "farthest": lambda x, y, t, k, temperature: _knn(-x, y, t, k, temperature),
}

ALIGNMENT = {
    "not normalised": lambda a, b: (a - b).square().sum(1).mean(),
    "not squared": lambda a, b: (unit(a) - unit(b)).norm(dim=1).mean(),
    "mean over dimensions": lambda a, b: (unit(a) - unit(b)).square().mean(),
    "all pairs": lambda a, b: torch.cdist(unit(a), unit(b)).square().mean(),
}

UNIFORMITY = {
    "not normalised": lambda x, t: torch.pdist(x).square().mul(-t).exp().mean().log(),
    "not squared": lambda x, t: torch.pdist(unit(x)).mul(-t).exp().mean().log(),
    "with itself": lambda x, t: torch.cdist(unit(x), unit(x)).square().mul(-t).exp().mean().log(),
    "mean of the log": lambda x, t: torch.pdist(unit(x)).square().mul(-t).mean(),
    "no log": lambda x, t: torch.pdist(unit(x)).square().mul(-t).exp().mean(),
}


def _rank(values):
    share = values / values.sum()
    return (-torch.special.xlogy(share, share).sum()).exp()


RANKME = {
    "squared singular values": lambda x: _rank(torch.linalg.svdvals(x).square()),
    "entropy only": lambda x: _rank(torch.linalg.svdvals(x)).log(),
    "plain rank": lambda x: float(torch.linalg.matrix_rank(x)),
    "base two": lambda x: _rank(torch.linalg.svdvals(x)).log() / math.log(2),
}


def _product(attentions, skip=0.5, first=False):
    result = None
    for attention in attentions:
        mixed = (attention[:, 0] if first else attention.mean(1)) * (1 - skip) + torch.eye(attention.shape[-1]) * skip
        result = mixed if result is None else mixed @ result
    return result


ROLLOUT = {
    "other order": lambda a: rollout(a[::-1]),
    "no skip connection": lambda a: _product(a, skip=0.0),
    "skip of one quarter": lambda a: _product(a, skip=0.25),
    "first head only": lambda a: _product(a, first=True),
    "identity added, not mixed": lambda a: 2 ** len(a) * rollout(a),
    "last block only": lambda a: rollout(a[-1:]),
}


def _mass(maps, mass, normalise=True, back=True, shared=False):
    flat = maps.flatten(-2)
    total = maps.sum() / flat[..., 0].numel() if shared else flat.sum(-1, keepdim=True)
    share, order = (flat / total if normalise else flat).sort(dim=-1, descending=True)
    keep = share.cumsum(-1) - share < mass
    return (torch.zeros_like(keep).scatter(-1, order, keep) if back else keep).view_as(maps)


MASS = {
    "not normalised": lambda m, q: _mass(m, q, normalise=False),
    "left in sorted order": lambda m, q: _mass(m, q, back=False),
    "one sum for all maps": lambda m, q: _mass(m, q, shared=True),
    "plain threshold": lambda m, q: m / m.flatten(-2).sum(-1)[..., None, None] > q,
    "share of the patches": lambda m, q: m >= m.flatten(-2).quantile(1 - q, dim=-1)[..., None, None],
}

LABELS = {
    "maximum id": lambda m, p: (
        m.unfold(1, p, p).unfold(2, p, p).flatten(3).amax(-1).flatten(1).long(),
        token_labels(m, p)[1],
    ),
    "centre pixel's purity": lambda m, p: (token_labels(m, p)[0], torch.ones_like(token_labels(m, p)[1])),
    "columns first": lambda m, p: tuple(part for part in token_labels(m.transpose(1, 2), p)),
}


def _by_distance(pairs):
    width = pairs.grid[1]
    rows = (pairs.first // width - pairs.second // width).float()
    columns = (pairs.first % width - pairs.second % width).float()
    return _balanced(pairs, (rows.square() + columns.square()).round().long())


def _balanced(pairs, cell, shuffle=True):
    keep = torch.zeros(len(pairs), dtype=torch.bool)
    for value in cell.unique():
        kinds = [((cell == value) & (pairs.same == kind)).nonzero()[:, 0] for kind in (True, False)]
        quota = min(len(kind) for kind in kinds)
        for kind in kinds:
            chosen = kind[torch.randperm(len(kind))] if shuffle else kind
            keep[chosen[:quota]] = True
    return pairs.take(keep)


def _unshuffled(pairs):
    width = pairs.grid[1]
    rows = (pairs.first // width - pairs.second // width).abs()
    columns = (pairs.first % width - pairs.second % width).abs()
    return _balanced(pairs, rows * width + columns, shuffle=False)


PAIRS = {
    "nothing dropped": lambda pairs: pairs,
    "balanced over all pairs": lambda pairs: _balanced(pairs, torch.zeros(len(pairs), dtype=torch.long)),
    "balanced by distance": _by_distance,
    "first pairs of each cell": _unshuffled,
    "every second pair lost": lambda pairs: match_pairs(match_pairs(pairs, "displacement"), "displacement+midpoint"),
    "answers shuffled": lambda pairs: match_pairs(pairs.shuffled(), "displacement"),
}


def _quadratic(x, y, w, b):
    return torch.einsum("pi,ij,pj->p", x, w + w.T, y) / (2 * x.shape[1] ** 0.5) + b


QUADRATIC = {
    "weight not symmetric": lambda x, y, w, b: ((x @ w) * y).sum(1) / x.shape[1] ** 0.5 + b,
    "diagonal only": lambda x, y, w, b: _quadratic(x, y, w.diag().diag(), b),
    "divided by d": lambda x, y, w, b: _quadratic(x, y, w, 0) / x.shape[1] ** 0.5 + b,
    "no bias": lambda x, y, w, b: _quadratic(x, y, w, 0),
    "additive": lambda x, y, w, b: (x @ w).sum(1) + (y @ w).sum(1) + b,
    "all pairs at once": lambda x, y, w, b: x @ (w + w.T) @ y.T / (2 * x.shape[1] ** 0.5) + b,
}

AUROC = {
    "ties count as wins": lambda s, k: (s[k][:, None] >= s[~k][None]).float().mean(),
    "ties count as losses": lambda s, k: (s[k][:, None] > s[~k][None]).float().mean(),
    "accuracy at zero": lambda s, k: ((s > 0) == k).float().mean(),
    "reversed": lambda s, k: (s[k][:, None] < s[~k][None]).float().mean(),
}


def _sinkhorn(scores, epsilon, num_iters, columns=True, rows_first=False, scale=True):
    codes = (scores / epsilon).exp()
    for _ in range(num_iters):
        if rows_first:
            codes = codes / codes.sum(1, keepdim=True)
        if columns:
            codes = codes / codes.sum(0)
        if not rows_first:
            codes = codes / codes.sum(1, keepdim=True)
    return codes if scale else codes / len(codes)


SINKHORN = {
    "softmax": lambda s, e, t: _sinkhorn(s, e, t, columns=False),
    "rows first": lambda s, e, t: _sinkhorn(s, e, t, rows_first=True),
    "not times B": lambda s, e, t: _sinkhorn(s, e, t, scale=False),
    "one step only": lambda s, e, t: _sinkhorn(s, e, 1),
    "one step too many": lambda s, e, t: _sinkhorn(s, e, t + 1),
    "multiplied by epsilon": lambda s, e, t: _sinkhorn(s, 1 / e, t),
    "epsilon forgotten": lambda s, e, t: _sinkhorn(s, 0.1, t),
}


def _swapped(scores, codes, temperature, own=False, detach=True, total=False):
    codes = codes.detach() if detach else codes
    log_probs = (scores / temperature).log_softmax(-1)
    pairs = [(a, v) for a in range(len(codes)) for v in range(len(scores)) if own or v != a]
    losses = torch.stack([-(codes[a] * log_probs[v]).sum(-1).mean() for a, v in pairs])
    return losses.sum() if total else losses.mean()


SWAPPED = {
    "own code predicted": lambda *a: _swapped(*a, own=True),
    "codes not detached": lambda *a: _swapped(*a, detach=False),
    "summed over pairs": lambda *a: _swapped(*a, total=True),
    "multiplied by the temperature": lambda s, q, t: _swapped(s, q, 1 / t),
    "only the large crops predict": lambda s, q, t: _swapped(s[:2], q, t),
    "scores detached": lambda s, q, t: _swapped(s.detach(), q, t) + 0 * s.sum(),
}


def _entropy(share, base=math.e):
    return -torch.special.xlogy(share, share).sum(-1) / math.log(base)


USAGE = {
    "entropy only": lambda q: _entropy(q.mean(0)),
    "mean of the perplexities": lambda q: _entropy(q).exp().mean(),
    "number of winners": lambda q: torch.tensor(float(q.argmax(1).unique().numel())),
    "base two": lambda q: _entropy(q.mean(0), 2).exp(),
    "no zero rule": lambda q: (-(q.mean(0) * q.mean(0).log()).sum()).exp(),
}


def _prior(scores, prior, epsilon, num_iters, where="columns", last="rows"):
    codes = (scores / epsilon).exp()
    for _ in range(num_iters):
        codes = codes / codes.sum(0) * (prior if where == "columns" else 1)
        codes = codes / codes.sum(1, keepdim=True) / len(codes)
    if where == "end":
        codes = codes * prior
    return (codes if last == "rows" else codes / codes.sum(0) * prior) * len(codes)


PRIOR = {
    "prior ignored": lambda s, r, e, n: _prior(s, torch.full_like(r, 1 / len(r)), e, n),
    "prior at the end": lambda *a: _prior(*a, where="end"),
    "columns last": lambda *a: _prior(*a, last="columns"),
    "inverse prior": lambda s, r, e, n: _prior(s, (1 / r) / (1 / r).sum(), e, n),
    "square root": lambda s, r, e, n: _prior(s, r.sqrt() / r.sqrt().sum(), e, n),
    "sorted prior": lambda s, r, e, n: _prior(s, r.sort(descending=True).values, e, n),
}


def _widths(w0, wa, wm, depth, start=0, exponent=round, quantum=8):
    powers = [exponent(math.log((w0 + wa * (j + start)) / w0) / math.log(wm)) for j in range(depth)]
    return [int(round(w0 * wm**power / quantum) * quantum) for power in powers]


WIDTHS = {
    "no powers": lambda w0, wa, wm, depth: [round((w0 + wa * j) / 8) * 8 for j in range(depth)],
    "counted from one": lambda *a: _widths(*a, start=1),
    "rounded down": lambda *a: _widths(*a, exponent=math.floor),
    "not a multiple of 8": lambda *a: _widths(*a, quantum=1),
    "factor 2 always": lambda w0, wa, wm, depth: _widths(w0, wa, 2.0, depth),
}
