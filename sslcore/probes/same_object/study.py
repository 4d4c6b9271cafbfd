"""One network, one layer, asked everything at once: is binding there, do heads carry it, what do edits cost?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sslcore.probes.frozen import run_frozen
from sslcore.probes.knn import knn_predict
from sslcore.probes.same_object.agreement import head_aurocs
from sslcore.probes.same_object.fit import FittedProbe, same_object_probe
from sslcore.probes.same_object.intervention import EDITS, Edit, run_from
from sslcore.probes.same_object.labels import token_grid, token_labels
from sslcore.probes.same_object.outcomes import SceneReadout, mean_interval
from sslcore.probes.same_object.report import SPLITS, Score, scene_pairs, score_layers
from sslcore.probes.same_object.subspace import Subspace
from sslcore.probes.same_object.tasks import control_subspaces


class Study(NamedTuple):
    """score: same-object AUROC of the layer on twins. head: test AUROC of the next block's head that val prefers.
    before: {"IoU" | "ARI" | "kNN": (B,)} of the untouched network. changes: {edit: {subspace: {outcome: (B,)}}}, after
    minus before; "random" is the mean of the random ones. energy: {edit: share of the tokens' spread that it moves}."""

    score: Score
    head: float
    before: dict[str, Tensor]
    changes: dict[str, dict[str, dict[str, Tensor]]]
    energy: dict[str, float]
    fitted: FittedProbe

    def table(self) -> str:
        """Aligned text: the untouched network, then every edit and subspace with the change and its interval."""
        before = "  ".join(f"{name} {float(values.nanmean()):.3f}" for name, values in self.before.items())
        lines = [f"twins AUROC {self.score.auroc:.3f}  best head {self.head:.3f}  {before}"]
        for kind, rows in self.changes.items():
            for name, outcomes in rows.items():
                cells = ["{} {:+.3f} [{:+.3f}, {:+.3f}]".format(n, *mean_interval(v)) for n, v in outcomes.items()]
                lines.append(f"  {kind:<8}{name:<7} " + "  ".join(cells))
        return "\n".join(lines)

    def numbers(self, space: str) -> dict[str, float]:
        """Mean changes in one subspace, "shuffle ARI" and the like, and the network's own scores."""
        changes = {kind: part[space] for kind, part in self.changes.items()}
        rows = {f"{kind} {n}": float(v.nanmean()) for kind, part in changes.items() for n, v in part.items()}
        own = {n: float(v.nanmean()) for n, v in self.before.items()}
        return {**rows, **own, "twins": self.score.auroc, "head": self.head}


def layer_sequences(backbone: nn.Module, images: Tensor, layer: int, batch_size: int = 32) -> Tensor:
    """The whole residual stream (N, P + T, D) at one layer, prefix tokens included."""
    return torch.cat([t.layers[layer].float() for t in run_frozen(backbone, images, batch_size, return_layers=True)])


def averaged(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of several outcomes, image by image."""
    return {name: torch.stack([row[name] for row in rows]).mean(0) for name in rows[0]}


def use_study(
    backbone: nn.Module,
    layer: int,
    scenes: Sequence[object],
    k: int = 8,
    alpha: float = 1.0,
    edits: Sequence[str] = EDITS,
    seed: int = 0,
    batch_size: int = 32,
    **fit: object,
) -> Study:
    """Fit a probe at `layer` on twins, edit its k first directions and equally large parts elsewhere, run the rest.

    scenes: train, val and test scenes with twins. Takes any network with transformer blocks without rotary positions, a
    course backbone or timm's behind the bridge, at any image size. Outcomes on test: see SceneReadout; and "kNN", the
    share of an image's object tokens whose photo is named by the 5 nearest untouched tokens of other images (the second
    half of the images asks the first).
    """
    streams = {s: layer_sequences(backbone, p.images, layer, batch_size) for s, p in zip(SPLITS, scenes, strict=True)}
    prefix = backbone.num_prefix_tokens
    tokens = {s: x[:, prefix:] for s, x in streams.items()}
    height, width = scenes[0].images.shape[-2:]
    grid = token_grid(height, width, tokens["train"].shape[1])
    patch = height // grid[0]
    pairs = {s: scene_pairs(part, patch, grid, seed) for s, part in zip(SPLITS, scenes, strict=True)}
    train, val = ((tokens[s][None], pairs[s]) for s in ("train", "val"))
    fitted = same_object_probe(train, val, seed=seed, **fit)
    score = score_layers(fitted, tokens["test"][None], pairs["test"])[0][0]
    # Only the block that reads this layer is asked: block number `layer`.
    heads = {s: head_aurocs(backbone, [streams[s]], pairs[s], first=layer)[0] for s in ("val", "test")}
    spaces = control_subspaces(fitted, tokens["train"], k, 0, seed)
    truth = {s: token_labels(part.masks, patch) for s, part in zip(SPLITS, scenes, strict=True)}

    def final(split: str, edit: Edit | None = None) -> Tensor:
        parts = []
        for start in range(0, len(streams[split]), batch_size):
            if edit is not None:  # labels of these images; the permutation may repeat from batch to batch
                edit.labels = truth[split][0][start : start + batch_size]
            parts.append(run_from(backbone, streams[split][start : start + batch_size], layer, edit))
        return torch.cat(parts)

    readout = SceneReadout(final("train"), *truth["train"])
    labels, purity = truth["test"]
    half, clear = len(labels) // 2, (labels > 0) & (purity >= readout.min_purity)
    photo = scenes[2].extras["objects"].gather(1, (labels - 1).clamp_min(0))
    known, names = final("test")[:half][clear[:half]], photo[:half][clear[:half]]

    def outcomes(edit: Edit | None = None) -> dict[str, Tensor]:
        tokens, told = final("test", edit), torch.full(labels.shape, torch.nan, dtype=torch.float64)
        asked = clear.clone()
        asked[:half] = False
        told[asked] = (knn_predict(known, names, tokens[asked], k=5) == photo[asked]).double()
        return {**readout(tokens, labels, purity), "kNN": told.nanmean(1)}

    before = outcomes()
    changes: dict[str, dict[str, dict[str, Tensor]]] = {}
    energy = {}

    def change(kind: str, space: Subspace, match: Subspace | None) -> tuple[dict[str, Tensor], float]:
        edit = Edit(kind, space, alpha, truth["test"][0], match=match, seed=seed)
        after = outcomes(edit)
        return {name: after[name] - before[name] for name in after}, edit.energy

    for kind in edits:
        found = {}
        for name, space in spaces.items():
            found[name], size = change(kind, space, None if name == "probe" else spaces["probe"])
            energy.setdefault(kind, size)  # the probe comes first; the others are scaled to it
        lots = [found.pop(name) for name in list(found) if name.startswith("random")]
        changes[kind] = {**found, "random": averaged(lots)}
    return Study(score, float(heads["test"][heads["val"].argmax()]), before, changes, energy, fitted)
