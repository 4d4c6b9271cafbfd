"""Masks, boxes and points carried through the same crops and flips as the pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sslcore.validate import check_finite, check_rank, require
from sslcore.views.crops import check_crops, check_flip, output_size


class CroppedBoxes(NamedTuple):
    """boxes (B, K, 4) xyxy in view pixels, clipped to the view; visibility (B, K): share of the area still seen."""

    boxes: Tensor
    visibility: Tensor


class CroppedPoints(NamedTuple):
    """points (B, K, 2) xy in view pixels, not clipped; inside (B, K) bool."""

    points: Tensor
    inside: Tensor


def crop_masks(masks: Tensor, crops: Tensor, size: int | tuple[int, int], flip: Tensor | None = None) -> Tensor:
    """Cut and resize label maps as `crop_resize` does images, taking the nearest pixel's label.

    masks (B, H, W), any dtype; crops (B, 4) = (top, left, height, width); flip (B,) bool. Returns (B, size, size) of
    the same dtype; torchvision's nearest-exact for whole-pixel boxes. Raises ValueError on wrong shapes.
    """
    check_rank("masks", masks, 3)
    batch, height, width = masks.shape
    check_crops(crops, batch, height, width)
    check_flip(flip, batch)
    rows, columns = output_size(size)
    top, left, box_height, box_width = (side.view(-1, 1) for side in crops.float().unbind(1))
    step = torch.arange(rows, device=crops.device).add(0.5).view(1, -1)
    row = (top + step * box_height / rows).floor_().long().clamp_(0, height - 1)
    step = torch.arange(columns, device=crops.device).add(0.5).view(1, -1)
    if flip is not None:
        step = torch.where(flip.view(-1, 1), columns - step, step)
    column = (left + step * box_width / columns).floor_().long().clamp_(0, width - 1)
    image = torch.arange(batch, device=masks.device).view(-1, 1, 1)
    return masks[image, row.unsqueeze(2), column.unsqueeze(1)]


def _place(points: Tensor, crops: Tensor, size: tuple[int, int], flip: Tensor | None) -> Tensor:
    """Map (B, K, 2) xy from image to view coordinates (pixel j spans [j, j + 1])."""
    crops = crops.to(points.dtype)
    corner = crops[:, None, [1, 0]]
    moved = (points - corner) * (points.new_tensor([size[1], size[0]]) / crops[:, None, [3, 2]])
    if flip is None:
        return moved
    x = torch.where(flip.view(-1, 1), size[1] - moved[..., 0], moved[..., 0])
    return torch.stack([x, moved[..., 1]], dim=-1)


def _check(name: str, values: Tensor, last: int, crops: Tensor, flip: Tensor | None) -> None:
    check_rank(name, values, 3)
    require(values.shape[2] == last, f"{name}: expected last dimension {last}, got shape {tuple(values.shape)}")
    if values.is_floating_point():
        check_finite(name, values)
    check_crops(crops, len(values), float("inf"), float("inf"))
    check_flip(flip, len(values))


def crop_points(
    points: Tensor, crops: Tensor, size: int | tuple[int, int], flip: Tensor | None = None
) -> CroppedPoints:
    """Carry keypoints (B, K, 2), (x, y) in pixels, into the view.

    Pixel j spans [j, j + 1], so its centre is j + 0.5. Raises ValueError on wrong shapes or non-finite points.
    """
    _check("points", points, 2, crops, flip)
    sides = output_size(size)
    moved = _place(points if points.is_floating_point() else points.float(), crops, sides, flip)
    inside = ((moved >= 0) & (moved < moved.new_tensor([sides[1], sides[0]]))).all(-1)
    return CroppedPoints(moved, inside)


def crop_boxes(boxes: Tensor, crops: Tensor, size: int | tuple[int, int], flip: Tensor | None = None) -> CroppedBoxes:
    """Carry boxes (B, K, 4), xyxy in pixels, into the view, clipped to it.

    Visibility is the share of the box's area inside the crop, 0 for an empty box. Raises ValueError on wrong
    shapes, non-finite boxes or (on the CPU) corners out of order.
    """
    _check("boxes", boxes, 4, crops, flip)
    boxes = boxes if boxes.is_floating_point() else boxes.float()
    ordered = boxes.is_cuda or bool((boxes[..., :2] <= boxes[..., 2:]).all())
    require(ordered, "boxes: expected x0 <= x1 and y0 <= y1 in every box, got corners out of order")
    sides = output_size(size)
    first = _place(boxes[..., :2], crops, sides, flip)
    second = _place(boxes[..., 2:], crops, sides, flip)
    corners = torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=-1)
    edge = corners.new_tensor([sides[1], sides[0]] * 2)
    clipped = corners.clamp(min=0).minimum(edge)
    whole = (corners[..., 2:] - corners[..., :2]).prod(-1)
    seen = (clipped[..., 2:] - clipped[..., :2]).prod(-1)
    return CroppedBoxes(clipped, torch.where(whole > 0, seen / whole.clamp(min=1e-12), torch.zeros_like(seen)))
