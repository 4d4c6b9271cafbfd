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

    With value v, chroma c and the turned hue h in [0, 1), the rotated colour is, without sectors or gathers,
    red = v - 2c + 6c * d(1/2), green = v + c - 6c * d(1/3), blue = v + c - 6c * d(2/3),
    where d(p) is |h - p| clamped to [1/6, 1/3]. Rounding may leave [0, 1] by one unit in the last place.
    """
    red, green, blue = images.unbind(1)
    value = torch.maximum(red, green)
    torch.maximum(value, blue, out=value)
    chroma = torch.minimum(red, green)
    torch.sub(value, torch.minimum(chroma, blue, out=chroma), out=chroma)
    # c * 6 * hue, were the largest channel blue, green or red. Float masks and reused buffers: on a CPU a
    # comparison or a fresh allocation costs several times the arithmetic.
    hue = (red - green).add_(chroma, alpha=4)
    other = (blue - red).add_(chroma, alpha=2)
    mask = (value - green).sign_()
    torch.lerp(other, hue, mask, out=hue)
    torch.sub(green, blue, out=other)
    torch.sub(value, red, out=mask).sign_()
    torch.lerp(other, hue, mask, out=hue)
    low = torch.sub(value, chroma, alpha=2, out=other)
    high = value.add_(chroma)
    chroma.mul_(6)
    # one whole turn more, because frac_ keeps the sign; the sum is above 0
    hue.div_(torch.clamp(chroma, min=1e-12, out=mask)).add_(turn.view(-1, 1, 1) + 1).frac_()
    for channel, base, sign, place in ((red, low, 1, 1 / 2), (green, high, -1, 1 / 3), (blue, high, -1, 2 / 3)):
        torch.sub(hue, place, out=mask).abs_().clamp_(1 / 6, 1 / 3)
        torch.addcmul(base, mask, chroma, value=sign, out=channel)
    return images


def _factor(name: str, factor: Tensor, images: Tensor, low: float, high: float) -> Tensor:
    check_rank(name, factor, 1)
    require(len(factor) == len(images), f"{name}: expected {len(images)} factors, one an image, got {len(factor)}")
    if not factor.is_cuda:
        inside = bool(((factor >= low) & (factor <= high)).all())
        require(inside, f"{name}: expected finite factors in [{low}, {high}], got {factor.tolist()[:8]}")
    return factor.to(images).view(-1, 1, 1, 1)


def apply_one_(images: Tensor, operation: int, factor: Tensor) -> Tensor:
    """In place, without checks: one of the four, with factor (B,)."""
    factor = factor.view(-1, 1, 1, 1)
    if operation == BRIGHTNESS:
        return blend_(images, None, factor)
    if operation == CONTRAST:
        mean = images.mean((2, 3), keepdim=True)
        return blend_(images, luma(mean), factor)
    if images.shape[1] == 1:
        return images  # a grey image has neither saturation nor hue
    return blend_(images, luma(images), factor) if operation == SATURATION else turn_hue_(images, factor)


def apply_mixed_jitter(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """The four in the order that order (B,), an index into ORDERS, gives each image; the host decides nothing.

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
    views = images.clone(memory_format=torch.contiguous_format)
    for operation in order:
        apply_one_(views, operation, factors[operation])
    return views.clamp_(0, 1)


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
