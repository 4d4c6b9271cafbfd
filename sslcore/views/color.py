"""Colour changes with one set of factors an image, equal to torchvision's adjust_* for the same factors."""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

from sslcore.validate import check_rank, require
from sslcore.views.pixels import check_float_images

LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601 weights, as torchvision rounds them
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
ORDERS = tuple(permutations(range(4)))  # the 24 orders in which the four can be applied


def luma(images: Tensor) -> Tensor:
    """Grey level (B, 1, H, W) of images (B, 3, H, W); one-channel images are their own grey level."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    grey = red * LUMA[0]
    return grey.add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2]).unsqueeze(1)


def blend_(images: Tensor, base: Tensor | None, factor: Tensor) -> Tensor:
    """In place: clamp(factor * images + (1 - factor) * base) to [0, 1]; base None is black."""
    if base is None:
        return images.mul_(factor).clamp_(0, 1)
    return images.mul_(factor).add_(base * (1 - factor)).clamp_(0, 1)


def turn_hue_(images: Tensor, turn: Tensor) -> Tensor:
    """In place: rotate the hue of (B, 3, H, W) by turn (B, 1, 1, 1), a fraction of the colour circle.

    With value v, chroma c and hue h in turns, channel n of (5, 3, 1) of the rotated colour is
    v - c * clamp(2 - 6 * d, 0, 1), d the distance from h + n/6 - 1/3 to the nearest whole turn: no sectors, no gather.
    """
    red, green, blue = images.unbind(1)
    value = torch.maximum(red, green)
    torch.maximum(value, blue, out=value)
    chroma = torch.minimum(red, green)
    torch.sub(value, torch.minimum(chroma, blue, out=chroma), out=chroma)
    # six times chroma * hue, were the largest channel blue, green or red. Float masks and reused buffers: on a CPU a
    # comparison or a fresh allocation costs several times the arithmetic.
    hue = (red - green).add_(chroma, alpha=4)
    other = (blue - red).add_(chroma, alpha=2)
    mask = (value - green).mul_(1e30).clamp_(max=1)
    torch.lerp(other, hue, mask, out=hue)
    torch.sub(green, blue, out=other)
    torch.sub(value, red, out=mask).mul_(1e30).clamp_(max=1)
    torch.lerp(other, hue, mask, out=hue)
    chroma.mul_(6)
    hue.div_(torch.clamp(chroma, min=1e-12, out=other)).add_(turn.view(-1, 1, 1) - 1 / 3)
    value.sub_(chroma, alpha=1 / 3)
    for channel, sector in zip((red, green, blue), (5, 3, 1), strict=True):
        distance = torch.add(hue, sector / 6, out=other)
        distance.sub_(torch.round(distance, out=mask)).abs_().clamp_(1 / 6, 1 / 3)
        torch.addcmul(value, distance, chroma, out=channel)
    return images.clamp_(0, 1)


def _factor(name: str, factor: Tensor, images: Tensor, low: float, high: float) -> Tensor:
    check_rank(name, factor, 1)
    require(len(factor) == len(images), f"{name}: expected {len(images)} factors, one an image, got {len(factor)}")
    if not factor.is_cuda:
        inside = bool(((factor >= low) & (factor <= high)).all())
        require(inside, f"{name}: expected finite factors in [{low}, {high}], got {factor.tolist()[:8]}")
    return factor.to(images).view(-1, 1, 1, 1)


def apply_jitter_(images: Tensor, factors: Tensor, order: tuple[int, ...]) -> Tensor:
    """In place, without checks: factors (B, 4) applied in one order."""
    for operation in order:
        factor = factors[:, operation].view(-1, 1, 1, 1)
        if operation == BRIGHTNESS:
            blend_(images, None, factor)
        elif operation == CONTRAST:
            blend_(images, luma(images).mean((1, 2, 3), keepdim=True), factor)
        elif images.shape[1] == 1:
            continue  # a grey image has neither saturation nor hue
        elif operation == SATURATION:
            blend_(images, luma(images), factor)
        else:
            turn_hue_(images, factor)
    return images


def apply_mixed_jitter(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """`apply_jitter_` with order (B,), an index into ORDERS for each image, and no decision taken on the host.

    Brightness, contrast and saturation are one blend with different bases, so an image's kind of blend is
    data. Hue is not: three blends before it and three after, each a no-op for the images it does not concern.
    """
    operations = torch.tensor(ORDERS).to(images.device, non_blocking=True)[order]
    hue_place = (operations == HUE).to(torch.uint8).argmax(1)
    for first, last in ((0, 3), (1, 4)):
        for place in range(first, last):
            operation = operations[:, place]
            active = (place < hue_place) if first == 0 else (place > hue_place)
            factor = factors.gather(1, operation.unsqueeze(1)).squeeze(1)
            if images.shape[1] == 1:
                active = active & (operation != SATURATION)
            factor = torch.where(active, factor, torch.ones_like(factor)).view(-1, 1, 1, 1)
            grey = luma(images)
            from_mean = (operation == CONTRAST).to(grey).view(-1, 1, 1, 1) * grey.mean((1, 2, 3), keepdim=True)
            base = grey * (operation == SATURATION).to(grey).view(-1, 1, 1, 1) + from_mean
            images = (images * factor + base * (1 - factor)).clamp(0, 1)
        if first == 0 and images.shape[1] == 3:
            images = turn_hue_(images, factors[:, HUE].view(-1, 1, 1, 1))
    return images


def color_jitter(
    images: Tensor,
    brightness: Tensor,
    contrast: Tensor,
    saturation: Tensor,
    hue: Tensor,
    order: tuple[int, int, int, int] = (BRIGHTNESS, CONTRAST, SATURATION, HUE),
) -> Tensor:
    """Brightness, contrast, saturation and hue, one factor an image each.

    images (B, 1|3, H, W) float in [0, 1]; brightness, contrast, saturation (B,) >= 0, with 1 = unchanged;
    hue (B,) in [-0.5, 0.5], with 0 = unchanged. `order` is a permutation of (0, 1, 2, 3) for the four in the
    order of the arguments. One-channel images skip saturation and hue. Returns a new tensor in [0, 1]; equal to
    torchvision's adjust_brightness/contrast/saturation/hue applied in the same order. Raises ValueError
    on wrong shapes, factors out of range or values outside [0, 1]; TypeError unless floating point.
    """
    check_float_images("images", images)
    require(sorted(order) == [0, 1, 2, 3], f"order: expected a permutation of (0, 1, 2, 3), got {order}")
    factors = [
        _factor(name, factor, images, low, high).flatten()
        for name, factor, low, high in (
            ("brightness", brightness, 0.0, 1e6),
            ("contrast", contrast, 0.0, 1e6),
            ("saturation", saturation, 0.0, 1e6),
            ("hue", hue, -0.5, 0.5),
        )
    ]
    return apply_jitter_(images.clone(memory_format=torch.contiguous_format), torch.stack(factors, 1), order)


def _chosen(name: str, chosen: Tensor | None, images: Tensor) -> Tensor | None:
    if chosen is None:
        return None
    check_rank(name, chosen, 1)
    fits = chosen.dtype == torch.bool and len(chosen) == len(images)
    require(fits, f"{name}: expected ({len(images)},) bool, got {tuple(chosen.shape)} {chosen.dtype}")
    return chosen.to(images.device).view(-1, 1, 1, 1)


def grayscale(images: Tensor, apply: Tensor | None = None) -> Tensor:
    """Replace colour by its grey level, in the images where apply (B,) bool is True (None = all).

    images (B, 1|3, H, W) float in [0, 1]; same shape out. Raises as `color_jitter` does.
    """
    check_float_images("images", images)
    chosen = _chosen("apply", apply, images)
    grey = luma(images).expand_as(images)
    return grey.clone() if chosen is None else torch.where(chosen, grey, images)


def solarize(images: Tensor, threshold: float = 0.5, apply: Tensor | None = None) -> Tensor:
    """Invert values at or above threshold, in the images where apply (B,) bool is True (None = all).

    images (B, 1|3, H, W) float in [0, 1]; same shape out. Raises as `color_jitter` does.
    """
    check_float_images("images", images)
    require(0.0 <= threshold <= 1.0, f"threshold: expected 0 to 1, got {threshold}")
    chosen = _chosen("apply", apply, images)
    invert = images >= threshold
    return torch.where(invert if chosen is None else invert & chosen, 1 - images, images)
