"""Geometry: masks, boxes and points land where the pixels land."""

from __future__ import annotations

import pytest
import torch
import torchvision.transforms.v2.functional as tvf
from torchvision.transforms import InterpolationMode

from sslcore.views import crop_boxes, crop_masks, crop_points, crop_resize, sample_crops


def scene(count=12, side=40, seed=0):
    """One filled rectangle an image: its box, its mask, its picture."""
    draws = torch.rand(count, 4, generator=torch.Generator().manual_seed(seed))
    first = (draws[:, :2] * 20).floor()
    second = first + 6 + (draws[:, 2:] * 14).floor()
    boxes = torch.cat([first, second], dim=1)
    x = torch.arange(side).view(1, 1, -1)
    y = torch.arange(side).view(1, -1, 1)
    x0, y0, x1, y1 = boxes.view(count, 4, 1, 1).unbind(1)
    masks = ((x >= x0) & (x < x1) & (y >= y0) & (y < y1)).to(torch.uint8)
    return boxes.unsqueeze(1), masks


def drawn(count, side, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return sample_crops(count, side, side, (0.3, 1.0), generator=generator), torch.arange(count) % 2 == 0


@pytest.mark.parametrize("size", [(40, 40), (16, 25), (80, 64)])
def test_masks_match_torchvision_nearest_exact(size):
    masks = torch.randint(0, 9, (12, 40, 40), dtype=torch.uint8)
    crops, flip = drawn(12, 40)
    ours = crop_masks(masks, crops, size, flip)
    for mask, crop, mirrored, view in zip(masks, crops, flip, ours, strict=True):
        top, left, height, width = (int(c) for c in crop)
        expected = tvf.resized_crop(mask[None], top, left, height, width, list(size), InterpolationMode.NEAREST_EXACT)[
            0
        ]
        assert torch.equal(view, expected.flip(-1) if mirrored else expected)
    assert ours.dtype == torch.uint8


@pytest.mark.parametrize("size", [40, 64])
def test_mask_and_picture_agree(size):
    _, masks = scene()
    crops, flip = drawn(12, 40)
    pictures = crop_resize(masks.unsqueeze(1).float(), crops, size, flip, antialias=False).squeeze(1)
    labels = crop_masks(masks, crops, size, flip).bool()
    sure = (pictures - 0.5).abs() > 0.26  # away from the half-way line both roundings agree
    assert torch.equal(labels[sure], pictures[sure] > 0.5)
    assert sure.float().mean() > 0.9


def test_box_of_the_mask_follows_the_box():
    boxes, masks = scene()
    crops, flip = drawn(12, 40)
    moved = crop_boxes(boxes, crops, 80, flip)
    labels = crop_masks(masks, crops, 80, flip)
    shares = []
    for box, share, label in zip(moved.boxes[:, 0], moved.visibility[:, 0], labels, strict=True):
        rows, columns = label.nonzero(as_tuple=True)
        if share == 0:
            assert len(rows) == 0
            continue
        around = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        assert (around - box).abs().max() <= 1
        shares.append(float(share))
    assert len(shares) > 6 and min(shares) < 1


def test_visibility_is_the_share_of_the_area_inside():
    crops = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    boxes = torch.tensor([[[0.0, 0, 4, 4], [8, 8, 12, 12], [20, 20, 30, 30], [5, 5, 5, 9]]])
    moved = crop_boxes(boxes, crops, 20, torch.tensor([True]))
    torch.testing.assert_close(moved.visibility, torch.tensor([[1.0, 0.25, 0.0, 0.0]]))
    torch.testing.assert_close(moved.boxes[0, 0], torch.tensor([12.0, 0, 20, 8]))
    assert moved.boxes.min() >= 0 and moved.boxes.max() <= 20


def test_points_follow_the_pixels():
    points = torch.tensor([[[3.5, 7.5], [30.5, 2.5]]]).expand(12, -1, -1)
    masks = torch.zeros(12, 40, 40, dtype=torch.long)
    masks[:, 7, 3], masks[:, 2, 30] = 1, 2
    crops, flip = drawn(12, 40)
    moved = crop_points(points, crops, 120, flip)
    labels = crop_masks(masks, crops, 120, flip)
    for image in range(12):
        for index in range(2):
            assert bool(moved.inside[image, index]) == bool((labels[image] == index + 1).any())
            if moved.inside[image, index]:
                x, y = moved.points[image, index].floor().long().tolist()
                assert labels[image, y, x] == index + 1
    assert moved.inside.any() and not moved.inside.all()


def test_bad_input_raises():
    crops = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    boxes = torch.tensor([[[0.0, 0.0, 4.0, 4.0]]])
    for call, bad in (
        (crop_masks, torch.zeros(1, 1, 8, 8)),
        (crop_masks, torch.zeros(2, 8, 8)),
        (crop_masks, torch.zeros(1, 4, 4)),
        (crop_boxes, boxes[0]),
        (crop_boxes, boxes[..., :2]),
        (crop_boxes, boxes * float("nan")),
        (crop_boxes, boxes.flip(-1)),
        (crop_points, boxes),
    ):
        with pytest.raises(ValueError):
            call(bad, crops, 8)
    with pytest.raises(ValueError, match="flip"):
        crop_boxes(boxes, crops, 8, torch.tensor([True, False]))
