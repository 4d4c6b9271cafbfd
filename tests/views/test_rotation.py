"""Quarter turns: each image by its own, exact, a group of four, the same as NumPy's; wrong input is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sslcore.views import rotate_quarters


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.sampled_from([1, 3]), st.integers(1, 7))
def test_each_image_turns_by_its_own_number(quarters, channels, side):
    images = torch.rand(len(quarters), channels, side, side)
    turned = rotate_quarters(images, torch.tensor(quarters))
    for image, new, number in zip(images.numpy(), turned.numpy(), quarters, strict=True):
        assert np.array_equal(new, np.rot90(image, number, axes=(1, 2)))
    back = rotate_quarters(turned, (4 - torch.tensor(quarters)) % 4)
    assert torch.equal(back, images)


def test_uint8_stays_uint8():
    assert rotate_quarters(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 3])).dtype == torch.uint8


@pytest.mark.parametrize(
    ("shape", "quarters", "error", "message"),
    [
        ((2, 1, 4, 5), torch.tensor([0, 1]), ValueError, "expected square"),
        ((2, 1, 4, 4), torch.tensor([0]), ValueError, "expected 2, one an image"),
        ((2, 1, 4, 4), torch.tensor([0, 4]), ValueError, "expected 0 to 3, got 0 to 4"),
        ((2, 1, 4, 4), torch.tensor([0.0, 1.0]), TypeError, "whole numbers"),
        ((2, 1, 4, 4), torch.tensor([[0, 1]]), ValueError, "expected 1 dimensions"),
        ((2, 2, 4, 4), torch.tensor([0, 1]), ValueError, "1 or 3 channels"),
    ],
)
def test_bad_input_is_refused(shape, quarters, error, message):
    with pytest.raises(error, match=message):
        rotate_quarters(torch.rand(shape), quarters)
