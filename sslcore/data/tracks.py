"""Patches that follow an object through a clip: what a perfect tracker would cut out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcore.data.scenes import Scenes
from sslcore.validate import require


def tracked_patches(clips: Scenes, window: int, side: int, slot: int = 0) -> tuple[Tensor, Tensor]:
    """Square windows round one object in every frame, resized.

    clips: scenes with video (N, T, C, H, W) and video_masks (N, T, H, W). window: side in pixels of what is cut out,
    moved inwards where it would leave the frame. side: side of the patches. slot: which object.
    Returns patches (N, T, C, side, side) uint8 and the object's share of each pixel (N, T, 1, side, side)
    in [0, 1].
    An object that is hidden in a frame gives the window in the top left corner.
    Raises ValueError for scenes without video, a window larger than the frame, or sides below 1.
    """
    require(clips.video is not None, "clips: expected scenes with video, got still ones; compose with frames > 1")
    height, width = clips.video.shape[-2:]
    require(1 <= window <= min(height, width), f"window: expected 1 to {min(height, width)} pixels, got {window}")
    require(side >= 1, f"side: expected at least 1, got {side}")
    frames, masks = clips.video.flatten(0, 1), (clips.video_masks.flatten(0, 1) == slot + 1).float()
    seen = masks.sum((1, 2)).clamp_min(1)
    corners = []
    for axis, length in ((2, height), (1, width)):
        middle = masks.sum(axis) @ torch.arange(length, device=masks.device, dtype=masks.dtype) / seen
        corners.append((middle - (window - 1) / 2).round().long().clamp(0, length - window))
    span, image = torch.arange(window, device=masks.device), torch.arange(len(masks), device=masks.device)
    rows, columns = (corner[:, None] + span for corner in corners)
    cut = torch.cat([frames.float(), masks[:, None]], 1)
    cut = cut[image[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    cut = F.interpolate(cut, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    cut = cut.unflatten(0, clips.video.shape[:2])
    return cut[:, :, :-1].round().clamp(0, 255).to(torch.uint8), cut[:, :, -1:].clamp(0, 1)
