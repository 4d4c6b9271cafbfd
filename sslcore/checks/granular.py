"""Checks of the machinery of Mugs: the memory's ring, and InfoNCE over large and small crops."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from sslcore.checks.report import Report, draw, steady


@steady
def check_push(fn: Callable | None = None) -> None:
    """fn(rows (K, D), cursor, new (n, D)) -> (rows, cursor): the newest K embeddings, oldest overwritten first."""
    if fn is None:
        from sslcore.methods.queue import EmbeddingQueue

        def fn(rows, cursor, new):
            queue = EmbeddingQueue(*rows.shape)
            queue.rows.copy_(rows), queue.cursor.fill_(cursor)
            queue.push(new)
            return queue.rows, int(queue.cursor)

    report = Report("push")
    stream = torch.arange(48.0).view(24, 2)

    def filled(size, batch, pushes):
        rows, cursor = -torch.ones(size, 2), 0
        for start in range(0, batch * pushes, batch):
            rows, cursor = fn(rows.clone(), cursor, stream[start : start + batch].clone())
        return torch.as_tensor(rows), int(cursor)

    rows, cursor = filled(6, 2, 1)
    report.close(rows[:2], stream[:2], "the first batch lies at the start, in order")
    report.close(rows[2:], -torch.ones(4, 2), "and nothing else has changed")
    report.expect(cursor == 2, "the cursor moves on by one batch", f"from 0 to {cursor} after 2 rows",
                  "advance once a push: twice leaves every other block as it was")
    rows, cursor = filled(6, 2, 3)
    report.close(rows, stream[:6], "after K / n pushes the memory holds exactly the last K rows",
                 "a block that keeps its start was jumped over")
    report.expect(cursor == 0, "a full round ends where it began", f"cursor {cursor}")
    rows, cursor = filled(5, 2, 8)
    order = [int(row) // 2 for row in rows[:, 0]]
    report.expect(sorted(order) == list(range(11, 16)), "batches that do not divide the memory wrap round its end",
                  f"rows {order} of 0 to 15 in it, expected the last five", "places are (cursor + 0 .. n - 1) modulo K")


@steady
def check_granular_nce(fn: Callable | None = None) -> None:
    """fn(queries (V, B, D), keys (T, B, D), negatives (K, D), temperature) -> scalar."""
    if fn is None:
        from sslcore.objectives import granular_nce as fn
    report = Report("granular_nce")
    queries, keys, negatives = draw(5, 3, 4, seed=1), draw(2, 3, 4, seed=2), draw(6, 4, seed=3)

    def loss(q, k=keys, n=negatives, temperature=0.25):  # not the usual 0.2, so that a fixed one is found
        return report.scalar(fn(q, k, n, temperature))

    same = torch.ones(5, 3, 4)
    report.close(loss(same, same[:2], torch.ones(6, 4)), math.log(7), "equal embeddings give ln(K + 1)",
                 "the choice is among the own key and the K negatives")
    report.close(loss(3 * queries, keys / 2, 5 * negatives), loss(queries), "lengths of embeddings do not matter")
    corners = torch.eye(3)
    large, small = corners[0].expand(2, 1, 3), corners[1].expand(10, 1, 3)
    right, wrong = math.log(1 + math.exp(-4)), math.log(2)  # own key at cosine 1 or 0, the negative at 0
    report.close(loss(torch.cat([large, small]), large, corners[2:]), (right + wrong) / 2,
                 "2 large and 20 small pairs: each kind counts half",
                 "two means and their mean, not one mean over all; and the temperature that is given")
    report.close(loss(large, large, corners[2:]), right, "without small crops the large ones count whole",
                 "no mean over an empty list")
    own = torch.stack([corners[0], corners[1]])[:, None]
    report.close(loss(own, own, corners[2:]), wrong, "crop v never meets the key of the same number",
                 "leave out v = t, and pair large crops both ways")
    swapped = loss(queries[[1, 0, 2, 3, 4]], keys.flip(0))
    report.close(swapped, loss(queries), "renaming the two large crops on both sides changes nothing")
