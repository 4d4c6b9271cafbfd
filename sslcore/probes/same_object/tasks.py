"""What each control and baseline is given, from scenes with masks and twins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sslcore.probes.same_object.capacity import permuted_ids
from sslcore.probes.same_object.controls import colour_features, pixel_features, position_features
from sslcore.probes.same_object.fit import FittedProbe
from sslcore.probes.same_object.labels import token_grid, token_labels
from sslcore.probes.same_object.pairs import Pairs, sample_pairs
from sslcore.probes.same_object.report import SPLITS
from sslcore.probes.same_object.subspace import (
    Subspace,
    pca_subspace,
    probe_subspace,
    random_subspace,
    regression_subspace,
)

RANDOM = 3  # random subspaces beside each probe's


def blind_features(scenes: Sequence[object], patch_size: int) -> dict[str, dict[str, Tensor]]:
    """Features without a network, {"position" | "colour" | "pixels": {split: (M, T, d)}}, for layer_curves."""
    images = [part.images for part in scenes]
    height, width = images[0].shape[-2:]
    grid = height // patch_size, width // patch_size
    found = {
        "position": [position_features(len(part), grid) for part in images],
        "colour": [colour_features(part, patch_size) for part in images],
        "pixels": pixel_features(images[0], images[1:], patch_size),
    }
    return {name: dict(zip(SPLITS, parts, strict=True)) for name, parts in found.items()}


def token_targets(scenes: object, patch_size: int, kind: str, min_purity: float = 0.6) -> tuple[Tensor, int]:
    """Answers (M, T) for pointwise_probe, -1 where the token is no clear case, and how many there are.

    "class": the number of the object's photo or shape among those these scenes show. "identity": the instance id, 0 =
    ground; the count is then twice the objects of a scene, so that slots are to spare.
    """
    labels, purity = token_labels(scenes.masks, patch_size)
    objects = scenes.extras["objects"]
    if kind == "identity":
        return torch.where(purity >= min_purity, labels, -1), 2 * objects.shape[1]
    shown = objects[objects >= 0].unique()
    number = torch.searchsorted(shown, objects.clamp_min(int(shown[0]))).gather(1, (labels - 1).clamp_min(0))
    return torch.where((purity >= min_purity) & (labels > 0), number, -1), len(shown)


def permuted_pairs(
    scenes: object, patch_size: int, seed: int = 0, min_purity: float = 0.6, **sampling: object
) -> Pairs:
    """Same-class pairs whose instance ids were dealt anew within each pair of twins; see permuted_ids."""
    labels, purity = token_labels(scenes.masks, patch_size)
    twin_of = scenes.extras["twin_of"]
    labels = permuted_ids(labels, purity >= min_purity, seed, twin_of)
    grid = token_grid(*scenes.masks.shape[-2:], labels.shape[1])
    generator = torch.Generator().manual_seed(seed)
    return sample_pairs(labels, purity, grid, twin_of, min_purity=min_purity, generator=generator, **sampling)


def visible_pairs(scenes: object, patch_size: int, ids_keep: Tensor, seed: int = 0, **sampling: object) -> Pairs:
    """Pairs of tokens that are both among ids_keep (M, V); sampling: see sample_pairs."""
    labels, purity = token_labels(scenes.masks, patch_size)
    hidden = torch.ones_like(labels, dtype=torch.bool).scatter(1, ids_keep, False)
    grid = token_grid(*scenes.masks.shape[-2:], labels.shape[1])
    generator = torch.Generator().manual_seed(seed)
    twin_of = scenes.extras.get("twin_of")
    return sample_pairs(labels, purity.masked_fill(hidden, 0), grid, twin_of, generator=generator, **sampling)


def control_subspaces(
    fitted: FittedProbe, tokens: Tensor, k: int, index: int = 0, seed: int = 0
) -> dict[str, Subspace]:
    """The probe's k directions and their controls: "pca" (leading directions of the tokens), "place" (those that tell a
    token's place, from a linear map), "random0".. drawn by lot. tokens: (M, T, d) of the probe's training scenes."""
    probe = probe_subspace(fitted, k, index)
    places = torch.eye(tokens.shape[1], device=tokens.device).expand(len(tokens), -1, -1)
    found: Mapping[str, Subspace] = {
        "probe": probe,
        "pca": pca_subspace(tokens, probe),
        "place": regression_subspace(tokens, places, probe),
    }
    return {**found, **{f"random{i}": random_subspace(probe, RANDOM * seed + i) for i in range(RANDOM)}}
