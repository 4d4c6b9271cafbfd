"""Layer-wise curves of many networks from one batched run of probes; tokens of networks that see part of an image."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sslcore.probes.frozen import extract, frozen, prepare, run_frozen, select_layers
from sslcore.probes.same_object.capacity import place_r2
from sslcore.probes.same_object.fit import FittedProbe, same_object_probe
from sslcore.probes.same_object.pairs import Pairs
from sslcore.probes.same_object.report import SPLITS, Score, score_layers
from sslcore.validate import require

Features = Mapping[str, Tensor]  # split -> (L, M, T, d) or (M, T, d)


class LayerCurve(NamedTuple):
    """One network's curve: a Score a layer; the layer val prefers; the fitted probes (row = layer) and test logits."""

    scores: list[Score]
    best: int
    fitted: FittedProbe
    logits: Tensor


def all_layers(backbone: nn.Module, scenes: Sequence[object], layers: Sequence[int] | str = "all") -> dict[str, Tensor]:
    """{"train" | "val" | "test": tokens (L, M, T, d)} of a frozen network.

    Raises ValueError for a network without layers, or whose layers differ in their tokens or width, as in a conv net.
    """
    for tokens in run_frozen(backbone, scenes[0].images[:1], 1, return_layers=True):
        require(tokens.layers is not None, f"{type(backbone).__name__} returned no layers")
        shapes = {tuple(layer.shape[1:]) for layer in tokens.layers}
        require(len(shapes) == 1, f"{type(backbone).__name__}: expected layers of one shape, got {sorted(shapes)}")
    return {s: extract(backbone, part.images, "tokens", 32, layers) for s, part in zip(SPLITS, scenes, strict=True)}


def part_of(fitted: FittedProbe, rows: slice) -> FittedProbe:
    """The probes of some rows as a FittedProbe of their own."""
    probe = copy.copy(fitted.probe)
    probe._parameters = {name: nn.Parameter(value[rows]) for name, value in fitted.probe.named_parameters()}
    return FittedProbe(probe, fitted.mean[rows], fitted.std[rows], fitted.val_auroc[rows])


def layer_curves(networks: Mapping[str, Features], pairs: Mapping[str, Pairs], **fit: object) -> dict[str, LayerCurve]:
    """Fit and score the probes of all layers of all networks at once.

    networks: {name: {split: tokens (L, M, T, d)}} (or (M, T, d) for one layer), e.g. from all_layers; those of one
    width share a batched run, in which each probe ends where it would have ended alone. pairs: {split: Pairs}.
    fit: see same_object_probe.
    """
    require(len(networks) > 0, "networks: expected at least one, got none")
    stacks = {name: {s: f[s] if f[s].ndim == 4 else f[s][None] for s in SPLITS} for name, f in networks.items()}
    found: dict[str, LayerCurve] = {}
    for width in dict.fromkeys(part["train"].shape[-1] for part in stacks.values()):
        names = [name for name, part in stacks.items() if part["train"].shape[-1] == width]
        together = {s: torch.cat([stacks[name][s] for name in names]) for s in SPLITS}
        fitted = same_object_probe((together["train"], pairs["train"]), (together["val"], pairs["val"]), **fit)
        scores, logits = score_layers(fitted, together["test"], pairs["test"])
        start = 0
        for name in names:
            rows = slice(start, start + len(stacks[name]["train"]))
            start = rows.stop
            best = max(range(rows.stop - rows.start), key=lambda i, rows=rows: scores[rows][i].val_auroc)
            found[name] = LayerCurve(scores[rows], best, part_of(fitted, rows), logits[rows])
    return {name: found[name] for name in networks}


def masked_layers(
    backbone: nn.Module,
    images: Tensor,
    ids_keep: Tensor,
    layers: Sequence[int] | str = "all",
    misaligned: bool = False,
    batch_size: int = 32,
) -> Tensor:
    """Tokens (L, M, T, d) of a vision transformer that sees only the patches ids_keep (M, V); hidden ones are 0.

    misaligned=True lays the visible tokens out in the order in which the encoder returned them, as if ids_keep had been
    sorted: each visible place then holds the token of another one. That is what a probe reads when it forgets that a
    masked autoencoder shuffles its input.
    """
    num_tokens = (images.shape[-1] // backbone.patch_size) * (images.shape[-2] // backbone.patch_size)
    found = []
    with frozen(backbone):
        for batch, ids in zip(images.split(batch_size), ids_keep.split(batch_size), strict=True):
            tokens = backbone(prepare(backbone, batch, None), ids_keep=ids, return_layers=True)
            chosen = select_layers(layers, len(tokens.layers))
            part = torch.stack([tokens.layers[i][:, tokens.num_prefix_tokens :] for i in chosen]).float()
            places = ids.sort(1).values if misaligned else ids
            full = part.new_zeros(*part.shape[:2], num_tokens, part.shape[-1])
            found.append(full.scatter(2, places[None, :, :, None].expand_as(part), part))
    return torch.cat(found, 1)


def first_blocks(backbone: nn.Module, count: int) -> nn.Module:
    """The network up to the output of block `count`, sharing its weights: what comes later costs nothing."""
    require(0 < count <= len(backbone.blocks), f"count: expected 1 to {len(backbone.blocks)} blocks, got {count}")
    short = copy.copy(backbone)
    short._modules = {**backbone._modules, "blocks": backbone.blocks[:count]}
    return short


def alignment_r2(backbone: nn.Module, train: Tensor, test: Tensor, misaligned: bool = False, seed: int = 0) -> float:
    """R^2 of a linear map from embeddings under a 75 % mask to row and column: see place_r2. train, test: images."""
    parts, places = [], []
    for images in (train, test):
        grid = tuple(side // backbone.patch_size for side in images.shape[-2:])
        tokens = grid[0] * grid[1]
        noise = torch.rand(len(images), tokens, generator=torch.Generator().manual_seed(seed))
        ids = noise.argsort(1)[:, : tokens // 4]
        places.append(ids.sort(1).values)
        full = masked_layers(backbone, images, ids, [0], misaligned)
        parts.append(full.gather(2, places[-1][None, :, :, None].expand(1, -1, -1, full.shape[-1])))
    return float(place_r2(*parts, tuple(places), grid))
