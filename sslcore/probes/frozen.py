"""Features of a frozen backbone: evaluation mode, no gradients, every module left as it was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sslcore.validate import check_images, check_positive, require, unknown

POOLS = ("cls", "mean", "tokens")


@contextmanager
def frozen(backbone: nn.Module) -> Iterator[nn.Module]:
    """Evaluate backbone without gradients; on leaving, give each module back its own training flag."""
    flags = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    try:
        with torch.no_grad():
            yield backbone
    finally:
        for module, training in flags:
            module.training = training


def device_of(backbone: nn.Module, fallback: torch.device) -> torch.device:
    """Device of the first parameter, or fallback for a module without parameters."""
    parameter = next(backbone.parameters(), None)
    return fallback if parameter is None else parameter.device


def prepare(backbone: nn.Module, images: Tensor, preprocess: Callable[[Tensor], Tensor] | None) -> Tensor:
    """Turn uint8 images into what the backbone reads; float images count as prepared already."""
    images = images.to(device_of(backbone, images.device), non_blocking=True)
    if images.is_floating_point():
        return images
    preprocess = preprocess or getattr(backbone, "preprocess", None)
    if preprocess is None:
        from sslcore.views import normalize as preprocess
    return preprocess(images)


def run_frozen(
    backbone: nn.Module,
    images: Tensor,
    batch_size: int = 256,
    preprocess: Callable[[Tensor], Tensor] | None = None,
    **forward_arguments: bool,
) -> Iterator[object]:
    """Yield the backbone's Tokens for one batch of images after the other."""
    check_images("images", images)
    check_positive("batch_size", batch_size)
    with frozen(backbone):
        for batch in images.split(int(batch_size)):
            yield backbone(prepare(backbone, batch, preprocess), **forward_arguments)


def pool_layer(layer: Tensor, num_prefix_tokens: int, pool: str) -> Tensor:
    """Pool one layer (B, P+N, D): its first prefix token, the mean of its patches, or the patches themselves."""
    patches = layer[:, num_prefix_tokens:]
    if pool == "tokens":
        return patches
    return layer[:, 0] if pool == "cls" and num_prefix_tokens > 0 else patches.mean(1)


def select_layers(layers: Sequence[int] | str, available: int) -> list[int]:
    """Resolve "all" or a list of indices (negative ones count from the end) against the layers there are."""
    if isinstance(layers, str):
        require(layers == "all", f"layers: expected 'all', None or a list of indices, got {layers!r}")
        return list(range(available))
    chosen = [index + available if index < 0 else index for index in layers]
    valid = bool(chosen) and all(0 <= index < available for index in chosen)
    require(valid, f"layers: expected indices into {available} layers, got {list(layers)}")
    return chosen


def extract(
    backbone: nn.Module,
    images: Tensor,
    pool: str = "cls",
    batch_size: int = 256,
    layers: Sequence[int] | str | None = None,
    preprocess: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Frozen features of images, on the backbone's device, float32.

    images: (N, C, H, W); uint8 goes through preprocess (default: backbone.preprocess, else views.normalize),
        floating point is passed on as it is.
    pool: "cls" global descriptor, "mean" of the patch tokens, "tokens" keeps all N_p patch tokens.
    layers: None reads the final, normalised output; "all" or a list of indices reads the residual stream
        (0 = after the embedding, l = output of block l), where "cls" falls back to "mean" without a class token.
    Returns (N, D), or (N, N_p, D) for "tokens"; with layers an extra leading axis L.
    Raises ValueError on an unknown pool, on bad images, and where a net gives no layers.
    """
    if pool not in POOLS:
        unknown("pool", pool, POOLS)
    features = []
    arguments = {} if layers is None else {"return_layers": True}
    for tokens in run_frozen(backbone, images, batch_size, preprocess, **arguments):
        if layers is None:
            final = {"cls": tokens.cls_token, "tokens": tokens.patch_tokens}
            features.append(final[pool].float() if pool in final else tokens.patch_tokens.mean(1).float())
            continue
        require(tokens.layers is not None, f"{type(backbone).__name__} returned no layers; use layers=None")
        chosen = select_layers(layers, len(tokens.layers))
        pooled = [pool_layer(tokens.layers[index], tokens.num_prefix_tokens, pool) for index in chosen]
        features.append(torch.stack(pooled).float())
    return torch.cat(features, dim=0 if layers is None else 1)
