"""Attachment of trees to objects, against plain loops, planted trees and scikit-learn."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from sslcore.probes import adjusted_rand, attachment, part_to_whole, subtree_rand


def _random(batch=3, rows=4, columns=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (batch, rows * columns), generator=generator)
    parents = torch.randint(0, rows * columns - 1, (batch, rows * columns), generator=generator)
    parents += parents >= torch.arange(rows * columns)  # nobody is its own parent
    parents[:, 7] = -1
    return parents, labels, (rows, columns)


def test_against_loops():
    parents, labels, grid = _random()
    found = attachment(parents, labels, grid)

    def away(i, j):
        return (i // 5 - j // 5) ** 2 + (i % 5 - j % 5) ** 2

    scored = [(b, i) for b in range(3) for i in range(20) if labels[b, i] > 0 and i != 7]
    lengths = [away(i, int(parents[b, i])) for b, i in scored]
    right, near, anywhere, matched = [], [], [], []
    for b, i in scored:
        same = [int(labels[b, j] == labels[b, i]) for j in range(20)]
        right.append(same[int(parents[b, i])])
        around = [j for j in range(20) if away(i, j) == 1]
        near.append(sum(same[j] for j in around) / len(around))
        anywhere.append(sum(same[j] for j in range(20) if j != i) / 19)
        total = weight = 0.0
        for length in set(lengths):
            ring = [j for j in range(20) if away(i, j) == length]
            if ring:
                total += lengths.count(length) * sum(same[j] for j in ring) / len(ring)
                weight += lengths.count(length)
        matched.append(total / weight)
    for name, values in (("accuracy", right), ("neighbour", near), ("random", anywhere), ("matched", matched)):
        assert getattr(found, name) == pytest.approx(sum(values) / len(values)), name
    assert found.distance == pytest.approx(sum(length**0.5 for length in lengths) / len(lengths))
    assert found.tokens == len(scored) and found.gain == pytest.approx(found.accuracy - found.matched)
    assert found.kappa == pytest.approx((found.accuracy - found.matched) / (1 - found.matched))


def test_a_tree_of_places_gains_nothing():
    """Parents at a fixed distance in a random direction: on average no better than the matched rate."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(400, 8, 8, dtype=torch.long)
    corner = torch.randint(0, 5, (400, 2), generator=generator)
    for b, (r, c) in enumerate(corner.tolist()):
        labels[b, r : r + 3, c : c + 3] = 1
    places = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    pick = torch.randint(4, (400, 64), generator=generator)
    to = places + torch.tensor([(0, 2), (2, 0), (0, -2), (-2, 0)])[pick]
    inside = ((to >= 0) & (to < 8)).all(-1)
    parents = torch.where(inside, to[..., 0] * 8 + to[..., 1], -1)
    found = attachment(parents, labels.flatten(1), (8, 8))
    assert abs(found.gain) < 0.02 and found.distance == pytest.approx(2.0)
    assert found.neighbour > found.accuracy > found.random


def test_a_tree_of_objects_is_always_right():
    labels = torch.tensor([[0, 1, 1, 2, 2, 2]])
    found = attachment(torch.tensor([[-1, 2, 1, 4, 3, 4]]), labels, (2, 3))
    assert found.accuracy == found.kappa == 1.0 and found.tokens == 5
    assert attachment(torch.tensor([[-1, 0, 0, 0, 0, 0]]), labels, (2, 3)).accuracy == 0.0
    half = attachment(torch.tensor([[-1, 2, 0, 4, 3, 4]]), labels, (2, 3), labels == 1)
    assert half.accuracy == 0.5 and half.tokens == 2


def test_parts_climb_out_of_themselves():
    labels = torch.tensor([[1, 1, 1, 1, 0, 2]])
    parts = torch.tensor([[1, 2, 2, 3, 0, 2]])
    # 2 -> 1 (same part) -> 0 (body): right. 1 -> 0: right. 3 -> 4 (background): wrong. 5: root, never outside.
    assert part_to_whole(torch.tensor([[4, 0, 1, 4, 5, -1]]), labels, parts) == 0.5
    # another part of the same object is outside the part, and right
    assert part_to_whole(torch.tensor([[4, 3, 1, 0, 5, -1]]), labels, parts) == 0.75


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 30), st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6))
def test_adjusted_rand_is_scikit_learn_s(count, one, other, seed):
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randint(k, (count,), generator=generator) * 3 for k in (one, other))
    expected = adjusted_rand_score(first.numpy(), second.numpy())
    assert adjusted_rand(first, second) == pytest.approx(expected, abs=1e-9)


def test_subtrees_as_objects():  # the second image has one object and is left out
    labels = torch.tensor([[0, 1, 1, 2, 2, 0], [0, 0, 1, 1, 1, 1]])
    assert subtree_rand(torch.tensor([[9, 3, 3, 7, 7, 3], [0, 1, 2, 3, 4, 5]]), labels) == 1.0
    assert subtree_rand(torch.tensor([[0, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5]]), labels) == 0.0


def test_bad_input():
    parents, labels, grid = _random()
    with pytest.raises(ValueError, match="labels"):
        attachment(parents, labels[:, :4], grid)
    with pytest.raises(ValueError, match="grid"):
        attachment(parents, labels, (3, 5))
    with pytest.raises(ValueError, match="parents"):
        attachment(parents + 15, labels, grid)
    with pytest.raises(ValueError, match="at least one token"):
        attachment(parents, labels * 0, grid)
    with pytest.raises(ValueError, match="counted"):
        attachment(parents, labels, grid, labels[:2] > 0)
    with pytest.raises(ValueError, match="of a part"):
        part_to_whole(parents, labels, labels.clamp_max(1))
    with pytest.raises(ValueError, match="second"):
        adjusted_rand(torch.arange(3), torch.arange(4))
    with pytest.raises(ValueError, match="two things"):
        adjusted_rand(torch.arange(1), torch.arange(1))
    with pytest.raises(ValueError, match="two objects"):
        subtree_rand(labels, labels.clamp_max(1))
    with pytest.raises(TypeError, match="whole numbers"):
        attachment(parents.float(), labels, grid)
    with pytest.raises(TypeError, match="labels"):
        part_to_whole(parents, labels.numpy(), labels)
    for score in (lambda p, y: attachment(p, y, grid), lambda p, y: part_to_whole(p, y, y)):
        with pytest.raises(ValueError, match="at least one tree"):
            score(parents[:0], labels[:0])
