"""Baselines and the capacity control of one layer, all scored on instances and on the same test pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from sslcore.probes.same_object.fit import same_object_probe
from sslcore.probes.same_object.metrics import image_auroc
from sslcore.probes.same_object.pairs import Pairs
from sslcore.probes.same_object.pointwise import pointwise_probe
from sslcore.probes.same_object.report import SPLITS
from sslcore.probes.same_object.tasks import permuted_pairs, token_targets

Found = tuple[float, tuple[float, float]]  # AUROC and its 95 % interval over images


def baselines(
    tokens: Mapping[str, Tensor], scenes: Sequence[object], asked: Mapping[str, Pairs], patch_size: int, seed: int = 0
) -> dict[str, Found]:
    """{"class, twins": (AUROC, interval), ...} of the pointwise probes for each named set of test pairs, and of the
    control task: "permuted ids, fresh" (chance, unless something leaks) and "permuted ids, by heart" (on its own
    training pairs: what the probe can memorise).

    tokens: {split: (1, M, T, d)} of one layer. asked: named pairs of the test split.
    """
    found: dict[str, Found] = {}
    for kind in ("class", "identity"):
        target, count = token_targets(scenes[0], patch_size, kind)
        probe = pointwise_probe(tokens["train"], target, kind, count, seed=seed)
        for name, pairs in asked.items():
            found[f"{kind}, {name}"] = image_auroc(probe.score(tokens["test"], pairs)[0], pairs.same, pairs.image)
    dealt = {s: permuted_pairs(part, patch_size, seed + 3) for s, part in zip(SPLITS, scenes, strict=True)}
    heart = same_object_probe(*((tokens[s], dealt[s]) for s in ("train", "val")), seed=seed)
    for split, name in (("test", "fresh"), ("train", "by heart")):
        pairs = dealt[split]
        score = heart.score(tokens[split], pairs)[0]
        found[f"permuted ids, {name}"] = image_auroc(score, pairs.same, pairs.image)
    return found
