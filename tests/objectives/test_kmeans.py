"""Claims about kmeans, two_level_kmeans and pca_whiten, one test each.

- From given centroids, labels, means and inertia equal scikit-learn's Lloyd; its inertia is matched on blobs too.
- Many problems at once equal one at a time; more iterations or more seedings never raise the inertia.
- Every label occurs, also when rows repeat or far-away centroids win nothing; centroids are the means of their rows.
- k-means++ picks far rows more often: it finds separate blobs that random rows often miss.
- Two levels: subs split each super alone; one super or one sub is the flat case.
- Whitened rows have unit covariance before scaling, agree with scikit-learn up to sign, and length one after it.
- The same generator gives the same clusters; wrong shapes, sizes, names, types and NaN are refused.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from sslcore.objectives import kmeans, pca_whiten, two_level_kmeans


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def blobs(centres=6, each=30, dim=3, spread=0.05, seed=1):
    """Rows around well separated centres, far from the origin."""
    random = generator(seed)
    middle = 10 * torch.randn(centres, 1, dim, generator=random)
    return (middle + spread * torch.randn(centres, each, dim, generator=random)).flatten(0, 1) + 50


@pytest.mark.parametrize("num_iters", [1, 2, 5, 30])
def test_given_centroids_equal_scikit_learn(num_iters):
    x = torch.randn(200, 4, dtype=torch.float64)
    start = x[:7]
    ours = kmeans(x, 7, num_iters=num_iters, seeding=start)
    theirs = KMeans(7, init=start.numpy(), n_init=1, max_iter=num_iters, tol=0, algorithm="lloyd").fit(x.numpy())
    # scikit-learn labels by the last centroids and stops there; ours then takes the means of those labels.
    assert np.array_equal(ours.labels.numpy(), theirs.labels_)
    for label in range(7):
        torch.testing.assert_close(ours.centroids[label], x[ours.labels == label].mean(0))
    assert float(ours.inertia) <= theirs.inertia_ * (1 + 1e-9)
    if num_iters == 30:
        assert float(ours.inertia) == pytest.approx(theirs.inertia_, rel=1e-9)


def test_inertia_matches_scikit_learn_on_blobs():
    x = blobs()
    ours = kmeans(x, 6, num_init=4, generator=generator())
    theirs = KMeans(6, n_init=4, random_state=0).fit(x.numpy())
    assert float(ours.inertia) == pytest.approx(theirs.inertia_, rel=1e-3)
    assert all(len(ours.labels[30 * i : 30 * i + 30].unique()) == 1 for i in range(6))


def test_many_problems_at_once():
    x = torch.randn(3, 40, 2)
    start = x[:, :4]
    together = kmeans(x, 4, seeding=start)
    assert together.labels.shape == (3, 40) and together.centroids.shape == (3, 4, 2) and together.inertia.shape == (3,)
    for number in range(3):
        alone = kmeans(x[number], 4, seeding=start[number])
        assert torch.equal(alone.labels, together.labels[number])
        torch.testing.assert_close(alone.centroids, together.centroids[number])
        torch.testing.assert_close(alone.inertia, together.inertia[number])


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(0, 30), st.integers(1, 3), st.booleans())
def test_every_label_occurs_and_inertia_never_rises(seed, k, more, dim, repeated):
    x = torch.randn(k + more, dim, generator=generator(seed))
    if repeated:
        x = x[torch.randint(1 + len(x) // 3, (len(x),), generator=generator(seed))]
    last = float("inf")
    for num_iters in (1, 2, 3, 6):
        found = kmeans(x, k, num_iters=num_iters, seeding="random", generator=generator(seed))
        assert found.labels.unique().tolist() == list(range(k))
        nearest = found.centroids[found.labels]
        assert float(found.inertia) == pytest.approx(float((x - nearest).square().sum()), rel=1e-3, abs=1e-4)
        assert float(found.inertia) <= last * (1 + 1e-4) + 1e-4
        last = float(found.inertia)


def test_a_centroid_that_wins_nothing_takes_the_farthest_row():
    x = torch.tensor([[0.0], [0.1], [0.2], [9.0]])
    found = kmeans(x, 3, num_iters=1, seeding=torch.tensor([[0.0], [500.0], [-500.0]]))
    assert found.labels.unique().tolist() == [0, 1, 2]
    assert found.labels.bincount()[found.labels[3]] == 1  # 9.0 lay farthest from its centroid
    same = kmeans(torch.zeros(5, 2), 5, generator=generator())
    assert sorted(same.labels.tolist()) == [0, 1, 2, 3, 4] and float(same.inertia) == 0.0


def test_more_seedings_are_never_worse():
    x = torch.randn(120, 2)
    few, many = (float(kmeans(x, 9, num_init=n, num_iters=20, generator=generator(3)).inertia) for n in (1, 16))
    assert many <= few


def test_seeding_spreads():
    x = blobs(centres=8, each=20)
    hits = {}
    for seeding in ("k-means++", "random"):
        found = [kmeans(x, 8, num_iters=3, seeding=seeding, generator=generator(seed)).inertia for seed in range(20)]
        hits[seeding] = sum(float(inertia) < 8 * 20 * 3 * 0.05**2 * 2 for inertia in found)
    assert hits["k-means++"] >= 10 > hits["random"]


def test_far_from_the_origin_in_float32():
    x = blobs(spread=0.01) + 1e4
    assert torch.equal(kmeans(x, 6, num_init=4, generator=generator()).labels.bincount(), torch.full((6,), 30))


def test_generator_decides():
    x = torch.randn(60, 3)
    first, again, other = (kmeans(x, 8, num_iters=1, generator=generator(seed)).labels for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_half_precision_and_autocast_compute_in_float32():
    x = blobs().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = kmeans(x, 6, generator=generator())
    assert found.centroids.dtype == torch.float32
    assert torch.equal(found.labels, kmeans(x.float(), 6, generator=generator()).labels)
    leaf = blobs().requires_grad_()
    assert not kmeans(leaf, 3).centroids.requires_grad


def test_two_levels_split_each_super_cluster_alone():
    x = blobs(centres=2, each=60, spread=1.0)
    supers, subs = two_level_kmeans(x, 2, 4, generator=generator())
    assert supers[:60].unique().numel() == 1 and supers[0] != supers[-1]
    for cluster in range(2):
        inside = supers == cluster
        assert subs[inside].unique().tolist() == [0, 1, 2, 3]
        centroids = torch.stack([x[inside & (subs == label)].mean(0) for label in range(4)])
        assert (torch.cdist(x[inside], centroids).argmin(1) == subs[inside]).float().mean() > 0.9


def test_one_super_or_one_sub_is_flat():
    x = torch.randn(50, 3)
    supers, subs = two_level_kmeans(x, 1, 5, generator=generator())
    assert not supers.any() and subs.unique().tolist() == [0, 1, 2, 3, 4]
    supers, subs = two_level_kmeans(x, 5, 1, generator=generator())
    assert not subs.any() and torch.equal(supers, kmeans(x, 5, generator=generator()).labels)
    small = two_level_kmeans(torch.tensor([[0.0], [0.1], [9.0]]), 2, 2, generator=generator())
    assert small.subs.max() == 1  # the lonely third row makes do with one sub-cluster


def test_whitening_equals_scikit_learn():
    x = torch.randn(300, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64) + 3
    rows = torch.from_numpy(PCA(4, whiten=True).fit_transform(x.numpy()))
    torch.testing.assert_close(torch.cov(rows.T), torch.eye(4, dtype=torch.float64))
    rows = rows / rows.norm(dim=1, keepdim=True)
    ours = pca_whiten(x, 4)
    torch.testing.assert_close(ours.norm(dim=1), torch.ones(300, dtype=torch.float64))
    torch.testing.assert_close(ours * (ours * rows).sum(0).sign(), rows, atol=1e-6, rtol=1e-6)


def test_whitening_stays_finite_on_dead_axes():
    x = torch.randn(40, 5)
    x[:, 2:] = x[:, :1]
    assert torch.isfinite(pca_whiten(x, 5)).all()
    assert not pca_whiten(torch.ones(4, 3), 2).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k: expected 1 to 5"),
        ({"k": 6}, "k: expected 1 to 5"),
        ({"x": torch.randn(5)}, r"expected \(N, D\) or \(B, N, D\)"),
        ({"x": torch.tensor([[0.0], [torch.nan]]), "k": 1}, "1 NaN or infinite"),
        ({"num_iters": 0}, "num_iters: expected at least 1"),
        ({"num_init": 0}, "num_init: expected at least 1"),
        ({"seeding": "farthest"}, "unknown seeding 'farthest'; known: k-means"),
        ({"seeding": torch.randn(3, 2)}, "expected centroids"),
        ({"seeding": torch.randn(2, 2), "num_init": 2}, "expected 1 with given centroids"),
    ],
)
def test_bad_input_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        kmeans(**{"x": torch.randn(5, 2), "k": 2, **change})


def test_bad_input_of_the_others_is_refused():
    with pytest.raises(TypeError, match="floating-point"):
        kmeans(torch.ones(4, 2, dtype=torch.long), 2)
    with pytest.raises(ValueError, match="num_sub: expected at least 1, got 0"):
        two_level_kmeans(torch.randn(4, 2), 2, 0)
    with pytest.raises(ValueError, match="dim: expected 1 to 3, got 4"):
        pca_whiten(torch.randn(5, 3), 4)
    with pytest.raises(ValueError, match="at least two rows"):
        pca_whiten(torch.randn(1, 3), 2)
