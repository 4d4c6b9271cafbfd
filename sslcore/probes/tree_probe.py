"""The trees in a network's attention, read with controls: block chosen on val, numbers read on test."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sslcore.probes.attachment import Attachment, attachment, part_to_whole, subtree_rand
from sslcore.probes.attention import Preprocess, batches, patch_attention
from sslcore.probes.same_object.labels import token_grid, token_labels
from sslcore.probes.trees import induce_trees, subtrees, tree_depths
from sslcore.validate import require


@dataclass(frozen=True)
class TreeReport:
    """Trees of the test scenes and what they are worth.

    block: the mask they grew from, chosen on val: "block 1", ... or "mean" of all. trees: (N, P) parents, -1 = root.
    attachment: see there. parts: part_to_whole, NaN without part masks. rand: subtrees of the root's children against
    objects. depth: mean steps up to the root.
    """

    block: str
    trees: Tensor
    attachment: Attachment
    parts: float
    rand: float
    depth: float

    def numbers(self) -> dict[str, float]:
        """Flat, for a table: kappa, accuracy, matched, neighbour, length, parts (if known), rand, depth."""
        seen = self.attachment
        row = {"kappa": seen.kappa, "accuracy": seen.accuracy, "matched": seen.matched, "neighbour": seen.neighbour}
        row |= {"length": seen.distance, "rand": self.rand, "depth": self.depth}
        return row if self.parts != self.parts else row | {"parts": self.parts}


def dependency_masks(
    backbone: nn.Module, images: Tensor, batch_size: int = 64, preprocess: Preprocess = None
) -> dict[str, Tensor]:
    """Soft dependency masks (N, P, P), entry [j, i] what receiver j gets of sender i, of each block and their mean.

    A DependencyViT gives its own. From any other transformer: the transpose of its patch-to-patch attention, averaged
    over heads, so that the parent of a patch is the one it attends to. Returns {"block 1": ..., "mean": ...} on the
    CPU. Raises ValueError for a backbone without attention.
    """
    found: list[list[Tensor]] = []
    for tokens in batches(backbone, images, batch_size, preprocess):
        own = getattr(tokens, "dependencies", None)
        if own is None:
            own = [patch_attention(a, tokens.num_prefix_tokens).mean(1).transpose(1, 2) for a in tokens.attentions]
        found.append([mask.float().cpu() for mask in own])
    blocks = [torch.cat(parts) for parts in zip(*found, strict=True)]
    return {f"block {n}": mask for n, mask in enumerate(blocks, 1)} | {"mean": torch.stack(blocks).mean(0)}


def tree_probe(
    backbone: nn.Module,
    val_scenes: object,
    test_scenes: object,
    *,
    flip: bool = False,
    batch_size: int = 64,
    preprocess: Preprocess = None,
) -> TreeReport:
    """Do the trees in a network's attention follow objects?

    val_scenes, test_scenes: images, masks (N, H, W), and, where known, extras["parts"] (N, H, W) with 1 = body, higher
    = a part. The mask with the highest kappa on val is read on test; do the same for every network you compare.
    flip: read the arrows the other way (the parent of a patch is the one that attends to it most).
    Raises ValueError without masks or attention.
    """
    chosen: dict[str, float] = {}
    for name, scenes in (("val_scenes", val_scenes), ("test_scenes", test_scenes)):
        require(getattr(scenes, "masks", None) is not None, f"{name}: expected instance masks (N, H, W), got none")

    def grown(mask: Tensor, scenes: object) -> tuple[Tensor, Tensor, Attachment]:
        grid = token_grid(*scenes.images.shape[-2:], mask.shape[1])
        labels = token_labels(scenes.masks, scenes.images.shape[-2] // grid[0])[0]
        trees = induce_trees(mask.transpose(1, 2) if flip else mask)
        return trees, labels, attachment(trees, labels, grid)

    for name, mask in dependency_masks(backbone, val_scenes.images, batch_size, preprocess).items():
        chosen[name] = grown(mask, val_scenes)[2].kappa
    best = max(chosen, key=chosen.get)
    mask = dependency_masks(backbone, test_scenes.images, batch_size, preprocess)[best]
    trees, labels, seen = grown(mask, test_scenes)
    parts = float("nan")
    if "parts" in test_scenes.extras:
        side = test_scenes.images.shape[-2] // token_grid(*test_scenes.images.shape[-2:], mask.shape[1])[0]
        parts = part_to_whole(trees, labels, token_labels(test_scenes.extras["parts"], side)[0])
    rand = subtree_rand(subtrees(trees), labels)
    return TreeReport(best, trees, seen, parts, rand, float(tree_depths(trees).float().mean()))
