"""Checks of masked patch selection and of the interval for a ratio of two spreads."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from sslcore.checks.report import CheckFailed, Report, draw, steady


@steady
def check_ask_for(fn: Callable | None = None) -> None:
    """fn(pooled (B, D), places (N, D), embedded (B, N, D), hidden (B, T) long) -> queries, keys, both (B, T, D)."""
    if fn is None:
        from sslcore.methods.selfie import ask_for as fn
    report = Report("ask_for")
    pooled, places, embedded = draw(3, 4, seed=1), draw(6, 4, seed=2), draw(3, 6, 4, seed=3)
    hidden = torch.tensor([[5, 0], [1, 3], [2, 4]])

    def ask(*inputs):
        given = fn(*inputs)
        if not (isinstance(given, tuple) and len(given) == 2):
            raise CheckFailed(f"ask_for: expected a tuple (queries, keys), got {type(given).__name__}")
        return given

    queries, keys = ask(pooled, places, embedded, hidden)
    for name, value in (("queries", queries), ("keys", keys)):
        report.expect(tuple(value.shape) == (3, 2, 4), f"{name} have the shape (B, T, D)", f"{tuple(value.shape)}")
    report.close(keys, torch.stack([embedded[b, hidden[b]] for b in range(3)]),
                 "key t is the embedding of hidden patch t of the same image",
                 "gather along dimension 1, with hidden[..., None] expanded to D")
    report.close(queries - pooled[:, None], places[hidden], "query t is the pooled vector plus that of place t",
                 "add, and take places by number: places[hidden]")
    flipped = ask(pooled, places, embedded, hidden.flip(1))
    report.close(torch.cat(flipped), torch.cat([queries.flip(1), keys.flip(1)]),
                 "another order of the hidden patches only reorders questions and answers", "do not sort")
    changed = embedded.scatter_add(1, hidden[..., None].expand(-1, -1, 4), torch.ones(3, 2, 4))
    report.close(ask(pooled, places, changed, hidden)[0], queries, "hidden patches never reach their own question",
                 "queries are built from places and the pooled vector alone")


@steady
def check_patch_selection_loss(fn: Callable | None = None) -> None:
    """fn(queries (B, T, D), keys (B, T, D)) -> scalar; see sslcore.objectives.patch_selection_loss."""
    if fn is None:
        from sslcore.objectives import patch_selection_loss as fn
    report = Report("patch_selection_loss")
    queries, keys = draw(3, 4, 5, seed=1), draw(3, 4, 5, seed=2)

    def loss(q, k):
        return report.scalar(fn(q, k))

    report.close(loss(0 * queries, keys), math.log(4), "a question that says nothing costs ln T: all candidates alike",
                 "one softmax over the T candidates")
    sure = torch.eye(4)[None].expand(3, -1, -1)
    report.close(loss(40 * sure, sure), 0.0, "a sure and right choice costs nothing",
                 "cross_entropy applies the softmax itself: give it scores, not probabilities")
    report.close(loss(40 * sure, sure.roll(1, 1)), 40.0, "a sure and wrong choice costs the lead it gave away",
                 "cross_entropy applies the softmax itself; and the answer to question t is candidate t")
    report.close(loss(queries, keys + draw(3, 1, 5, seed=4)), loss(queries, keys),
                 "adding one vector to all candidates of an image changes nothing",
                 "softmax over candidates (the last dimension), not over questions")
    swapped = torch.tensor([2, 0, 3, 1])
    report.close(loss(queries[:, swapped], keys[:, swapped]), loss(queries, keys), "the order of the hidden patches "
                 "does not matter")
    moved = torch.cat([keys[:1], 5 * keys[1:]])
    alone = [loss(queries[:1], part[:1]) for part in (keys, moved)]
    report.close(alone[1], alone[0], "distractors come from the same image only", "one T x T table for each image")
    single = torch.stack([loss(q[None], k[None]) for q, k in zip(queries, keys, strict=True)])
    report.close(loss(queries, keys), single.mean(), "the mean over images and questions",
                 "average, do not add up; no image's patches are candidates for another image")
    scores = torch.einsum("btd,bjd->btj", queries, keys)
    expected = F.cross_entropy(scores.flatten(0, 1), torch.arange(4).repeat(3))
    report.close(loss(queries, keys), expected, "scores are plain dot products", "no normalisation of the vectors")


@steady
def check_spread_ratio(fn: Callable | None = None) -> None:
    """fn(first (n,), second (n,)) -> ratio, low, high; see sslcore.experiment.spread_ratio."""
    if fn is None:
        from sslcore.experiment import spread_ratio as fn
    report = Report("spread_ratio")
    first, second = draw(12, seed=1).tolist(), draw(12, seed=2).tolist()

    def ratio(a, b):
        given = fn(a, b)
        if not (isinstance(given, tuple) and len(given) == 3):
            raise CheckFailed(f"spread_ratio: expected (ratio, low, high), got {given!r}")
        return torch.tensor([float(number) for number in given], dtype=torch.float64)

    got = ratio(first, second)
    report.close(got[0], torch.tensor(first).std() / torch.tensor(second).std(), "the ratio of the standard deviations",
                 "std, not variance: take roots at the end")
    report.expect(got[1] < got[0] < got[2], "the interval holds the ratio", f"{got.tolist()}", "low first, then high")
    report.close(ratio(second, first), 1 / got[[0, 2, 1]], "the other way round all three turn over",
                 "work with the ratio of variances, K - root and K + root")
    report.close(ratio([3 * value + 5 for value in first], second), 3 * got, "three times the spread, three times all",
                 "means drop out; units stay")
    half_width = (got[2] / got[1]).log()
    pairs = [value + 3 * other for value, other in zip(first, second, strict=True)]
    narrow = ratio(pairs, second)
    report.expect((narrow[2] / narrow[1]).log() < 0.8 * half_width,
                  "seeds that move both alike make the interval narrower", "as wide as without pairing",
                  "1 - r^2, with r the correlation over seeds")
    tilt = [0.0, 1.0, -1.0, 1.0, -1.0, 0.0]
    level = [1.0, 0.0, 0.0, 0.0, 0.0, -1.0]
    lean = ratio([2 * value for value in tilt], [2 * value for value in level])
    t, n = 2.7764451, 6  # 97.5 % of Student's t with 4 degrees of freedom
    factor = 1 + 2 * t**2 / (n - 2)
    expected = [(2 * (factor + sign * (factor**2 - 1) ** 0.5)) ** 0.5 for sign in (-1, 1)]
    report.close(lean, [2**0.5, *expected], "n = 6 without correlation: the ends by hand",
                 "t has n - 2 degrees of freedom and enters squared, over n - 2")
