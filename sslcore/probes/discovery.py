"""Objects without labels from patch tokens: LOST, TokenCut, and the score they are read by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcore.probes.attention import Preprocess
from sslcore.probes.frozen import run_frozen
from sslcore.validate import check_finite, check_rank, require


@dataclass(frozen=True)
class Found:
    """One object for each image: seed patch (B,), mask (B, h, w) bool, boxes (B, 4) x0 y0 x1 y1 in pixels."""

    seed: Tensor
    mask: Tensor
    boxes: Tensor


def check_patches(features: Tensor, grid: tuple[int, int]) -> None:
    """Raise unless features is a finite (B >= 1, h * w >= 2, D)."""
    check_rank("features", features, 3)
    fits = len(features) >= 1 and features.shape[1] == grid[0] * grid[1] >= 2
    require(fits, f"features: expected (B >= 1, {grid[0]} * {grid[1]} >= 2, D), got {tuple(features.shape)}")
    check_finite("features", features)


def patch_keys(
    backbone: nn.Module, images: Tensor, layer: int = -1, batch_size: int = 64, preprocess: Preprocess = None
) -> Tensor:
    """Attention keys of one block, heads side by side: (N, patches, D). LOST and TokenCut were tuned on these.

    Reads the middle third of the block's `qkv` projection, before any rotary positions; ValueError where there is none.
    """
    projections = [module for name, module in backbone.named_modules() if name.split(".")[-1] == "qkv"]
    depth = len(projections)
    require(depth > 0, f"{type(backbone).__name__} has no qkv projection to read keys from; use a ViT backbone")
    require(-depth <= layer < depth, f"layer: expected -{depth} to {depth - 1}, got {layer}")
    caught: list[Tensor] = []
    hook = projections[layer].register_forward_hook(lambda module, inputs, output: caught.append(output))
    try:
        prefixes = [t.num_prefix_tokens for t in run_frozen(backbone, images, batch_size, preprocess)]
    finally:
        hook.remove()
    return torch.cat([qkv.chunk(3, dim=-1)[1][:, p:] for qkv, p in zip(caught, prefixes, strict=True)]).float()


def component(mask: Tensor, seed: Tensor) -> Tensor:
    """The 4-connected part of mask (B, h, w) bool that holds patch seed (B,); empty where mask is False there."""
    region = F.one_hot(seed, mask[0].numel()).view_as(mask).bool() & mask
    while True:
        padded = F.pad(region, (1, 1, 1, 1))
        spread = padded[:, :-2, 1:-1] | padded[:, 2:, 1:-1] | padded[:, 1:-1, :-2] | padded[:, 1:-1, 2:]
        grown = region | (spread & mask)
        if bool((grown == region).all()):
            return region
        region = grown


def bounding_boxes(mask: Tensor, scale: float = 1.0) -> Tensor:
    """Boxes (..., 4) x0 y0 x1 y1 (ends exclusive) around masks (..., h, w), times scale; -1 where a mask is empty."""
    ends = []
    for axis in (-2, -1):  # any over rows leaves columns: x first
        hit = mask.any(axis)
        length = hit.shape[-1]
        index = torch.arange(length, device=mask.device)
        ends.append((torch.where(hit, index, length).amin(-1), torch.where(hit, index + 1, 0).amax(-1)))
    (left, right), (top, bottom) = ends
    boxes = torch.stack([left, top, right, bottom], -1).float() * scale
    return torch.where(mask.flatten(-2).any(-1)[..., None], boxes, torch.full_like(boxes, -1.0))


def lost(features: Tensor, grid: tuple[int, int], num_candidates: int = 100, patch_size: float = 1.0) -> Found:
    """Seed expansion: the patch that agrees with the fewest others, and those like it.

    features: (B, N, D), best the last block's keys, not normalised. S = K K^T; degree of a patch = number of others
    with S > 0; seed = lowest degree; the num_candidates lowest-degree patches that agree with the seed vote.
    Objects are taken to be smaller than the background. Raises ValueError on bad shapes or non-finite features.
    Source: Simeoni et al. 2021 (arXiv 2109.14279) and its released code (raw similarities, not binary ones).
    """
    check_patches(features, grid)
    require(num_candidates >= 1, f"num_candidates: expected at least 1, got {num_candidates}")
    similarity = features.float() @ features.float().transpose(1, 2)
    positive = similarity > 0
    degree = positive.sum(-1) - positive.diagonal(dim1=1, dim2=2).long()
    order = degree.argsort(dim=1, stable=True)
    seed = order[:, 0]
    row = torch.arange(len(features), device=features.device)
    candidates = torch.zeros_like(degree, dtype=torch.bool).scatter(1, order[:, :num_candidates], True)
    candidates &= positive[row, seed]
    candidates[row, seed] = True
    votes = (candidates[:, None].float() @ similarity)[:, 0]
    mask = component((votes > 0).unflatten(1, tuple(grid)), seed)
    return Found(seed, mask, bounding_boxes(mask, patch_size))


def tokencut(
    features: Tensor, grid: tuple[int, int], threshold: float = 0.2, weak: float = 1e-5, patch_size: float = 1.0
) -> Found:
    """Normalised cut of the patch graph: edges of weight 1 where cosine > threshold, else weak.

    features: (B, N, D), best the last block's keys. Solves (D - W) y = lambda D y and splits the second eigenvector
    at its mean; the side of its largest entry is the object, cut down to the part connected with that entry.
    Raises ValueError on bad shapes or non-finite features. Source: Wang et al. 2022 (arXiv 2202.11539).
    """
    check_patches(features, grid)
    unit = F.normalize(features.double(), dim=-1)
    weights = torch.where(unit @ unit.transpose(1, 2) > threshold, 1.0, weak).double()
    root = weights.sum(-1).rsqrt()
    # Symmetric form of the generalised problem: with z = D^(1/2) y it reads (I - D^-1/2 W D^-1/2) z = lambda z.
    identity = torch.eye(weights.shape[-1], dtype=torch.float64, device=weights.device)
    vectors = torch.linalg.eigh(identity - root[:, :, None] * weights * root[:, None, :])[1]
    second = vectors[..., 1] * root
    seed = second.abs().argmax(1)
    row = torch.arange(len(second), device=second.device)
    side = second > second.mean(1, keepdim=True)
    side = torch.where(side[row, seed][:, None], side, ~side)
    mask = component(side.unflatten(1, tuple(grid)), seed)
    return Found(seed, mask, bounding_boxes(mask, patch_size))


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes a, b (..., 4) x0 y0 x1 y1, broadcast against each other; 0 where either box is empty."""
    corner = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    overlap = corner.clamp_min(0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp_min(0).prod(-1) for box in (a, b)]
    return overlap / (areas[0] + areas[1] - overlap).clamp_min(1e-12)


def corloc(predicted: Tensor, truth: Tensor, threshold: float = 0.5) -> float:
    """Share of images, in [0, 1], whose box has IoU >= threshold with any true box.

    predicted (B, 4), truth (B, K, 4), x0 y0 x1 y1 with exclusive ends; an absent object is a box of -1.
    Raises ValueError on bad shapes, an empty set, or boxes that are not finite.
    """
    check_rank("predicted", predicted, 2)
    check_rank("truth", truth, 3)
    fits = len(predicted) == len(truth) >= 1 and predicted.shape[1] == truth.shape[2] == 4 and truth.shape[1] >= 1
    require(fits, f"boxes: expected (B, 4) and (B, K, 4), got {tuple(predicted.shape)} and {tuple(truth.shape)}")
    check_finite("predicted", predicted)
    check_finite("truth", truth)
    best = box_iou(predicted[:, None].float(), truth.float().to(predicted.device)).amax(1)
    return float((best >= threshold).float().mean())


def centre_boxes(count: int, height: int, width: int, share: float = 0.5) -> Tensor:
    """The control for corloc: in every image the same centred box with `share` of either side, (count, 4)."""
    margin = (1 - share) / 2
    box = torch.tensor([margin * width, margin * height, (1 - margin) * width, (1 - margin) * height])
    return box.repeat(count, 1)
