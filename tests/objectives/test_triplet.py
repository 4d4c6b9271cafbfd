"""Claims about mine_negatives and mined_triplet_loss.

- One triplet costs what torch's TripletMarginWithDistanceLoss says; with room for all negatives the loss is the sum of
  all active hinges in a NumPy loop over the fixed divisor.
- Equal embeddings cost the margin; a satisfied batch costs 0 without a gradient; lengths and order do not matter.
- Mining takes hard ones from the hardest and the rest from the others, and never a pair of the same label.
- Two ranks give the loss and the gradient of the whole batch. Bad input is refused.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sslcore.objectives import mine_negatives, mined_triplet_loss


def batch(num: int = 6, dim: int = 5, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, num, dim, generator=generator, dtype=torch.float64)
    return first, second, torch.rand(num, 2, generator=generator)


def loop(first, second, labels, margin, num_negatives):
    """All candidates whose hinge is active at the first anchor, at both anchors, over the fixed divisor."""
    u, v = (x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in (first, second))
    total = 0.0
    for i in range(len(u)):
        pull = 1 - u[i] @ v[i]
        for j in range(len(u)):
            for candidate in (u[j], v[j]):
                if labels[j] != labels[i] and pull - (1 - u[i] @ candidate) + margin > 0:
                    total += max(0.0, pull - (1 - u[i] @ candidate) + margin)
                    total += max(0.0, pull - (1 - v[i] @ candidate) + margin)
    return total / (2 * num_negatives * len(u))


@pytest.mark.parametrize("margin", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 2, 3], [7] * 6])
def test_with_room_for_all_it_equals_the_loop(labels, margin):
    first, second, draws = batch()
    got = mined_triplet_loss(first, second, torch.tensor(labels), draws, margin, num_negatives=12)
    assert got.item() == pytest.approx(loop(first, second, labels, margin, 12), rel=1e-9, abs=1e-12)


def test_one_triplet_equals_torch():
    distance = torch.nn.TripletMarginWithDistanceLoss(
        distance_function=lambda a, b: 1 - F.cosine_similarity(a, b), margin=0.5, reduction="none"
    )
    for seed in range(20):
        first, second, draws = batch(2, seed=seed)
        candidates = torch.stack([first[1], second[1], first[0], second[0]])
        expected = 0.0
        for i, others in ((0, candidates[:2]), (1, candidates[2:])):
            for other in others:
                at_first = distance(first[i : i + 1], second[i : i + 1], other[None])
                at_second = distance(second[i : i + 1], first[i : i + 1], other[None])
                expected += (at_first + at_second * (at_first > 0)).sum()
        got = mined_triplet_loss(first, second, None, draws, num_negatives=2)
        torch.testing.assert_close(got, torch.as_tensor(expected) / (2 * 2 * 2), atol=1e-9, rtol=1e-9)


@given(margin=st.floats(0.05, 1.5), num=st.integers(1, 8), seed=st.integers(0, 20))
def test_equal_embeddings_cost_the_margin(margin, num, seed):
    row = torch.randn(1, 4, generator=torch.Generator().manual_seed(seed)).expand(9, 4)
    loss = mined_triplet_loss(row, 3 * row, margin=margin, num_negatives=num)
    assert loss.item() == pytest.approx(margin, rel=1e-4)


def test_a_satisfied_batch_is_free():
    corners = torch.eye(5, requires_grad=True)
    loss = mined_triplet_loss(corners, 2 * corners, margin=1.0)
    loss.backward()
    assert loss == 0 and not corners.grad.any()


@given(seed=st.integers(0, 50))
def test_directions_only_and_in_any_order(seed):
    first, second, draws = batch(seed=seed)
    labels = torch.tensor([0, 0, 1, 2, 3, 3])
    value = mined_triplet_loss(first, second, labels, draws, num_negatives=3)
    lengths = torch.rand(6, 1, dtype=torch.float64) + 0.1
    longer = mined_triplet_loss(first * lengths, second / lengths, labels, draws, num_negatives=3)
    torch.testing.assert_close(longer, value)
    order = torch.randperm(6)
    moved = mined_triplet_loss(first[order], second[order], labels[order], draws[order], num_negatives=3)
    torch.testing.assert_close(moved, value)


def test_gradients_equal_finite_differences_on_both_sides():
    first, second, draws = batch()
    first.requires_grad_(), second.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: mined_triplet_loss(a, b, None, draws), (first, second))
    assert not mine_negatives(first @ first.T, torch.ones(6, 6, dtype=torch.bool), torch.rand(6, 6), 3).requires_grad


@pytest.mark.parametrize("num, hard_ratio, hard", [(4, 0.5, 2), (4, 0.0, 0), (4, 1.0, 4), (5, 0.5, 2)])
def test_mining_mixes_hard_ones_with_others(num, hard_ratio, hard):
    similarity, lottery = torch.rand(30, 20), torch.rand(30, 20)
    eligible = torch.rand(30, 20) < 0.8
    chosen = mine_negatives(similarity, eligible, lottery, num, hard_ratio)
    assert not (chosen & ~eligible).any()
    for row in range(30):
        able = eligible[row].nonzero()[:, 0].tolist()
        ranked = sorted(able, key=lambda j: -similarity[row, j])
        pool, rest = ranked[:num], ranked[num:]
        pool, rest = (sorted(part, key=lambda j: lottery[row, j]) for part in (pool, rest))
        assert sorted(pool[:hard] + rest[: num - hard]) == chosen[row].nonzero()[:, 0].tolist()


def test_few_candidates_are_all_taken_and_missing_ones_count_as_zero():
    eligible = torch.zeros(2, 9, dtype=torch.bool)
    eligible[0, :3] = True
    assert mine_negatives(torch.rand(2, 9), eligible, torch.rand(2, 9), 4).equal(eligible)
    same = torch.ones(2, 3)
    assert mined_triplet_loss(same, same, margin=0.5, num_negatives=8).item() == pytest.approx(0.5 * 2 / 8)
    assert mined_triplet_loss(same, same, torch.zeros(2, dtype=torch.long)) == 0


def test_random_negatives_are_evenly_drawn():
    """By lot alone every candidate comes up equally often."""
    counts = torch.zeros(16)
    for _ in range(400):
        lots = torch.rand(8, 2).flatten()
        lottery = (lots - lots[0]).remainder(1)
        able = torch.arange(16)[None] >= 2
        counts += mine_negatives(torch.rand(1, 16), able, lottery[None], 3, 0.0)[0]
    assert counts[:2].sum() == 0 and (counts[2:] / counts[2:].mean() - 1).abs().max() < 0.4


def test_half_precision_and_autocast_stay_in_float32():
    first, second, draws = (x.float() for x in batch())
    expected = mined_triplet_loss(first, second, None, draws)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert mined_triplet_loss(first, second, None, draws) == expected
    assert mined_triplet_loss(first.half(), second.half(), None, draws).dtype == torch.float32


GOOD = torch.randn(4, 3)
BAD = {
    "first: expected 2 dimensions": (GOOD[0], GOOD, {}),
    "expected equal shapes": (GOOD, GOOD[:3], {}),
    "expected finite": (GOOD, GOOD * math.nan, {}),
    "expected at least one row": (GOOD[:0], GOOD[:0], {}),
    "margin": (GOOD, GOOD, {"margin": 0.0}),
    "num_negatives": (GOOD, GOOD, {"num_negatives": 0}),
    "hard_ratio": (GOOD, GOOD, {"hard_ratio": 1.5}),
    "labels: expected 4, one a pair": (GOOD, GOOD, {"labels": torch.zeros(3)}),
    "draws: expected": (GOOD, GOOD, {"draws": torch.zeros(4)}),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused(message):
    first, second, settings = BAD[message]
    with pytest.raises(ValueError, match=message):
        mined_triplet_loss(first, second, **settings)
    with pytest.raises(TypeError, match="floating"):
        mined_triplet_loss(GOOD.long(), GOOD.long())


def test_bad_candidates_are_refused():
    similarity, eligible = torch.rand(3, 5), torch.ones(3, 5, dtype=torch.bool)
    for other, lottery, settings, message in (
        (eligible[:2], similarity, {}, "similarity and eligible"),
        (eligible, similarity[:, :4], {}, "similarity and lottery"),
        (eligible, similarity, {"num": 0}, "num"),
        (eligible, similarity, {"hard_ratio": 1.5}, "hard_ratio"),
    ):
        with pytest.raises(ValueError, match=message):
            mine_negatives(similarity, other, lottery, **{"num": 2, **settings})
    with pytest.raises(TypeError, match="boolean"):
        mine_negatives(similarity, eligible.long(), similarity, 2)
