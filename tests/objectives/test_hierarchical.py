"""Claims about hierarchical_cross_entropy, one test each.

- It equals a loop in NumPy, and -log of a joint distribution over all S * K pairs that sums to one.
- K = 1 leaves the cross-entropy of the super-class, S = 1 that of the sub-class, the other term exactly 0.
- Equal logits give ln S + ln K; renaming the subs inside one super-class changes nothing.
- Only the head of the row's own super-class gets a gradient; gradients are those of finite differences.
- bfloat16 and autocast change no more than rounding does; wrong shapes, labels, types and NaN are refused.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sslcore.objectives import hierarchical_cross_entropy


def case(batch=6, num_super=4, num_sub=5, dtype=torch.float64, seed=0):
    random = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, num_super, dtype=dtype, generator=random),
        torch.randn(batch, num_super, num_sub, dtype=dtype, generator=random),
        torch.randint(num_super, (batch,), generator=random),
        torch.randint(num_sub, (batch,), generator=random),
    )


def slow(super_logits, sub_logits, supers, subs):
    losses = []
    for v, w, s, z in zip(*(part.numpy() for part in (super_logits, sub_logits, supers, subs)), strict=True):
        p = np.exp(v) / np.exp(v).sum()
        q = np.exp(w[s]) / np.exp(w[s]).sum()
        losses.append((-np.log(p[s]), -np.log(q[z])))
    return np.mean(losses, axis=0)


@given(st.integers(1, 7), st.integers(1, 5), st.integers(1, 6), st.integers(0, 1000))
def test_equals_the_loop(batch, num_super, num_sub, seed):
    terms = hierarchical_cross_entropy(*case(batch, num_super, num_sub, seed=seed))
    super_class, sub_class = slow(*case(batch, num_super, num_sub, seed=seed))
    assert float(terms.super_class) == pytest.approx(super_class, abs=1e-10)
    assert float(terms.sub_class) == pytest.approx(sub_class, abs=1e-10)
    assert float(terms.total) == pytest.approx(super_class + sub_class, abs=1e-10)


def test_is_one_distribution_over_all_pairs():
    super_logits, sub_logits, _, _ = case(batch=1)
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(5))[:, :, None]
    losses = [hierarchical_cross_entropy(super_logits, sub_logits, s, z).total for s, z in pairs]
    assert sum(math.exp(-float(loss)) for loss in losses) == pytest.approx(1.0)


def test_one_sub_class_is_the_rotation_loss():
    super_logits, sub_logits, supers, subs = case(num_sub=1)
    terms = hierarchical_cross_entropy(super_logits, sub_logits, supers, subs)
    assert float(terms.sub_class) == 0.0
    torch.testing.assert_close(terms.total, F.cross_entropy(super_logits, supers))


def test_one_super_class_is_the_cluster_loss():
    super_logits, sub_logits, supers, subs = case(num_super=1)
    terms = hierarchical_cross_entropy(super_logits, sub_logits, supers, subs)
    assert float(terms.super_class) == 0.0
    torch.testing.assert_close(terms.total, F.cross_entropy(sub_logits[:, 0], subs))


def test_equal_logits_give_the_logarithms():
    _, _, supers, subs = case()
    terms = hierarchical_cross_entropy(torch.zeros(6, 4), torch.zeros(6, 4, 5), supers, subs)
    assert float(terms.total) == pytest.approx(math.log(4) + math.log(5), rel=1e-6)


def test_names_of_subs_mean_something_inside_one_super_only():
    super_logits, sub_logits, supers, subs = case(batch=40)
    order = torch.tensor([3, 1, 4, 0, 2])
    moved, renamed = sub_logits.clone(), subs.clone()
    moved[:, 2] = sub_logits[:, 2][:, order]
    renamed[supers == 2] = order.argsort()[subs[supers == 2]]
    before = hierarchical_cross_entropy(super_logits, sub_logits, supers, subs)
    torch.testing.assert_close(hierarchical_cross_entropy(super_logits, moved, supers, renamed), before)


def test_gradients():
    super_logits, sub_logits, supers, subs = case()
    leaves = super_logits.requires_grad_(), sub_logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda v, w: hierarchical_cross_entropy(v, w, supers, subs).total, leaves)
    (grad,) = torch.autograd.grad(hierarchical_cross_entropy(*leaves, supers, subs).total, leaves[1])
    own = F.one_hot(supers, 4).bool()
    assert not grad[~own].any() and grad[own].any(1).all()


def test_half_precision_and_autocast():
    super_logits, sub_logits, supers, subs = case(dtype=torch.bfloat16)
    exact = hierarchical_cross_entropy(super_logits.float(), sub_logits.float(), supers, subs)
    with torch.autocast("cpu", torch.bfloat16):
        terms = hierarchical_cross_entropy(super_logits, sub_logits, supers, subs)
    assert all(term.dtype == torch.float32 for term in terms)
    torch.testing.assert_close(terms, exact)


@pytest.mark.parametrize(
    ("place", "value", "error", "message"),
    [
        (0, torch.randn(6, 3), ValueError, r"expected \(B, S\) and \(B, S, K\)"),
        (0, torch.randn(5, 4), ValueError, r"expected \(B, S\) and \(B, S, K\)"),
        (0, torch.randn(6), ValueError, "super_logits: expected 2 dimensions"),
        (0, torch.full((6, 4), torch.nan), ValueError, "24 NaN"),
        (0, torch.ones(6, 4, dtype=torch.long), TypeError, "floating-point"),
        (1, torch.randn(6, 4), ValueError, "sub_logits: expected 3 dimensions"),
        (2, torch.full((6,), 4), ValueError, r"supers: expected values in \[0, 4\), got 4 to 4"),
        (2, torch.zeros(6), TypeError, "supers: expected whole numbers"),
        (3, torch.full((6,), -1), ValueError, r"subs: expected values in \[0, 5\)"),
        (3, torch.zeros(5, dtype=torch.long), ValueError, "subs: expected 6, one a row, got 5"),
    ],
)
def test_bad_input_is_refused(place, value, error, message):
    arguments = list(case(dtype=torch.float32))
    arguments[place] = value
    with pytest.raises(error, match=message):
        hierarchical_cross_entropy(*arguments)


def test_an_empty_batch_is_refused():
    none = torch.zeros(0, dtype=torch.long)
    with pytest.raises(ValueError, match="at least one value"):
        hierarchical_cross_entropy(torch.zeros(0, 2), torch.zeros(0, 2, 3), none, none)
