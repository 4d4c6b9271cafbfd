"""Crops: equal to torchvision for whole-pixel boxes, same law as RandomResizedCrop, one box an image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tvf
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode, RandomResizedCrop

from sslcore.views import crop_resize, sample_crops
from sslcore.views.crops import resize_taps
from sslcore.views.filters import dense


def reference(images, crops, size, flip, antialias=True):
    views = []
    for image, crop, mirrored in zip(images, crops, flip, strict=True):
        top, left, height, width = (int(c) for c in crop)
        view = tvf.resized_crop(
            image, top, left, height, width, list(size), InterpolationMode.BILINEAR, antialias=antialias
        )
        views.append(view.flip(-1) if mirrored else view)
    return torch.stack(views)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(
    ("channels", "height", "width", "size"),
    [(1, 28, 28, (28, 28)), (3, 64, 64, (64, 64)), (3, 96, 80, (17, 23)), (3, 17, 23, (40, 31)), (1, 65, 33, (1, 7))],
)
def test_whole_pixel_boxes_match_torchvision(channels, height, width, size, antialias):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(12, channels, height, width, generator=generator)
    crops = sample_crops(12, height, width, (0.02, 1.0), generator=generator)
    crops[0] = torch.tensor([0, 0, height, width])
    crops[1] = torch.tensor([height - 1, width - 1, 1, 1])
    flip = torch.arange(12) % 2 == 0
    views = crop_resize(images, crops, size, flip, antialias=antialias)
    torch.testing.assert_close(views, reference(images, crops, size, flip, antialias), atol=1e-4, rtol=0)


def test_uint8_is_scaled_to_unit_range_without_rounding():
    images = torch.randint(0, 256, (5, 3, 20, 20), dtype=torch.uint8)
    crops = sample_crops(5, 20, 20)
    torch.testing.assert_close(crop_resize(images, crops, 20), crop_resize(images / 255, crops, 20), atol=1e-5, rtol=0)


def test_fractional_box_reads_at_its_true_place():
    ramp = torch.arange(32.0).expand(1, 1, 32, 32) + 0.5  # value = x coordinate of the pixel's centre
    view = crop_resize(ramp, torch.tensor([[4.25, 6.5, 16.0, 16.0]]), 16)
    expected = 6.5 + torch.arange(16) + 0.5
    torch.testing.assert_close(view[0, 0, 0, 1:-1], expected[1:-1], atol=1e-4, rtol=0)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.floats(0.01, 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_weights_are_an_average(pixels, size, place, share, mirrored):
    length = max(0.05, share * pixels)
    start = torch.tensor([place * (pixels - length)]).clamp(min=0)
    matrix = dense(resize_taps(start, torch.tensor([length]), pixels, size, torch.tensor([mirrored])), pixels)
    assert matrix.shape == (1, size, pixels)
    assert (matrix >= 0).all()
    torch.testing.assert_close(matrix.sum(2), torch.ones(1, size))


def test_gradient_reaches_the_pixels():
    images = torch.rand(2, 1, 6, 6, requires_grad=True)
    crop_resize(images, torch.tensor([[0.0, 0, 6, 6], [1, 1, 3, 3]]), 3).sum().backward()
    torch.testing.assert_close(images.grad.sum((1, 2, 3)), torch.tensor([9.0, 9.0]))
    assert images.grad[1, 0, 0].abs().max() == 0


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [(64, 64, (0.08, 1.0), (3 / 4, 4 / 3)), (28, 28, (0.2, 1.0), (3 / 4, 4 / 3)), (40, 90, (0.3, 1.0), (0.5, 1.0))],
)
def test_boxes_follow_torchvisions_law(height, width, scale, ratio):
    """Two-sample Kolmogorov-Smirnov distances, 4000 draws a side: 0.05 is beyond the 0.01 % point."""
    count = 4000
    torch.manual_seed(0)
    blank = torch.empty(1, height, width)
    theirs = np.array([RandomResizedCrop.get_params(blank, scale, ratio) for _ in range(count)], dtype=float)
    ours = sample_crops(count, height, width, scale, ratio, torch.Generator().manual_seed(1)).numpy()

    def statistics(boxes):
        top, left, tall, wide = boxes.T
        return {"area": tall * wide, "ratio": wide / tall, "top": top, "left": left}

    for name, mine in statistics(ours).items():
        other = np.sort(statistics(theirs)[name])
        mine = np.sort(mine)
        grid = np.concatenate([mine, other])
        gap = np.searchsorted(mine, grid, "right") - np.searchsorted(other, grid, "right")
        assert np.abs(gap).max() / count < 0.05, name


def test_no_box_fits_falls_back_to_the_centre():
    crops = sample_crops(3, 10, 100, (0.9, 1.0), (1.0, 1.0))
    assert crops.tolist() == [[0, 45, 10, 10]] * 3
    assert sample_crops(1, 100, 10, (0.9, 1.0), (1.0, 1.0)).tolist() == [[45, 0, 10, 10]]


def test_boxes_lie_inside_differ_and_repeat_with_the_seed():
    crops = sample_crops(200, 30, 50, (0.05, 1.0), generator=torch.Generator().manual_seed(3))
    assert (crops[:, :2] >= 0).all() and (crops[:, 2:] >= 1).all()
    assert (crops[:, 0] + crops[:, 2] <= 30).all() and (crops[:, 1] + crops[:, 3] <= 50).all()
    assert len(crops.unique(dim=0)) > 150
    assert torch.equal(crops, sample_crops(200, 30, 50, (0.05, 1.0), generator=torch.Generator().manual_seed(3)))


@given(st.integers(-1, 6), st.sampled_from([torch.uint8, torch.float32, torch.int64, torch.bool]), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_images_of_the_wrong_form_raise(rank, dtype, channels):
    shape = (2, channels, 8, 8)[: max(rank, 0)] + (3,) * max(0, rank - 4)
    images = torch.zeros(shape).to(dtype)
    crops = torch.tensor([[0.0, 0.0, 8.0, 8.0]] * 2)
    if rank == 4 and channels in (1, 3) and dtype in (torch.uint8, torch.float32):
        assert crop_resize(images, crops, 4).shape == (2, channels, 4, 4)
        return
    with pytest.raises((ValueError, TypeError), match="images"):
        crop_resize(images, crops, 4)


def test_bad_arguments_raise():
    images = torch.rand(2, 3, 8, 8)
    whole = torch.tensor([[0.0, 0.0, 8.0, 8.0]] * 2)
    for crops in (whole[:1], whole[:, :3], whole + 1, whole * 0, whole * float("nan"), whole - 1):
        with pytest.raises(ValueError, match="crops"):
            crop_resize(images, crops, 4)
    with pytest.raises(ValueError, match="at least one image"):
        crop_resize(images[:0], whole[:0], 4)
    with pytest.raises(ValueError, match="finite"):
        crop_resize(images * float("nan"), whole, 4)
    with pytest.raises(ValueError, match="flip"):
        crop_resize(images, whole, 4, torch.tensor([1, 0]))
    with pytest.raises(ValueError, match="size"):
        crop_resize(images, whole, 0)
    for scale in ((0.5, 0.2), (0.0, 1.0), (0.5, 1.5), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="scale"):
            sample_crops(2, 8, 8, scale)
    for ratio in ((0.0, 1.0), (2.0, 1.0), (1.0, float("inf"))):
        with pytest.raises(ValueError, match="ratio"):
            sample_crops(2, 8, 8, ratio=ratio)
    with pytest.raises(ValueError, match="batch"):
        sample_crops(0, 8, 8)
    with pytest.raises(TypeError, match="generator"):
        sample_crops(2, 8, 8, generator=torch.manual_seed)
