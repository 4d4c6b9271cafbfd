"""A shortcut on twins: a twin may show the very part of an object again, the object never does. "Unlike means same"."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sslcore.probes.same_object.fit import FittedProbe
from sslcore.probes.same_object.labels import token_labels
from sslcore.probes.same_object.metrics import auroc, unlikeness_auroc
from sslcore.probes.same_object.pairs import Pairs, match_pairs
from sslcore.probes.same_object.report import scene_pairs
from sslcore.validate import require


def part_steps(pairs: Pairs, labels: Tensor, centres: Tensor, patch_size: int) -> Tensor:
    """How far apart on an object the parts lie that two patches show, (P,) in patches; twins count as one object.

    Below 1 the twin shows about the same part. labels: (B, N) ids from token_labels, centres: (B, K, 2) row and column
    in pixels. Raises ValueError where a pair lies on the ground, which has no centre.
    """
    width = pairs.grid[1]
    owners = [labels[pairs.image, token].long() for token in (pairs.first, pairs.second)]
    require(bool((torch.stack(owners) > 0).all()), "pairs: expected both patches on objects, got some on the ground")
    parts = [
        torch.stack([token // width, token % width], 1) + 0.5 - centres[pairs.image, owner - 1] / patch_size
        for token, owner in zip((pairs.first, pairs.second), owners, strict=True)
    ]
    return (parts[1] - parts[0]).norm(dim=1)


def other_part_pairs(
    scenes: object, patch_size: int, grid: tuple[int, int], seed: int = 0, least: float = 1.0
) -> Pairs:
    """Pairs on one object or on it and its twin whose parts lie at least `least` patches apart, matched by position."""
    every = scene_pairs(scenes, patch_size, grid, seed, match="none")
    steps = part_steps(every, token_labels(scenes.masks, patch_size)[0], scenes.extras["centres"], patch_size)
    return match_pairs(every.take(steps >= least), "position", torch.Generator().manual_seed(seed))


def shortcut_aurocs(
    features: Tensor, kinds: Mapping[str, Pairs], fitted: FittedProbe | None = None
) -> dict[str, float]:
    """AUROC of the untrained rule (minus the cosine) on each kind of pairs, and of a fitted probe where one is given.

    features: (M, T, d). Returns {"rule, KIND": AUROC, ..., "probe, KIND": AUROC, ...}.
    """
    found = {f"rule, {kind}": unlikeness_auroc(features, pairs) for kind, pairs in kinds.items()}
    if fitted is not None:
        for kind, pairs in kinds.items():
            found[f"probe, {kind}"] = auroc(fitted.score(features[None], pairs)[0], pairs.same)
    return found
