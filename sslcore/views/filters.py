"""One separable filter, two ways: a few weighted source pixels for each output pixel of each image.

Resizing and blurring are both of this kind. On an accelerator the taps become a matrix for each image and the filter a
batched product, with no wait for the host. On the CPU the product would spend most of its time on zeros: there each
output row is a weighted sum of a few input rows, which is what an embedding bag computes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Taps(NamedTuple):
    """Output i of image b is sum_k weight[b, i, k] * input[source[b, i, k]]."""

    source: Tensor  # (B, size, K) long
    weight: Tensor  # (B, size, K) float32


def filter_rows(images: Tensor, taps: Taps) -> Tensor:
    """Combine rows: contiguous images (B, C, H, W) float32 -> (B, C, size, W)."""
    batch, channels, height, width = images.shape
    size, reach = taps.source.shape[1:]
    plane = torch.arange(0, batch * channels * height, height, device=images.device).view(batch, channels, 1, 1)
    source = (taps.source.unsqueeze(1) + plane).view(-1, reach)
    weight = taps.weight.unsqueeze(1).expand(-1, channels, -1, -1).reshape(-1, reach)
    rows = F.embedding_bag(source, images.view(-1, width), mode="sum", per_sample_weights=weight)
    return rows.view(batch, channels, size, width)


def dense(taps: Taps, pixels: int) -> Tensor:
    """The taps as one matrix an image, (B, size, pixels)."""
    matrix = taps.weight.new_zeros(*taps.weight.shape[:2], pixels)
    return matrix.scatter_add_(2, taps.source, taps.weight)


def separable(images: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """Filter both axes of images (B, C, H, W), uint8 or float -> (B, C, rows, columns) contiguous float32."""
    images = images.to(torch.float32).contiguous()
    if images.device.type != "cpu":
        batch, channels, height, width = images.shape
        flat = images.view(batch, channels * height, width)
        wide = torch.bmm(flat, dense(columns, width).transpose(1, 2)).view(batch, channels, height, -1)
        return torch.matmul(dense(rows, height).unsqueeze(1), wide)
    # A transposition costs twice the arithmetic; rows come first because shrinking leaves less to transpose.
    turned = filter_rows(images, rows).transpose(2, 3).contiguous()
    return filter_rows(turned, columns).transpose(2, 3).contiguous()
