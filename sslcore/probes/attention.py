"""What attention looks at: class-token maps, rollout, reach and spread. Needs a backbone that shows its attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from sslcore.probes.frozen import run_frozen
from sslcore.validate import check_rank, require

Preprocess = Callable[[Tensor], Tensor] | None


def check_attention(attention: Tensor, num_prefix_tokens: int = 0) -> None:
    """Raise unless attention is (B, H, T, T) with more tokens than prefix tokens."""
    check_rank("attention", attention, 4)
    require(attention.shape[2] == attention.shape[3], f"attention: expected T x T, got {tuple(attention.shape)}")
    enough = 0 <= num_prefix_tokens < attention.shape[2]
    require(enough, f"num_prefix_tokens: expected 0 to {attention.shape[2] - 1}, got {num_prefix_tokens}")


def batches(backbone: nn.Module, images: Tensor, batch_size: int, preprocess: Preprocess) -> Iterator[object]:
    """Tokens with attentions, batch by batch; ValueError for a backbone that gives none."""
    for tokens in run_frozen(backbone, images, batch_size, preprocess, return_attention=True):
        shown = tokens.attentions is not None and len(tokens.attentions) > 0
        require(shown, f"{type(backbone).__name__} shows no attention; use a ViT backbone for attention probes")
        yield tokens


def patch_attention(attention: Tensor, num_prefix_tokens: int) -> Tensor:
    """Patch-to-patch weights (B, H, N, N), rows summing to 1 again after class and register tokens are dropped."""
    check_attention(attention, num_prefix_tokens)
    block = attention[:, :, num_prefix_tokens:, num_prefix_tokens:].float()
    return block / block.sum(-1, keepdim=True).clamp_min(1e-12)


def _shapes(tensors: list[Tensor]) -> str:
    return ", ".join(str(tuple(tensor.shape)) for tensor in tensors)


def rollout(attentions: list[Tensor]) -> Tensor:
    """Product over blocks of (mean over heads + identity) / 2: L x (B, H, T, T) -> (B, T, T), rows sum to 1.

    Raises ValueError for no block, or blocks of different batches or lengths.
    Source: Abnar & Zuidema 2020 (arXiv 2005.00928).
    """
    require(len(attentions) > 0, "attentions: expected at least one block, got none")
    product = None
    for attention in attentions:
        check_attention(attention)
        batch, _, tokens, _ = attention.shape
        fits = product is None or product.shape[:2] == (batch, tokens)
        require(fits, "attentions: expected blocks of one batch and length, got " + _shapes(attentions))
        mixed = (attention.float().mean(1) + torch.eye(attention.shape[-1], device=attention.device)) / 2
        product = mixed if product is None else mixed @ product
    return product


def patch_distances(grid: tuple[int, int], patch_size: float = 1.0) -> Tensor:
    """Distances (N, N) between patch centres in pixels, N = h * w."""
    places = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).double()
    # Differences, not the expansion through dot products: the diagonal must be 0 exactly.
    return ((places[:, None] - places[None]).square().sum(-1).sqrt() * patch_size).float()


def mean_distance(
    attention: Tensor, grid: tuple[int, int], patch_size: float = 1.0, num_prefix_tokens: int = 0
) -> Tensor:
    """Average distance (B, H), in pixels, from a patch to what it attends to: sum_j A_ij |p_i - p_j|, mean over i."""
    block = patch_attention(attention, num_prefix_tokens)
    distances = patch_distances(grid, patch_size).to(block.device)
    require(distances.shape == block.shape[2:], f"grid: expected {block.shape[-1]} patches, got {grid}")
    return (block * distances).sum(-1).mean(-1)


def entropy(attention: Tensor, num_prefix_tokens: int = 0) -> Tensor:
    """Entropy (B, H) of patch-to-patch attention over log N: 0 looks at one patch, 1 at all alike. Needs N >= 2."""
    block = patch_attention(attention, num_prefix_tokens)
    require(block.shape[-1] >= 2, f"attention: expected at least 2 patches, got {block.shape[-1]}")
    return -torch.xlogy(block, block).sum(-1).mean(-1) / math.log(block.shape[-1])


def query_map(attention: Tensor, num_prefix_tokens: int) -> Tensor:
    """Attention (B, H, N) from the class token to the patches; without a class token the mean over patch queries."""
    check_attention(attention, num_prefix_tokens)
    rows = attention[:, :, 0] if num_prefix_tokens > 0 else attention.mean(2)
    return rows[..., num_prefix_tokens:]


def attention_maps(
    backbone: nn.Module, images: Tensor, layer: int = -1, batch_size: int = 64, preprocess: Preprocess = None
) -> Tensor:
    """Class-token attention of one block as maps (N, H, h, w), raw weights (prefix tokens take the rest of the mass).

    images: (N, C, H, W); uint8 is preprocessed as in extract. Without a class token: mean over all patch queries.
    Raises ValueError for a backbone without attention or a layer that is not there. Source: DINO (Caron et al. 2021).
    """
    found = []
    for tokens in batches(backbone, images, batch_size, preprocess):
        depth = len(tokens.attentions)
        require(-depth <= layer < depth, f"layer: expected -{depth} to {depth - 1}, got {layer}")
        found.append(query_map(tokens.attentions[layer], tokens.num_prefix_tokens).unflatten(-1, tuple(tokens.grid)))
    return torch.cat(found)


def attention_rollout(
    backbone: nn.Module, images: Tensor, batch_size: int = 64, preprocess: Preprocess = None
) -> Tensor:
    """Rollout from the class token to the patches as maps (N, h, w). Raises as attention_maps does."""
    found = []
    for tokens in batches(backbone, images, batch_size, preprocess):
        row = query_map(rollout(tokens.attentions)[:, None], tokens.num_prefix_tokens)[:, 0]
        found.append(row.unflatten(-1, tuple(tokens.grid)))
    return torch.cat(found)


def attention_distance(
    backbone: nn.Module, images: Tensor, batch_size: int = 64, preprocess: Preprocess = None
) -> Tensor:
    """Mean attention distance of every head, (L, H) in pixels, averaged over images. Raises as attention_maps does."""
    total = 0
    for tokens in batches(backbone, images, batch_size, preprocess):
        patch = images.shape[-2] / tokens.grid[0]
        rows = [mean_distance(a, tokens.grid, patch, tokens.num_prefix_tokens).sum(0) for a in tokens.attentions]
        total = total + torch.stack(rows)
    return total / len(images)


def attention_entropy(
    backbone: nn.Module, images: Tensor, batch_size: int = 64, preprocess: Preprocess = None
) -> Tensor:
    """Attention entropy of every head over log N, (L, H) in [0, 1], averaged over images. Raises as attention_maps."""
    total = 0
    for tokens in batches(backbone, images, batch_size, preprocess):
        total = total + torch.stack([entropy(a, tokens.num_prefix_tokens).sum(0) for a in tokens.attentions])
    return total / len(images)
