"""Checks of the contrastive objectives."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from sslcore.checks.report import Report, draw, steady


@steady
def check_nt_xent(fn: Callable | None = None) -> None:
    """fn(z0 (N, D), z1 (N, D), temperature) -> scalar; see sslcore.objectives.nt_xent."""
    if fn is None:
        from sslcore.objectives import nt_xent as fn
    report = Report("nt_xent")
    z0, z1 = draw(6, 5, seed=1), draw(6, 5, seed=2)

    def loss(a, b, temperature=0.5):
        return report.scalar(fn(a, b, temperature))

    same = torch.ones(6, 5)
    report.close(loss(same, same), math.log(11), "equal embeddings give ln(2N - 1)",
                 "each row chooses among 2N - 1 others: all rows of both views, itself left out")
    report.close(loss(3 * z0, 0.1 * z1), loss(z0, z1), "the length of an embedding does not matter",
                 "normalise the rows first")
    report.close(loss(z1, z0), loss(z0, z1), "exchanging the views changes nothing",
                 "both views' rows take their turn as anchors")
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    report.close(loss(z0[order], z1[order]), loss(z0, z1), "the order of the images does not matter")
    report.expect(loss(z0, z0) < loss(z0, z1), "equal views cost less than unrelated ones",
                  f"{float(loss(z0, z0)):.4f} against {float(loss(z0, z1)):.4f}",
                  "is the positive the other view of the same image?")
    corners = torch.eye(4)
    expected = -2.0 + math.log(math.exp(2.0) + 6)  # cosine 1 to the partner, 0 to six others, temperature 1/2
    report.close(loss(corners, corners), expected, "orthogonal images with equal views, worked by hand",
                 "logits are cosines divided by the temperature; average over all 2N rows")
    expected = -10.0 + math.log(math.exp(10.0) + 6)
    report.close(loss(corners, corners, 0.1), expected, "a lower temperature sharpens the same example")
    report.close(loss(100 * corners, corners, 0.005), 0.0, "a temperature of 0.005 does not overflow",
                 "use logsumexp or cross_entropy, not log(sum(exp))")
    a, b = z0.clone().requires_grad_(), z1.clone().requires_grad_()
    grads = torch.autograd.grad(loss(a, b), (a, b), allow_unused=True)
    report.expect(all(g is not None and bool(g.abs().sum() > 0) for g in grads), "gradients reach both views",
                  "a view without gradient", "do not detach or stop at either view")


@steady
def check_info_nce(fn: Callable | None = None, queue: bool = True) -> None:
    """fn(query (N, D), key (N, D), negatives=None | (K, D), temperature) -> scalar; queue=False skips the queue."""
    if fn is None:
        from sslcore.objectives import info_nce as fn
    report = Report("info_nce")
    query, key, bank = draw(5, 4, seed=1), draw(5, 4, seed=2), draw(9, 4, seed=3)

    def loss(q, k, negatives=None, temperature=0.2):
        if negatives is None:
            return report.scalar(fn(q, k, temperature=temperature))
        return report.scalar(fn(q, k, negatives=negatives, temperature=temperature))

    same = torch.ones(5, 4)
    report.close(loss(same, same), math.log(5), "equal embeddings give ln N in the batch",
                 "each query chooses among the N keys; its own is the right answer")
    report.close(loss(2 * query, 5 * key), loss(query, key), "the length of an embedding does not matter",
                 "normalise queries and keys")
    corners = torch.eye(4)
    report.close(loss(corners, corners), -5 + math.log(math.exp(5) + 3), "orthogonal keys, worked by hand",
                 "logits are cosines divided by the temperature")
    order = torch.tensor([1, 2, 3, 4, 0])
    report.close(loss(query[order], key[order]), loss(query, key), "the order of the images does not matter")
    report.expect(loss(query, query) < loss(query, query[order]), "the own key costs less than another's",
                  "the pairing makes no difference", "row n of query belongs to row n of key")
    if not queue:
        return
    report.close(loss(same, same, torch.ones(9, 4)), math.log(10), "with a queue of K equal keys: ln(K + 1)",
                 "candidates are the own key and the K negatives, not the batch's other keys")
    report.close(loss(query, key, 7 * bank), loss(query, key, bank), "the length of a negative does not matter")
    one = loss(query[:1], key[:1], bank)
    rest = loss(query[1:], key[1:], bank)
    report.close((one + 4 * rest) / 5, loss(query, key, bank), "with a queue, images do not see each other",
                 "the negatives come from the queue only; take the mean over queries")
