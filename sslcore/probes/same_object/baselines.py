"""The ladder of probes, baselines and the capacity control of one layer, all scored on instances and the same pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from sslcore.probes.same_object.fit import same_object_probe
from sslcore.probes.same_object.labels import token_grid
from sslcore.probes.same_object.metrics import image_auroc
from sslcore.probes.same_object.pairs import Pairs
from sslcore.probes.same_object.pointwise import pointwise_probe
from sslcore.probes.same_object.probe import KINDS
from sslcore.probes.same_object.report import SPLITS, scene_pairs
from sslcore.probes.same_object.tasks import permuted_pairs, token_targets

Found = tuple[float, tuple[float, float]]  # AUROC and its 95 % interval over images


def baselines(
    tokens: Mapping[str, Tensor], scenes: Sequence[object], asked: Mapping[str, Pairs], patch_size: int, seed: int = 0
) -> dict[str, Found]:
    """{"additive, twins": (AUROC, interval), ...} for each named set of test pairs: every kind of pair probe, trained
    on pairs of twins; the low-rank one on shuffled answers (one fit, so it may miss 0.5 by luck); and the pointwise
    probes. And of the control task: "permuted ids, fresh" (chance, unless something leaks) and "permuted ids, by
    heart" (on its own training pairs: what the probe can memorise).

    tokens: {split: (1, M, T, d)} of one layer. asked: named pairs of the test split.
    """
    found: dict[str, Found] = {}

    def add(title: str, score: Tensor, pairs: Pairs) -> None:
        found[title] = image_auroc(score, pairs.same, pairs.image)

    grid = token_grid(*scenes[0].images.shape[-2:], tokens["train"].shape[2])
    twins = {s: scene_pairs(part, patch_size, grid, seed) for s, part in zip(SPLITS[:2], scenes[:2], strict=True)}
    shuffled = {s: pairs.shuffled(seed) for s, pairs in twins.items()}
    ladder = {kind: (kind, twins) for kind in KINDS} | {"shuffled labels": ("lowrank", shuffled)}
    for title, (kind, answers) in ladder.items():
        rung = same_object_probe(*((tokens[s], answers[s]) for s in SPLITS[:2]), kind=kind, seed=seed)
        for name, pairs in asked.items():
            add(f"{title}, {name}", rung.score(tokens["test"], pairs)[0], pairs)
    for kind in ("class", "identity"):
        target, count = token_targets(scenes[0], patch_size, kind)
        probe = pointwise_probe(tokens["train"], target, kind, count, seed=seed)
        for name, pairs in asked.items():
            add(f"{kind}, {name}", probe.score(tokens["test"], pairs)[0], pairs)
    dealt = {s: permuted_pairs(part, patch_size, seed + 3) for s, part in zip(SPLITS, scenes, strict=True)}
    heart = same_object_probe(*((tokens[s], dealt[s]) for s in ("train", "val")), seed=seed)
    for split, name in (("test", "fresh"), ("train", "by heart")):
        pairs = dealt[split]
        add(f"permuted ids, {name}", heart.score(tokens[split], pairs)[0], pairs)
    return found
