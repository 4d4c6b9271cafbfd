"""ImageSet: what does not fit together is refused; subset and to carry everything along."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcore.data import ImageSet


def make(count=5, **changes):
    values = {
        "name": "toy",
        "split": "train",
        "images": torch.arange(count * 12, dtype=torch.uint8).reshape(count, 3, 2, 2),
        "labels": torch.arange(count) % 3,
        "classes": ["a", "b", "c"],
        "masks": torch.zeros(count, 2, 2, dtype=torch.uint8),
        "captions": [f"picture {i}" for i in range(count)],
        "extras": {"ids": torch.arange(count), "words": [str(i) for i in range(count)], "shared": ("x", "y")},
    }
    return ImageSet(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"images": torch.zeros(5, 2, 2, dtype=torch.uint8)}, ValueError, "4 dimensions"),
        ({"images": torch.zeros(5, 4, 2, 2, dtype=torch.uint8)}, ValueError, "1 or 3 channels"),
        ({"images": torch.zeros(5, 3, 2, 2)}, TypeError, "uint8"),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, ValueError, "expected 5"),
        ({"labels": torch.zeros(5)}, TypeError, "int64"),
        ({"labels": torch.tensor([0, 1, 2, 3, 0])}, ValueError, r"\[0, 3\)"),
        ({"masks": torch.zeros(5, 3, 2, dtype=torch.uint8)}, ValueError, "masks"),
        ({"masks": torch.zeros(5, 2, 2)}, TypeError, "uint8"),
        ({"captions": ["one"]}, ValueError, "captions"),
    ],
)
def test_refuses_what_does_not_fit(changes, error, words):
    with pytest.raises(error, match=words):
        make(**changes)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(-n, n - 1), max_size=12))))
def test_subset_takes_the_same_rows_everywhere(case):
    count, index = case
    part = make(count).subset(index)
    wanted = [i % count for i in index]
    assert part.extras["ids"].tolist() == wanted
    assert part.captions == [f"picture {i}" for i in wanted]
    assert part.extras["words"] == [str(i) for i in wanted]
    assert part.extras["shared"] == ("x", "y")
    assert part.images[:, 0, 0, 0].tolist() == [(12 * i) % 256 for i in wanted]
    assert part.labels.tolist() == [i % 3 for i in wanted]


def test_subset_by_slice_and_boolean():
    assert make().subset(slice(1, 4, 2)).extras["ids"].tolist() == [1, 3]
    assert make().subset(torch.tensor([True, False, False, True, False])).captions == ["picture 0", "picture 3"]
    with pytest.raises(ValueError, match="5 booleans"):
        make().subset(torch.tensor([True]))
    with pytest.raises(IndexError):
        make().subset([7])


def test_moves_and_prints():
    moved = make().to("meta")
    assert moved.images.device.type == moved.extras["ids"].device.type == "meta"
    assert "toy/train" in repr(make()) and "labels" in repr(make())
