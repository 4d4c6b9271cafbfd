"""Checks of what the transitive graph needs: the closure of links and tracks, and the triplet loss on its pairs."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sslcore.checks.report import Report, draw, steady


@steady
def check_close_pairs(fn: Callable | None = None) -> None:
    """fn(links (L, 2), tracks (T, 2)) -> set of pairs (low, high) of node numbers."""
    if fn is None:
        from sslcore.data.pair_graph import close_pairs

        def fn(links, tracks):
            return {tuple(pair) for pair in close_pairs(links, tracks).all().tolist()}

    report = Report("close_pairs")

    def closed(links, tracks):
        found = fn(*(torch.tensor(edges, dtype=torch.long).view(-1, 2) for edges in (links, tracks)))
        return {tuple(int(node) for node in pair) for pair in found}

    def equal(links, tracks, expected, what, hint=""):
        found = closed(links, tracks)
        report.expect(found == expected, what, f"{sorted(found)}, expected {sorted(expected)}", hint)

    equal([], [(0, 5), (1, 6)], {(0, 5), (1, 6)}, "without links the tracks are left", "tracks are positive pairs")
    equal([(0, 1)], [], {(0, 1)}, "without tracks the links are left", "a node without a track stays where it is")
    equal([(0, 1)], [(0, 5), (1, 6)], {(0, 5), (1, 6), (0, 1), (0, 6), (1, 5), (5, 6)},
          "one link between two tracks gives six pairs", "A'~B', A~B' and A'~B follow from A~B, A~A' and B~B'")
    equal([(1, 0), (0, 1)], [(5, 0)], {(0, 1), (0, 5), (1, 5)}, "pairs have no direction and come once",
          "put the lower number first; a track may be walked both ways")
    equal([(0, 1), (1, 2)], [(1, 6)], {(0, 1), (1, 2), (1, 6), (0, 6), (2, 6)}, "two links are not chained",
          "exactly one link a pair: errors multiply along longer chains")
    equal([(0, 5)], [(0, 5)], {(0, 5)}, "nothing is paired with itself", "a link within a track leads back")


@steady
def check_mined_triplet_loss(fn: Callable | None = None) -> None:
    """fn(first (N, D), second (N, D), labels (N,), margin, num_negatives) -> scalar, num_negatives at least 2N here."""
    if fn is None:
        from sslcore.objectives import mined_triplet_loss

        def fn(first, second, labels, margin, num_negatives):
            return mined_triplet_loss(first, second, labels, None, margin, num_negatives)

    report = Report("mined_triplet_loss")
    first, second, own = draw(4, 5, seed=1), draw(4, 5, seed=2), torch.arange(4)

    def loss(a, b, labels=own, margin=0.5, num=8):
        return report.scalar(fn(a, b, labels, margin, num))

    same = torch.ones(4, 5)
    report.close(loss(same, same), 0.5 * 6 / 8, "equal embeddings cost the margin for each of their 6 negatives",
                 "the divisor is 2 * num_negatives * N, fixed: two missing negatives count as zero")
    report.close(loss(same, same, margin=0.2, num=16), 0.2 * 6 / 16, "margin and divisor follow the arguments")
    corners = torch.eye(4)
    report.close(loss(corners, 3 * corners, margin=1.0), 0.0, "pairs at distance 0, negatives at distance 1: free",
                 "distance is 1 - cosine, cut at 0")
    report.close(loss(7 * first, second / 7), loss(first, second), "the length of an embedding does not matter",
                 "normalise the rows first")
    report.close(loss(same, same, torch.zeros(4, dtype=torch.long)), 0.0, "equal labels are no negatives of each other")
    tilted = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    # Pair 0 at distance 0.4, pair 1 at 0. With margin 0.7 both ends of pair 1 are active at first[0].
    by_hand = 2 * (0.4 - 1 + 0.7) + 2 * (0.4 - 0.2 + 0.7) + 2 * (0 - 0.2 + 0.7)
    # With margin 0.3 they are not, though second[0] is near them: only one end of pair 0 is, at first[1].
    by_hand = torch.tensor([by_hand, 2 * (0 - 0.2 + 0.3)]) / (2 * 4 * 2)
    found = torch.stack([loss(*tilted, own[:2], margin, 4) for margin in (0.7, 0.3)])
    report.close(found, by_hand, "two pairs, worked by hand",
                 "every negative is met twice, from first and from second; a negative counts if active at first")
    a, b = first.clone().requires_grad_(), second.clone().requires_grad_()
    grads = torch.autograd.grad(loss(a, b), (a, b), allow_unused=True)
    report.expect(all(g is not None and bool(g.abs().sum() > 0) for g in grads), "gradients reach both ends",
                  "an end without gradient", "do not detach positives or negatives")
