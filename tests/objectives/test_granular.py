"""Claims about granular_nce, granular_clustering and mugs_total.

- Both losses equal loops in NumPy and lightly over pairs of different crops; large and small pairs weigh (a + b) / 2.
- Equal embeddings cost ln(K + 1), equal logits ln K; without small crops nothing is divided by zero.
- The teacher's logits get no gradient. The total is a true weighted mean. Bad input is refused.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightly.loss import DINOLoss

from sslcore.objectives import dino_loss, granular_clustering, granular_nce, info_nce, mugs_total

CROPS = [(2, 2), (2, 3), (2, 6), (3, 5)]


def crops(num_teacher: int, num_student: int, dim: int = 5, batch: int = 4):
    generator = torch.Generator().manual_seed(num_student)
    student = torch.randn(num_student, batch, dim, generator=generator, dtype=torch.float64)
    teacher = torch.randn(num_teacher, batch, dim, generator=generator, dtype=torch.float64)
    return student, teacher, torch.randn(7, dim, generator=generator, dtype=torch.float64)


def split_mean(cost, num_teacher: int, num_student: int) -> float:
    """Half the mean over large pairs and half the mean over small ones, or the large ones alone."""
    large = [cost(t, v) for t in range(num_teacher) for v in range(num_teacher) if v != t]
    small = [cost(t, v) for t in range(num_teacher) for v in range(num_teacher, num_student)]
    return (np.mean(large) + np.mean(small)) / 2 if small else np.mean(large)


@pytest.mark.parametrize(("num_teacher", "num_student"), CROPS)
def test_nce_equals_the_loop(num_teacher, num_student):
    queries, keys, negatives = crops(num_teacher, num_student)
    q, k, n = (x.numpy() / np.linalg.norm(x.numpy(), axis=-1, keepdims=True) for x in (queries, keys, negatives))

    def cost(t, v):
        rows = []
        for b in range(4):
            logits = np.array([q[v, b] @ k[t, b], *(q[v, b] @ row for row in n)]) / 0.2
            rows.append(np.log(np.exp(logits).sum()) - logits[0])
        return np.mean(rows)

    got = granular_nce(queries, keys, negatives).item()
    assert got == pytest.approx(split_mean(cost, num_teacher, num_student), rel=1e-9)


@pytest.mark.parametrize(("num_teacher", "num_student"), CROPS)
def test_clustering_equals_lightly_pair_by_pair(num_teacher, num_student):
    student, teacher, _ = crops(num_teacher, num_student)
    center = torch.linspace(-1, 1, 5, dtype=torch.float64)
    reference = DINOLoss(output_dim=5, student_temp=0.1, teacher_temp=0.04).double()

    def cost(t, v):
        reference.center.copy_(center)
        # lightly leaves out pairs of equal place, so the second of two student crops meets the one teacher crop
        return reference([teacher[t]], [student[v], student[v]]).item()

    got = granular_clustering(student, teacher, center).item()
    assert got == pytest.approx(split_mean(cost, num_teacher, num_student), rel=1e-6)


def test_large_and_small_pairs_weigh_the_same():
    """With every large pair costing a and every small one b, the result is (a + b) / 2; DINO's mean is another."""
    corners = torch.eye(3, dtype=torch.float64)
    large, small = corners[0].expand(2, 1, 3), corners[1].expand(10, 1, 3)
    queries, keys, negatives = torch.cat([large, small]), corners[0].expand(2, 1, 3), corners[2:]
    a, b = (info_nce(q[0], keys[0], negatives, 0.2) for q in (large, small))
    torch.testing.assert_close(granular_nce(queries, keys, negatives), (a + b) / 2)
    zero = torch.zeros(3, dtype=torch.float64)
    a, b = (granular_clustering(q[:2], keys, zero) for q in (large, small))
    torch.testing.assert_close(granular_clustering(queries, keys, zero), (a + b) / 2)
    torch.testing.assert_close(dino_loss(queries, keys, zero), (2 * a + 20 * b) / 22)


@given(size=st.integers(1, 50), small=st.integers(0, 3))
def test_equal_embeddings_and_logits(size, small):
    row = torch.ones(2 + small, 3, 4)
    assert granular_nce(row, row[:2], torch.ones(size, 4)).item() == pytest.approx(math.log(size + 1), rel=1e-4)
    logits = torch.full((2 + small, 3, size), 2.0)
    assert granular_clustering(logits, logits[:2], torch.zeros(size)).item() == pytest.approx(math.log(size), abs=1e-4)


def test_gradients_equal_finite_differences_and_stop_at_the_teacher():
    student, teacher, negatives = crops(2, 4)
    student.requires_grad_(), teacher.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: granular_nce(s, teacher.detach(), negatives), student)
    center = torch.zeros(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: granular_clustering(s, teacher, center, 0.5, 0.3), student)
    granular_clustering(student, teacher, center).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


@given(weights=st.tuples(*[st.floats(0, 5)] * 3).filter(lambda w: max(w) > 0.01))
def test_total_is_the_weighted_mean_and_the_sum_of_its_terms(weights):
    values = torch.tensor([3.0, 5.0, 11.0], dtype=torch.float64)
    terms = mugs_total(list(values), weights)
    expected = sum(w * v for w, v in zip(weights, values.tolist(), strict=True)) / sum(weights)
    assert terms.total.item() == pytest.approx(expected)
    assert sum(terms[:3]).item() == pytest.approx(expected)


def test_weights_do_what_their_name_says():
    """The public code gives 9.5 for weights 2, 1, 1: it uses them as switches and in the divisor only."""
    values = [torch.tensor(4.0), torch.tensor(8.0), torch.tensor(26.0)]
    assert mugs_total(values, (1, 1, 1)).total.item() == pytest.approx(38 / 3)
    assert mugs_total(values, (2, 1, 1)).total.item() == pytest.approx(42 / 4)
    assert mugs_total([values[0], None, values[2]], (1, 0, 3)).total.item() == pytest.approx(82 / 4)


def test_a_weight_of_zero_cuts_the_graph():
    leaves = [torch.tensor(float(n), requires_grad=True) for n in range(3)]
    mugs_total(leaves, (1, 0, 1)).total.backward()
    assert [leaf.grad for leaf in leaves[::2]] == [0.5, 0.5] and leaves[1].grad is None


X = torch.randn(3, 2, 4)
BAD = {
    "queries: expected 3 dimensions": lambda: granular_nce(X[0], X, X[0]),
    "keys: expected 3 dimensions": lambda: granular_nce(X, X[0], X[0]),
    "T >= 2": lambda: granular_nce(X, X[:1], X[0]),
    "V >= T": lambda: granular_clustering(X[:2], X, torch.zeros(4)),
    "expected finite": lambda: granular_nce(X * math.nan, X[:2], X[0]),
    "teacher_logits: expected 3 dimensions": lambda: granular_clustering(X, X[0], torch.zeros(4)),
    "three terms": lambda: mugs_total([torch.ones(())] * 2, (1, 1)),
    "none below 0": lambda: mugs_total([torch.ones(())] * 3, (1, 1, -1)),
    "and one above": lambda: mugs_total([torch.ones(())] * 3, (0, 0, 0)),
    "got none for number": lambda: mugs_total([None, torch.ones(()), torch.ones(())], (1, 1, 1)),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()
    with pytest.raises(TypeError, match="floating"):
        granular_nce(X.long(), X[:2].long(), X[0].long())
