"""Checks of the read-outs: nearest neighbours, geometry of an embedding, attention."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from sslcore.checks.report import Report, draw, steady


@steady
def check_knn(fn: Callable | None = None) -> None:
    """fn(train_features (N, D), train_labels (N,), test_features (M, D), k, temperature) -> labels (M,)."""
    if fn is None:
        from sslcore.probes import knn_predict as fn
    report = Report("knn")
    angles = torch.tensor([0.0, 0.1, 0.2, 1.5, 1.6, 3.0])
    train = torch.stack([angles.cos(), angles.sin()], dim=1)
    labels = torch.tensor([0, 1, 1, 2, 2, 0])

    def predict(test_angle, k, temperature=0.07, scale=1.0):
        test = scale * torch.tensor([[math.cos(test_angle), math.sin(test_angle)]])
        return int(fn(train, labels, test, k, temperature)[0])

    seen = [predict(float(a), 1) for a in angles]
    report.expect(seen == labels.tolist(), "with k = 1 a training row gets its own label", f"{seen}")
    report.expect(predict(0.0, 3, 100.0) == 1, "at high temperature the plain majority of k wins",
                  f"label {predict(0.0, 3, 100.0)}, expected 1 (two of three neighbours)")
    # The nearest of these has the higher label: infinite votes of all three would go to the lower one.
    few = torch.tensor([0.2, 0.25, 0.0])
    late = int(fn(torch.stack([few.cos(), few.sin()], dim=1), torch.tensor([0, 0, 1]),
                  torch.tensor([[math.cos(0.05), math.sin(0.05)]]), 3, 0.0005)[0])
    report.expect(predict(0.0, 3, 0.0005) == 0 and late == 1, "at low temperature the nearest neighbour wins",
                  f"labels {predict(0.0, 3, 0.0005)} and {late}, expected 0 and 1",
                  "votes are weighted by exp(cosine / temperature); subtract the largest first, or exp overflows")
    long = train * torch.tensor([1.0, 1, 1, 50, 50, 1])[:, None]
    got = int(fn(long, labels, torch.tensor([[math.cos(0.4), math.sin(0.4)]]), 1, 0.07)[0])
    report.expect(got == 1, "the length of a feature does not matter", f"label {got}, expected 1", "normalise the rows")
    report.expect(predict(1.55, 2) == 2 and predict(1.55, 5, 100.0) == 2, "only the k nearest vote", "others took part")
    many = fn(train, labels, train.flip(0), 1, 0.07).tolist()
    report.expect(many == labels.flip(0).tolist(), "several test rows are answered in order", f"{many}")


@steady
def check_alignment(fn: Callable | None = None) -> None:
    """fn(first (n, D), second (n, D)) -> number in [0, 4]."""
    if fn is None:
        from sslcore.probes import alignment as fn
    report = Report("alignment")
    x = draw(6, 4, seed=1)
    report.close(float(fn(x, 3 * x)), 0.0, "the same directions give 0", "normalise the rows")
    report.close(float(fn(x, -x)), 4.0, "opposite directions give 4", "squared distance: (1 + 1)^2")
    corners = torch.eye(4)
    report.close(float(fn(corners, corners.roll(1, 0))), 2.0, "orthogonal directions give 2", "mean over pairs of rows")


@steady
def check_uniformity(fn: Callable | None = None) -> None:
    """fn(features (n, D), t) -> number in [-4t, 0]."""
    if fn is None:
        from sslcore.probes import uniformity as fn
    report = Report("uniformity")
    report.close(float(fn(torch.ones(5, 3), 2.0)), 0.0, "collapsed features give 0", "log of the mean of exp(-t * 0)")
    pair = torch.tensor([[1.0, 0.0], [-3.0, 0.0]])
    report.close(float(fn(pair, 2.0)), -8.0, "an opposite pair gives -4t",
                 "normalise; squared distance; leave out the pairs of a row with itself")
    report.close(float(fn(torch.eye(3), 1.0)), -2.0, "orthogonal rows give -2t")
    mixed = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    expected = math.log((math.exp(-8) + 2 * math.exp(-4)) / 3)
    report.close(float(fn(mixed, 2.0)), expected, "the log of the mean, not the mean of the log",
                 "first average exp(-t * squared distance), then take the log")


@steady
def check_rankme(fn: Callable | None = None) -> None:
    """fn(features (n, D)) -> number between 1 and min(n, D)."""
    if fn is None:
        from sslcore.probes import rankme as fn
    report = Report("rankme")
    report.close(float(fn(torch.eye(5))), 5.0, "five equal directions give 5", "exp of the entropy", 1e-3)
    flat = float(fn(torch.ones(8, 5)))
    report.close(flat, 1.0, "one direction gives 1", "singular values as shares of their sum", 1e-3)
    two = torch.diag(torch.tensor([3.0, 1.0]))
    expected = math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    report.close(float(fn(two)), expected, "singular values 3 and 1, worked by hand",
                 "the shares are singular values, not their squares; natural logarithm", 1e-3)
    x = draw(12, 4, seed=1)
    report.close(float(fn(7 * x)), float(fn(x)), "the scale of the features does not matter", "", 1e-3)


@steady
def check_attention_rollout(fn: Callable | None = None) -> None:
    """fn(attentions: list of L tensors (B, H, T, T)) -> (B, T, T)."""
    if fn is None:
        from sslcore.probes import rollout as fn
    report = Report("attention_rollout")
    blocks = [draw(2, 3, 5, 5, seed=layer).softmax(-1) for layer in range(3)]
    result = fn(blocks)
    report.close(result.sum(-1), torch.ones(2, 5), "rows sum to one", "mix with the identity half and half")
    identity = torch.eye(5).expand(2, 3, 5, 5)
    report.close(fn([identity, identity]), torch.eye(5).expand(2, 5, 5), "blocks that look at themselves: the identity")
    half = (blocks[0].mean(1) + torch.eye(5)) / 2
    report.close(fn(blocks[:1]), half, "one block: (mean over heads + identity) / 2", "the skip connection counts half")
    report.close(fn(blocks), fn(blocks[2:]) @ fn(blocks[1:2]) @ fn(blocks[:1]), "the last block stands on the left",
                 "token i of the last block looks at tokens that looked at others before")
    heads = [block[:, [2, 0, 1]] for block in blocks]
    report.close(fn(heads), result, "the order of the heads does not matter")


@steady
def check_mass_threshold(fn: Callable | None = None) -> None:
    """fn(maps (..., h, w), mass) -> bool of the same shape: the fewest strongest patches that hold `mass`."""
    if fn is None:
        from sslcore.probes import mass_threshold as fn
    report = Report("mass_threshold")
    maps = torch.tensor([[0.5, 0.1], [0.3, 0.1]])[None, None]
    kept = {mass: fn(maps, mass)[0, 0].flatten().int().tolist() for mass in (0.4, 0.7, 0.95)}
    report.expect(kept[0.4] == [1, 0, 0, 0], "40 % of the mass: the strongest patch alone", f"{kept[0.4]}",
                  "a patch is kept while the mass of the stronger ones is below the threshold")
    report.expect(kept[0.7] == [1, 0, 1, 0], "70 % of the mass: the two strongest, in their places", f"{kept[0.7]}",
                  "bring the sorted answer back to the map's order")
    report.expect(sum(kept[0.95]) == 4, "95 % of the mass needs all four", f"{kept[0.95]}")
    report.expect(torch.equal(fn(9 * maps, 0.7), fn(maps, 0.7)), "the scale of a map does not matter",
                  "another choice for 9 * maps", "divide by the map's sum first")
    several = draw(3, 2, 4, 4, seed=1).exp()
    whole = fn(several, 0.6)
    each = several.flatten(0, 1)[:, None, None]
    alone = torch.stack([fn(one, 0.6)[0, 0] for one in each]).view_as(whole)
    report.expect(torch.equal(whole, alone), "every image and head has its own threshold", "they influence each other")
