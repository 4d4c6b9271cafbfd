"""A view in one Triton kernel: pixels are read once as they were stored and written once as the network wants them.

Plain torch writes the batch to memory some sixty times between the stored image and its view. Here a program takes one
view: it cuts, flips, resizes, changes colours, greys, solarizes and normalises in registers, a tile of pixels at a
time. Contrast needs the mean of the whole view first, so views that draw it are computed twice and stored once. Blur
needs neighbours: policies that have it take two more launches, one an axis.
The agreement with the plain form is tested on the CPU in Triton's interpreter. Its speed on CUDA has not been measured.
It must lose where a program has too much to do alone: few large images on a large GPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from sslcore.kernels.optional_triton import HAS_TRITON, jit, tl, triton

MAX_TAPS = 16  # source pixels an output pixel may gather along one axis; beyond, the plain form does as well
TILE = 512  # pixels a program holds at a time: 96 registers a thread, none spilled (sm_90)


@jit
def _luma(red, green, blue):
    return 0.2989 * red + 0.587 * green + 0.114 * blue


@jit
def _unit(x):
    return tl.minimum(tl.maximum(x, 0.0), 1.0)


@jit
def _turned(hue, place, base, sign, chroma):
    distance = tl.abs(hue - place)
    return base + sign * 6.0 * chroma * tl.minimum(tl.maximum(distance, 1.0 / 6.0), 1.0 / 3.0)


@jit
def _jitter(red, green, blue, factors_ptr, order_ptr, mean, COLOUR: tl.constexpr):
    """The four changes in the order of this view; also the grey level that contrast met. See views.color."""
    seen = red
    for place in tl.static_range(4):
        operation = tl.load(order_ptr + place)  # 0 brightness, 1 contrast, 2 saturation, 3 hue
        factor = tl.load(factors_ptr + operation)
        grey = red
        if COLOUR:
            grey = _luma(red, green, blue)
        seen = tl.where(operation == 1, grey, seen)
        # brightness, contrast and saturation are one blend with black, with the mean and with the grey level
        base = tl.where(operation == 2, grey, tl.where(operation == 1, mean, 0.0)) * (1.0 - factor)
        if COLOUR:
            value = tl.maximum(tl.maximum(red, green), blue)
            chroma = value - tl.minimum(tl.minimum(red, green), blue)
            sector = tl.where(value == green, blue - red + 2.0 * chroma, red - green + 4.0 * chroma)
            sector = tl.where(value == red, green - blue, sector)
            hue = sector / tl.maximum(6.0 * chroma, 1e-12) + factor
            hue = hue - tl.floor(hue)
            turn = operation == 3
            new_red = _turned(hue, 0.5, value - 2.0 * chroma, 1.0, chroma)
            new_green = _turned(hue, 1.0 / 3.0, value + chroma, -1.0, chroma)
            new_blue = _turned(hue, 2.0 / 3.0, value + chroma, -1.0, chroma)
            red = tl.where(turn, new_red, _unit(red * factor + base))
            green = tl.where(turn, new_green, _unit(green * factor + base))
            blue = tl.where(turn, new_blue, _unit(blue * factor + base))
        else:
            red = tl.where(operation < 2, _unit(red * factor + base), red)
    return red, green, blue, seen


@jit
def _tap(centre, reach, first, last, tap):
    """Pixel number `tap` under a triangle filter around centre, and its weight; see views.crops.resize_taps."""
    pixel = tl.floor(centre - reach + 0.5) + tap
    weight = tl.maximum(1.0 - tl.abs(pixel + (0.5 - centre)) / reach, 0.0)
    return pixel, tl.where((pixel < first) | (pixel >= last), 0.0, weight)


@jit
def _resampled(
    image_ptr, pixel, crop_ptr, flip, height, width, size, scale, COLOUR: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """One tile of output pixels cut out of one image (C, height, width) and resized."""
    top, left = tl.load(crop_ptr), tl.load(crop_ptr + 1)
    tall, wide = tl.load(crop_ptr + 2), tl.load(crop_ptr + 3)
    row, column = (pixel // size).to(tl.float32) + 0.5, (pixel % size).to(tl.float32) + 0.5
    column = tl.where(flip, size - column, column)
    step_y, step_x = tall / size, wide / size
    centre_y, centre_x = top + row * step_y, left + column * step_x
    reach_y, reach_x = tl.maximum(step_y, 1.0), tl.maximum(step_x, 1.0)
    first_y, last_y = tl.floor(top), tl.ceil(top + tall)
    first_x, last_x = tl.floor(left), tl.ceil(left + wide)
    red, green, blue = centre_y * 0.0, centre_y * 0.0, centre_y * 0.0
    total_y, total_x = centre_y * 0.0, centre_y * 0.0
    plane = height * width
    for i in tl.static_range(ROWS):
        y, weight_y = _tap(centre_y, reach_y, first_y, last_y, i)
        y = tl.minimum(tl.maximum(y, 0.0), height - 1.0).to(tl.int32)
        total_y += weight_y
        total_x = centre_y * 0.0
        for j in tl.static_range(COLUMNS):
            x, weight_x = _tap(centre_x, reach_x, first_x, last_x, j)
            x = tl.minimum(tl.maximum(x, 0.0), width - 1.0).to(tl.int32)
            total_x += weight_x
            weight, place = weight_y * weight_x, y * width + x
            red += weight * tl.load(image_ptr + place).to(tl.float32)
            if COLOUR:
                green += weight * tl.load(image_ptr + plane + place).to(tl.float32)
                blue += weight * tl.load(image_ptr + 2 * plane + place).to(tl.float32)
    norm = scale / (total_y * total_x)
    return red * norm, green * norm, blue * norm


@jit
def _finished(x, inverted, mean, deviation):
    """Solarized where drawn, then normalised."""
    return (tl.where(inverted & (x >= 0.5), 1.0 - x, x) - mean) / deviation


@jit
def _view_kernel(
    images_ptr,  # (num_images, C, height, width) uint8 or float
    out_ptr,  # (num_views, C, size, size) out
    crops_ptr,  # (num_views, 4)
    factors_ptr,  # (num_views, 4)
    orders_ptr,  # (24, 4)
    order_ptr,  # (num_views,)
    flags_ptr,  # (num_views, 3): flip, grayscale, solarize
    statistics_ptr,  # (2, 3): mean, std
    num_images,
    height,
    width,
    size,
    scale,
    COLOUR: tl.constexpr,
    JITTER: tl.constexpr,
    FINISH: tl.constexpr,  # no blur follows
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    TILE: tl.constexpr,
):
    view = tl.program_id(0)
    channels = 3 if COLOUR else 1
    image_ptr = images_ptr + (view % num_images).to(tl.int64) * (channels * height * width)
    to_ptr = out_ptr + view.to(tl.int64) * (channels * size * size)
    crop_ptr, factor_ptr = crops_ptr + 4 * view, factors_ptr + 4 * view
    flip, grey = tl.load(flags_ptr + 3 * view) != 0, tl.load(flags_ptr + 3 * view + 1) != 0
    inverted = tl.load(flags_ptr + 3 * view + 2) != 0
    own_order_ptr = orders_ptr + 4 * tl.load(order_ptr + view)
    mean = 0.0
    if JITTER:
        total = tl.full((TILE,), 0.0, tl.float32)
        # no round at all for views whose contrast stays
        rounds = tl.where(tl.load(factor_ptr + 1) == 1.0, 0, size * size)
        for start in range(0, rounds, TILE):
            pixel = start + tl.arange(0, TILE)
            inside = pixel < size * size
            red, green, blue = _resampled(
                image_ptr, tl.where(inside, pixel, 0), crop_ptr, flip, height, width, size, scale, COLOUR, ROWS, COLUMNS
            )
            red, green, blue, seen = _jitter(red, green, blue, factor_ptr, own_order_ptr, 0.0, COLOUR)
            total += tl.where(inside, seen, 0.0)
        mean = tl.sum(total, axis=0) / (size * size)
    for start in range(0, size * size, TILE):
        pixel = start + tl.arange(0, TILE)
        inside = pixel < size * size
        red, green, blue = _resampled(
            image_ptr, tl.where(inside, pixel, 0), crop_ptr, flip, height, width, size, scale, COLOUR, ROWS, COLUMNS
        )
        if JITTER:
            red, green, blue, seen = _jitter(red, green, blue, factor_ptr, own_order_ptr, mean, COLOUR)
        if COLOUR:
            level = _luma(red, green, blue)
            red, green, blue = tl.where(grey, level, red), tl.where(grey, level, green), tl.where(grey, level, blue)
        if FINISH:
            red = _finished(red, inverted, tl.load(statistics_ptr), tl.load(statistics_ptr + 3))
        tl.store(to_ptr + pixel, red.to(out_ptr.dtype.element_ty), mask=inside)
        if COLOUR:
            if FINISH:
                green = _finished(green, inverted, tl.load(statistics_ptr + 1), tl.load(statistics_ptr + 4))
                blue = _finished(blue, inverted, tl.load(statistics_ptr + 2), tl.load(statistics_ptr + 5))
            tl.store(to_ptr + size * size + pixel, green.to(out_ptr.dtype.element_ty), mask=inside)
            tl.store(to_ptr + 2 * size * size + pixel, blue.to(out_ptr.dtype.element_ty), mask=inside)


@jit
def _blur_kernel(
    planes_ptr,  # (num_views * C, size, size)
    out_ptr,  # the same
    sigma_ptr,  # (num_views,)
    flags_ptr,  # (num_views, 3)
    statistics_ptr,  # (2, 3)
    size,
    channels,
    ALONG_ROWS: tl.constexpr,
    FINISH: tl.constexpr,
    REACH: tl.constexpr,
    TILE: tl.constexpr,
):
    plane = tl.program_id(0)
    view = plane // channels
    pixel = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = pixel < size * size
    pixel = tl.where(inside, pixel, 0)
    row, column = pixel // size, pixel % size
    offset = plane.to(tl.int64) * (size * size)
    sigma = tl.load(sigma_ptr + view)
    blurred, norm = pixel * 0.0, sigma * 0.0
    for tap in tl.static_range(-REACH, REACH + 1):
        weight = tl.exp(-0.5 * (tap / sigma) * (tap / sigma))
        norm += weight
        place = tl.abs((column if ALONG_ROWS else row) + tap)  # mirrored at either border
        place = tl.where(place >= size, 2 * (size - 1) - place, place)
        source = row * size + place if ALONG_ROWS else place * size + column
        blurred += weight * tl.load(planes_ptr + offset + source)
    blurred = blurred / norm
    if FINISH:
        inverted = tl.load(flags_ptr + 3 * view + 2) != 0
        channel = plane % channels
        deviation = tl.load(statistics_ptr + 3 + channel)
        blurred = _finished(blurred, inverted, tl.load(statistics_ptr + channel), deviation)
    tl.store(out_ptr + offset + pixel, blurred.to(out_ptr.dtype.element_ty), mask=inside)


def taps(pixels: int, size: int) -> int:
    """Source pixels that an output pixel can gather along an axis, whatever the crop."""
    return math.ceil(2 * max(1.0, pixels / size) - 1e-4)


def supports(images: Tensor, size: int) -> bool:
    """Whether `render` below takes these images: on an NVIDIA GPU, and not shrunk by more than eight times."""
    return (
        HAS_TRITON
        and images.is_cuda
        and torch.version.hip is None
        and images.dtype in (torch.uint8, torch.float16, torch.bfloat16, torch.float32)
        and taps(max(images.shape[2:]), size) <= MAX_TAPS
    )


def render(
    images: Tensor,
    drawn: Any,
    orders: Sequence[Sequence[int]],
    *,
    size: int,
    jitters: bool,
    blur_kernel: int,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Twin of ViewPolicy._render_whole: views (V, C, size, size) of images (B, C, H, W), V a multiple of B.

    drawn: ViewParameters with V rows; view v is of image v modulo B. orders: the 24 orders that drawn.order counts.
    jitters: whether colour can change. blur_kernel: odd width, 0 for a policy without blur. dtype: of the views.
    Chosen on CUDA where `supports` says so.
    """
    images = images.contiguous()
    num_images, channels, height, width = images.shape
    views, device = len(drawn.crops), images.device
    flags = torch.stack([drawn.flip, drawn.grayscale, drawn.solarize], 1).to(torch.uint8)
    pair = ([value] if isinstance(value, int | float) else list(value) for value in (mean, std))
    numbers = [values * (3 // len(values)) for values in pair]
    statistics = torch.tensor(numbers, dtype=torch.float32).to(device, non_blocking=True)
    table = torch.tensor([list(order) for order in orders], dtype=torch.int32).to(device, non_blocking=True)
    shape = (views, channels, size, size)
    out = torch.empty(shape, dtype=torch.float32 if blur_kernel else dtype, device=device)
    with torch.cuda.device(device) if images.is_cuda else nullcontext():
        _view_kernel[(views,)](
            images, out, drawn.crops.float().contiguous(), drawn.factors.float().contiguous(), table,
            drawn.order.to(torch.int32), flags, statistics, num_images, height, width, size,
            1 / 255 if images.dtype == torch.uint8 else 1.0,
            COLOUR=channels == 3, JITTER=jitters, FINISH=not blur_kernel, ROWS=taps(height, size),
            COLUMNS=taps(width, size), TILE=min(TILE, triton.next_power_of_2(size * size)), num_warps=4,
        )  # fmt: skip
        if not blur_kernel:
            return out
        # so narrow a Gaussian has all its weight on the centre tap
        sigma = torch.where(drawn.blur, drawn.sigma.float(), 1e-3)
        grid = (views * channels, triton.cdiv(size * size, TILE))
        between, end = torch.empty_like(out), torch.empty(shape, dtype=dtype, device=device)
        for source, target, along_rows in ((out, between, True), (between, end, False)):
            _blur_kernel[grid](
                source, target, sigma, flags, statistics, size, channels, ALONG_ROWS=along_rows,
                FINISH=not along_rows, REACH=blur_kernel // 2, TILE=TILE, num_warps=4,
            )  # fmt: skip
    return end
