"""Batched views on the images' device: crops, colour, blur, masks, and the policies that combine them.

Parameters are drawn for each image; a seeded generator reproduces them.
"""

from sslcore.views.blur import gaussian_blur
from sslcore.views.color import color_jitter, grayscale, solarize
from sslcore.views.crops import crop_resize, sample_crops
from sslcore.views.geometry import CroppedBoxes, CroppedPoints, crop_boxes, crop_masks, crop_points
from sslcore.views.masking import MaskIndices, block_mask, cube_mask, inverse_block_mask, multi_block_mask, random_mask
from sslcore.views.pixels import denormalize, normalize
from sslcore.views.policy import ViewParameters, ViewPolicy, multicrop
from sslcore.views.presets import (
    byol_policies,
    dino_policies,
    gentle_policy,
    mae_policy,
    simclr_policy,
    swav_policies,
)
from sslcore.views.rotation import rotate_quarters

__all__ = [
    "CroppedBoxes",
    "CroppedPoints",
    "MaskIndices",
    "ViewParameters",
    "ViewPolicy",
    "block_mask",
    "byol_policies",
    "color_jitter",
    "crop_boxes",
    "crop_masks",
    "crop_points",
    "crop_resize",
    "cube_mask",
    "denormalize",
    "dino_policies",
    "gaussian_blur",
    "gentle_policy",
    "grayscale",
    "inverse_block_mask",
    "mae_policy",
    "multi_block_mask",
    "multicrop",
    "normalize",
    "random_mask",
    "rotate_quarters",
    "sample_crops",
    "simclr_policy",
    "solarize",
    "swav_policies",
]
