"""Checks of clustering as a pretext task: k-means and the label of two levels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from sslcore.checks.report import Report, draw, steady


@steady
def check_kmeans(fn: Callable | None = None) -> None:
    """fn(x (N, D), start (k, D), num_iters) -> labels (N,): those of the centroids after num_iters updates."""
    if fn is None:
        from sslcore.objectives import kmeans

        def fn(x, start, num_iters):
            return kmeans(x, len(start), num_iters=num_iters, seeding=start).labels

    report = Report("kmeans")

    def labels_of(x, start, num_iters=10):
        labels = fn(x.clone(), start.clone(), num_iters)
        right = isinstance(labels, torch.Tensor) and labels.shape == (len(x),) and not labels.is_floating_point()
        if not right:
            report.expect(False, f"{len(x)} rows give {len(x)} whole labels", f"{type(labels).__name__} {labels}")
        return labels

    def inertia(x, labels, k):
        rows = [x[labels == label] for label in range(k)]
        return float(sum((part - part.mean(0)).square().sum() for part in rows if len(part)))

    far = torch.tensor([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0]])
    x = far.repeat_interleave(5, 0) + 0.1 * draw(15, 2, seed=1)
    report.close(labels_of(x, far), torch.arange(3).repeat_interleave(5), "three far blobs keep their three names",
                 "label n is the index of the centroid nearest to row n")
    line = torch.tensor([[0.0], [1.0], [3.0], [10.0]])
    report.close(labels_of(line, torch.tensor([[0.0], [1.0]]), 1), torch.tensor([0, 0, 1, 1]),
                 "on a line, one update moves the centroids to 0 and 14/3, and row 1 changes sides",
                 "means of the rows of each label, then the labels once more")
    cloud = draw(60, 3, seed=2)
    after = [inertia(cloud, labels_of(cloud, cloud[:6], number), 6) for number in (1, 3, 20)]
    report.expect(after[0] >= after[1] - 1e-4 and after[1] >= after[2] - 1e-4, "more updates never raise the inertia",
                  ", ".join(f"{value:.4f}" for value in after), "both steps lower it: nearest centroid, then mean")
    end = labels_of(cloud, cloud[:6], 50)
    means = torch.stack([cloud[end == label].mean(0) for label in range(6)])
    report.close(end, torch.cdist(cloud, means).argmin(1), "after many updates each row is nearest to its own mean")
    stray = torch.tensor([[0.0], [500.0], [-500.0]])
    report.close(labels_of(line, stray, 5).unique(), torch.arange(3), "a centroid that wins no row gets one anyway",
                 "an empty cluster has no mean: give it a row, such as the one farthest from its own centroid")


@steady
def check_hierarchical_cross_entropy(fn: Callable | None = None) -> None:
    """fn(super_logits (B, S), sub_logits (B, S, K), supers (B,), subs (B,)) -> scalar."""
    if fn is None:
        from sslcore.objectives import hierarchical_cross_entropy as fn
    report = Report("hierarchical_cross_entropy")
    super_logits, sub_logits = draw(12, 3, seed=1), draw(12, 3, 4, seed=2)
    supers, subs = torch.arange(12) % 3, torch.arange(12) // 3 % 4

    def loss(v, w, s=supers, z=subs):
        return report.scalar(fn(v, w, s, z))

    report.close(loss(torch.zeros(12, 3), torch.zeros(12, 3, 4)), math.log(3) + math.log(4),
                 "equal logits give ln S + ln K", "two cross-entropies, each the mean over the batch, added")
    one = [(s, z) for s in range(3) for z in range(4)]
    pairs = [loss(super_logits[:1], sub_logits[:1], torch.tensor([s]), torch.tensor([z])) for s, z in one]
    report.close(torch.stack(pairs).neg().exp().sum(), 1.0, "exp(-loss) sums to one over the S * K pairs",
                 "the head of the true super-class alone: softmax over K, not over S * K")
    flat = super_logits.log_softmax(1)[:, :, None] + sub_logits.log_softmax(2)
    expected = -flat.flatten(1)[torch.arange(12), supers * 4 + subs].mean()
    report.close(loss(super_logits, sub_logits), expected, "it is -log of the joint probability, averaged")
    rotation = loss(super_logits, sub_logits[:, :, :1], z=torch.zeros(12, dtype=torch.long))
    report.close(rotation, torch.nn.functional.cross_entropy(super_logits, supers),
                 "with one sub-class only the first term is left: RotNet")
    cluster = loss(super_logits[:, :1], sub_logits[:, :1], s=torch.zeros(12, dtype=torch.long))
    report.close(cluster, torch.nn.functional.cross_entropy(sub_logits[:, 0], subs),
                 "with one super-class only the second term is left: DeepCluster")
    leaf = sub_logits.clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(super_logits, leaf), leaf)
    other = torch.ones(12, 3, dtype=torch.bool)
    other[torch.arange(12), supers] = False
    report.expect(not grad[other].any(), "heads of other super-classes get no gradient", "one does",
                  "pick row b's own head sub_logits[b, supers[b]]")
