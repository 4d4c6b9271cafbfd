"""Random crops resized to one size: boxes drawn per image, pixels resampled one axis at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sslcore.validate import check_finite, check_float, check_images, check_rank, require
from sslcore.views.draws import check_range, uniform
from sslcore.views.filters import Taps, separable

ATTEMPTS = 10  # torchvision's RandomResizedCrop gives up after ten
CROP_DRAWS = 2 * ATTEMPTS + 2  # uniforms an image needs: ten areas, ten aspect ratios, one place


def crops_from_uniform(
    draws: Tensor, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """Turn draws (B, CROP_DRAWS) in [0, 1) into boxes (B, 4): the deterministic half of `sample_crops`."""
    areas, ratios, place = draws[:, :ATTEMPTS], draws[:, ATTEMPTS : 2 * ATTEMPTS], draws[:, 2 * ATTEMPTS :]
    area = (height * width) * (scale[0] + (scale[1] - scale[0]) * areas)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * ratios)
    sides = torch.stack([(area / aspect).sqrt(), (area * aspect).sqrt()], dim=-1).round_()
    # no attempt fitted: the largest centred box whose aspect ratio is allowed
    image_ratio = width / height
    fallback_height = round(width / ratio[0]) if image_ratio < ratio[0] else height
    fallback_width = round(height * ratio[1]) if image_ratio > ratio[1] else width
    bounds = [[height, width], [max(1, fallback_height), max(1, fallback_width)]]
    limit, fallback = torch.tensor(bounds, dtype=draws.dtype).to(draws.device, non_blocking=True)
    fits = ((sides >= 1) & (sides <= limit)).all(-1)
    first = fits.to(torch.uint8).argmax(1)
    chosen = sides[torch.arange(len(sides), device=sides.device), first]
    found = fits.any(1, keepdim=True)
    chosen = torch.where(found, chosen, fallback)
    room = limit - chosen
    corner = torch.where(found, (place * (room + 1)).floor_(), (room / 2).floor_()).minimum(room)
    return torch.cat([corner, chosen], dim=1)


def sample_crops(
    batch: int,
    height: int,
    width: int,
    scale: tuple[float, float] = (0.2, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """One random box an image, with the law of torchvision's RandomResizedCrop.

    Area fraction uniform in `scale`, aspect ratio (width / height) log-uniform in `ratio`, up to ten attempts
    to fit, else a centred box; sides and corner are whole pixels. Returns (B, 4) float32 boxes
    (top, left, height, width). Raises ValueError unless 0 < scale[0] <= scale[1] <= 1,
    0 < ratio[0] <= ratio[1], batch >= 1 and the image has a side.
    """
    require(batch >= 1, f"batch: expected at least 1, got {batch}")
    require(height >= 1 and width >= 1, f"image size: expected at least 1x1, got {height}x{width}")
    check_range("scale", scale, 0.0, 1.0)
    check_range("ratio", ratio)
    return crops_from_uniform(uniform((batch, CROP_DRAWS), generator, device), height, width, scale, ratio)


def check_crops(crops: Tensor, batch: int, height: int, width: int) -> None:
    """Raise ValueError unless crops is (batch, 4) and (on the CPU) every box lies inside the image."""
    check_rank("crops", crops, 2)
    check_float("crops", crops)
    require(crops.shape == (batch, 4), f"crops: expected shape ({batch}, 4), got {tuple(crops.shape)}")
    check_finite("crops", crops)
    if crops.is_cuda:
        return
    top, left, box_height, box_width = crops.unbind(1)
    inside = (top >= 0) & (left >= 0) & (box_height > 0) & (box_width > 0)
    inside &= (top + box_height <= height + 1e-3) & (left + box_width <= width + 1e-3)
    if not bool(inside.all()):
        bad = crops[~inside][0].tolist()
        raise ValueError(f"crops: expected (top, left, height, width) inside {height}x{width}, got {bad}")


def check_flip(flip: Tensor | None, batch: int) -> None:
    """Raise unless flip is None or (batch,) bool."""
    if flip is None:
        return
    check_rank("flip", flip, 1)
    require(
        flip.dtype == torch.bool and len(flip) == batch,
        f"flip: expected ({batch},) bool, got {tuple(flip.shape)} {flip.dtype}",
    )


def output_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) from one side or a pair; ValueError unless both are at least 1."""
    height, width = (size, size) if isinstance(size, int) else size
    require(height >= 1 and width >= 1, f"size: expected at least 1, got {size}")
    return height, width


def resize_taps(
    start: Tensor, length: Tensor, pixels: int, size: int, flip: Tensor | None = None, antialias: bool = True
) -> Taps:
    """Taps that resize the window [start, start + length) of a row of pixels to `size`, both (B,).

    Triangle filter around each output centre, as wide as the shrinking factor when antialias is on, and
    normalised over the pixels of the window, as if the window had been cut out first. A flipped row
    reads its centres backwards.
    """
    start, length = start.view(-1, 1), length.view(-1, 1)
    step = length / size
    index = torch.arange(size, device=start.device, dtype=start.dtype) + 0.5
    if flip is not None:
        index = torch.where(flip.view(-1, 1), size - index, index)
    centre = (start + index * step).unsqueeze(2)
    reach = step.clamp(min=1).unsqueeze(2) if antialias else torch.ones_like(step).unsqueeze(2)
    # an open interval of length 2 * reach holds at most this many pixel centres; on CUDA the widest
    # possible window stands in for the widest drawn one, which only the host could read
    widest = pixels / size if start.is_cuda else float(step.max())
    count = math.ceil(2 * max(1.0, widest) - 1e-4) if antialias else 2
    pixel = (centre - reach + 0.5).floor_() + torch.arange(count, device=start.device, dtype=start.dtype)
    weight = (1 - (pixel + (0.5 - centre)).abs_().div_(reach)).clamp_(min=0)
    first, last = start.floor().unsqueeze(2), (start + length).ceil().unsqueeze(2)
    weight.masked_fill_((pixel < first) | (pixel >= last), 0)
    weight /= weight.sum(2, keepdim=True)
    return Taps(pixel.clamp_(0, pixels - 1).long(), weight)


def crop_taps(
    crops: Tensor, sides: tuple[int, int], size: tuple[int, int], flip: Tensor | None, antialias: bool
) -> tuple[Taps, Taps]:
    """Taps of the rows and of the columns that cut crops (B, 4) out of images of these sides and resize them."""
    top, left, box_height, box_width = crops.float().unbind(1)
    rows = resize_taps(top, box_height, sides[0], size[0], None, antialias)
    return rows, resize_taps(left, box_width, sides[1], size[1], flip, antialias)


def resample_taps(images: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """Images (B, C, H, W) through their taps; uint8 becomes float in [0, 1]."""
    if images.dtype == torch.uint8:
        columns = Taps(columns.source, columns.weight / 255)  # the change of scale rides on the weights
    return separable(images, rows, columns)


def resample(images: Tensor, crops: Tensor, size: tuple[int, int], flip: Tensor | None, antialias: bool) -> Tensor:
    """`crop_resize` without its checks."""
    return resample_taps(images, *crop_taps(crops, tuple(images.shape[2:]), size, flip, antialias))


def crop_resize(
    images: Tensor,
    crops: Tensor,
    size: int | tuple[int, int],
    flip: Tensor | None = None,
    antialias: bool = True,
) -> Tensor:
    """Cut one box from each image and resize it, bilinear, in one pass over the batch.

    view_b = R_b @ image_b @ C_b.T, with R_b (size, H) and C_b (size, W) the two axes' sparse resampling weights.
    images (B, 1|3, H, W) uint8 or float; crops (B, 4) = (top, left, height, width) in pixels; flip (B,) bool
    mirrors left-right. Returns float32 (B, C, size, size), in [0, 1] for uint8 input, on the input's scale
    for float. Whole-pixel boxes give torchvision's resized_crop(antialias=antialias); a fractional box
    reads every pixel it touches. Raises ValueError on boxes outside the image and on wrong shapes.
    """
    check_images("images", images)
    if images.is_floating_point():
        check_finite("images", images)
    check_crops(crops, images.shape[0], images.shape[2], images.shape[3])
    check_flip(flip, images.shape[0])
    return resample(images, crops, output_size(size), flip, antialias)
