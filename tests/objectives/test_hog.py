"""Claims about hog_targets, one test each.

- It equals a loop over pixels, and scikit-image where the definitions meet: on images that are a sum of a row and a
  column profile, read with rows and columns exchanged.
- Cells have length one, so a zero predictor scores exactly 1/9; flat cells are zero.
- Gain and offset of a colour change nothing, not even a negative gain; without normalize the gain shows.
- Ramps fall into known bins; exchanging colours exchanges blocks; patches are in patchify's order.
- Half precision is computed in float32, no gradient flows, and bad input is refused.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from skimage.feature import hog

from sslcore.objectives import hog_targets


def slow_hog(image: np.ndarray, patch: int, cell: int, bins: int) -> np.ndarray:
    channels, height, width = image.shape
    mirror = lambda i, size: -i if i < 0 else 2 * size - 2 - i if i >= size else i  # noqa: E731
    histogram = np.zeros((channels, bins, height // cell, width // cell))
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                near = np.array([[image[c, mirror(y + dy, height), mirror(x + dx, width)] for dx in (-1, 0, 1)]
                                 for dy in (-1, 0, 1)])  # fmt: skip
                gx = near[:, 0] @ [1, 2, 1] - near[:, 2] @ [1, 2, 1]
                gy = near[0] @ [1, 2, 1] - near[2] @ [1, 2, 1]
                place = math.floor(bins * math.atan2(gx, gy) / math.pi) % bins
                histogram[c, place, y // cell, x // cell] += math.hypot(gx, gy)
    norms = np.sqrt((histogram**2).sum(axis=1, keepdims=True))
    histogram /= np.where(norms > 0, norms, 1)
    side = patch // cell
    return np.stack([
        histogram[:, :, i * side : (i + 1) * side, j * side : (j + 1) * side].flatten()
        for i in range(height // patch) for j in range(width // patch)
    ])  # fmt: skip


@pytest.mark.parametrize(("patch", "cell", "bins"), [(4, 4, 9), (8, 4, 9), (8, 2, 5), (2, 1, 1)])
def test_equals_the_loop(patch, cell, bins):
    images = torch.randn(2, 3, 8, 16, dtype=torch.float64)
    result = hog_targets(images, patch, cell, bins)
    assert result.dtype == torch.float64
    for image, targets in zip(images, result, strict=True):
        np.testing.assert_allclose(targets.numpy(), slow_hog(image.numpy(), patch, cell, bins), atol=1e-9)


def test_equals_scikit_image_where_the_definitions_meet():
    for _ in range(5):
        image = torch.randn(24, 1, dtype=torch.float64) + torch.randn(1, 32, dtype=torch.float64)
        theirs = hog(
            image.T.numpy(), 9, (8, 8), (1, 1), block_norm="L2", feature_vector=False, transform_sqrt=False
        ).reshape(4, 3, 9)  # columns first
        ours = hog_targets(image[None, None], 8, 8).reshape(3, 4, 9).transpose(0, 1)
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)


def test_the_zero_predictor_scores_one_ninth_and_flat_cells_are_zero():
    targets = hog_targets(torch.rand(2, 3, 32, 32))
    assert targets.shape == (2, 4, 108)
    torch.testing.assert_close(F.mse_loss(torch.zeros_like(targets), targets), torch.tensor(1 / 9))
    torch.testing.assert_close(targets.reshape(2, 4, 3, 9, 4).norm(dim=3), torch.ones(2, 4, 3, 4))
    assert (hog_targets(torch.full((1, 3, 16, 16), 0.7)) == 0).all()


@given(gain=st.sampled_from([-3.0, -0.01, 0.02, 100.0]), offset=st.floats(-5, 5), seed=st.integers(0, 99))
def test_gain_and_offset_change_nothing(gain, offset, seed):
    images = torch.randn(1, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    targets = hog_targets(images, 8, 4)
    torch.testing.assert_close(hog_targets(images * gain + offset, 8, 4), targets, rtol=1e-6, atol=1e-6)
    bare = [hog_targets(x, 8, 4, normalize=False) for x in (images, images * gain)]
    torch.testing.assert_close(bare[1], bare[0] * abs(gain))


def test_ramps_colours_and_the_order_of_patches():
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    for image, place in ((ramp, 4), (ramp.transpose(2, 3), 0)):
        histogram = hog_targets(image, 16, 8).reshape(9, 4)
        assert (histogram[place] == 1).all() and histogram.sum() == 4
    images = torch.randn(1, 3, 16, 32)
    swapped = hog_targets(images.flip(1)).reshape(1, 2, 3, 36)
    torch.testing.assert_close(swapped.flip(2).reshape(1, 2, 108), hog_targets(images))
    picture = torch.zeros(1, 1, 32, 48)
    picture[..., 16:32, 16:32] = torch.randn(16, 16)
    lengths = hog_targets(picture, normalize=False).sum(dim=2)[0]
    assert lengths.argmax() == 4  # row 1 of 2, column 1 of 3


def test_precision_and_gradient():
    images = torch.rand(1, 3, 16, 16, requires_grad=True)
    assert not hog_targets(images).requires_grad
    half = images.detach().bfloat16()
    targets = hog_targets(half)
    assert targets.dtype == torch.float32 and torch.equal(targets, hog_targets(half.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(hog_targets(images), hog_targets(images.detach()))


@pytest.mark.parametrize(
    ("images", "options", "error", "message"),
    [
        (torch.rand(3, 16, 16), {}, ValueError, "4 dimensions"),
        (torch.rand(0, 3, 16, 16), {}, ValueError, "at least one value"),
        (torch.rand(1, 3, 16, 20), {}, ValueError, "divisor of the sides 16 x 20"),
        (torch.rand(1, 3, 16, 16), {"cell_size": 5}, ValueError, "multiple of cell_size 5"),
        (torch.rand(1, 3, 16, 16), {"cell_size": 0}, ValueError, "cell_size"),
        (torch.rand(1, 3, 16, 16), {"num_bins": 0}, ValueError, "num_bins"),
        (torch.rand(1, 3, 1, 1), {"patch_size": 1, "cell_size": 1}, ValueError, "at least 2"),
        (torch.full((1, 3, 16, 16), math.nan), {}, ValueError, "finite"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), {}, TypeError, "floating"),
        ("image", {}, TypeError, "torch.Tensor"),
    ],
)
def test_bad_input_is_refused(images, options, error, message):
    with pytest.raises(error, match=message):
        hog_targets(images, **options)
