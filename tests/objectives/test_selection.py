"""Claims about patch_selection_loss, one test each.

- It equals a NumPy loop; ln K for equal scores; the order of the hidden patches and images does not matter.
- Ties bound it: of two equal candidates nobody can choose, ln 2. More distractors never cost less.
- With queries "pooled + place" the pooled vector shifts a candidate's score alike for every question.
- Gradients reach queries and keys; float32 under autocast; bad input is refused.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from sslcore.objectives import patch_selection_loss


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(batch=st.integers(1, 3), questions=st.integers(1, 5), extra=st.integers(0, 3), width=st.integers(1, 4),
       scale=st.floats(0.1, 3.0), seed=st.integers(0, 1000))  # fmt: skip
def test_equals_the_loop(batch, questions, extra, width, scale, seed):
    extra = max(extra, 2 - questions)
    q, k = draw(batch, questions, width, seed=seed), draw(batch, questions + extra, width, seed=seed + 1)
    costs = []
    for b in range(batch):
        for t in range(questions):
            scores = [scale * float(np.dot(q[b, t].numpy(), row)) for row in k[b].numpy()]
            costs.append(logsumexp(scores) - scores[t])
    assert patch_selection_loss(q, k, scale).item() == pytest.approx(np.mean(costs), abs=1e-9)
    assert patch_selection_loss(0 * q, k).item() == pytest.approx(math.log(questions + extra))


@given(seed=st.integers(0, 1000))
def test_order_of_patches_and_images_does_not_matter(seed):
    q, k = draw(4, 5, 3, seed=seed), draw(4, 5, 3, seed=seed + 1)
    patches, images = (torch.randperm(n, generator=torch.Generator().manual_seed(seed)) for n in (5, 4))
    expected = patch_selection_loss(q, k)
    torch.testing.assert_close(patch_selection_loss(q[:, patches], k[:, patches]), expected)
    torch.testing.assert_close(patch_selection_loss(q[images], k[images]), expected)
    torch.testing.assert_close(patch_selection_loss(q, k + draw(4, 1, 3)), expected)
    assert patch_selection_loss(q, torch.cat([k, draw(4, 2, 3)], 1)) > expected


def test_equal_candidates_cannot_be_told_apart():
    keys = torch.eye(4)[None].clone()
    keys[0, 1] = keys[0, 0]
    queries = (60 * keys).clone().requires_grad_()
    assert patch_selection_loss(queries, keys).item() == pytest.approx(math.log(2) / 2, abs=1e-6)
    (gradient,) = torch.autograd.grad(patch_selection_loss(queries, keys), queries)
    assert gradient.abs().max() < 1e-6  # nothing left to gain


def test_pooled_vector_shifts_a_candidate_alike_for_all_questions():
    pooled, other, places, keys = draw(2, 1, 4), draw(2, 1, 4, seed=1), draw(2, 3, 4, seed=2), draw(2, 3, 4, seed=3)
    change = (pooled + places) @ keys.mT - (other + places) @ keys.mT  # (B, questions, candidates)
    torch.testing.assert_close(change, change[:, :1].expand_as(change))


def test_both_sides_learn_and_the_gradient_is_right():
    q, k = draw(2, 3, 4).requires_grad_(), draw(2, 4, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: patch_selection_loss(a, b, 0.5), (q, k))
    patch_selection_loss(q, k).backward()
    assert bool((q.grad.norm(dim=2) > 0).all()) and bool((k.grad.norm(dim=2) > 0).all())


def test_float32_under_autocast():
    q, k = torch.randn(2, 2, 3, 8)
    expected = patch_selection_loss(q, k)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(patch_selection_loss(q, k), expected)
    half = patch_selection_loss(q.bfloat16(), k.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, atol=3e-2, rtol=0)


GOOD = torch.randn(2, 3, 4)


@pytest.mark.parametrize(
    ("q", "k", "scale", "error", "said"),
    [
        (GOOD[0], GOOD, 1.0, ValueError, "queries: expected 3 dimensions"),
        (GOOD, GOOD[:, :2], 1.0, ValueError, r"keys: expected \(2, K >= 3, 4\)"),
        (GOOD, GOOD[..., :2], 1.0, ValueError, "keys: expected"),
        (GOOD, GOOD[:1], 1.0, ValueError, "keys: expected"),
        (GOOD[:, :1], GOOD[:, :1], 1.0, ValueError, "K >= 2"),
        (GOOD[:0], GOOD[:0], 1.0, ValueError, "expected none empty"),
        (GOOD, GOOD, 0.0, ValueError, "scale: expected a finite number above 0"),
        (GOOD, GOOD * torch.nan, 1.0, ValueError, "NaN"),
        (GOOD.long(), GOOD, 1.0, TypeError, "floating-point"),
    ],
)
def test_bad_input_is_refused(q, k, scale, error, said):
    with pytest.raises(error, match=said):
        patch_selection_loss(q, k, scale)
