"""few_labels: exactly that many of each class, nested, seeded; bad input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sslcore.data import few_labels


@given(classes=st.integers(1, 5), each=st.integers(1, 4), spare=st.integers(0, 3), seed=st.integers(0, 99))
def test_every_class_gets_its_share_and_larger_budgets_contain_smaller(classes, each, spare, seed):
    labels = torch.arange(classes).repeat(each + spare)
    index = few_labels(labels, each, seed)
    assert labels[index].bincount(minlength=classes).tolist() == [each] * classes
    assert index.tolist() == sorted(set(index.tolist()))
    assert set(few_labels(labels, 1, seed).tolist()) <= set(index.tolist())
    assert torch.equal(index, few_labels(labels, each, seed))


def test_another_seed_chooses_others_and_absent_numbers_are_no_classes():
    labels = torch.tensor([0, 4]).repeat(50)
    assert not torch.equal(few_labels(labels, 5, 0), few_labels(labels, 5, 1))
    assert labels[few_labels(labels, 5)].unique().tolist() == [0, 4]


def test_bad_input():
    with pytest.raises(ValueError, match="class 1: expected at least 2 images, got 1"):
        few_labels(torch.tensor([0, 0, 1]), 2)
    with pytest.raises(ValueError, match="per_class: expected at least 1, got 0"):
        few_labels(torch.tensor([0, 0]), 0)
    with pytest.raises(ValueError, match="labels: expected at least one"):
        few_labels(torch.tensor([], dtype=torch.long), 1)
    with pytest.raises(ValueError, match="labels"):
        few_labels(torch.zeros(3, 2), 1)
