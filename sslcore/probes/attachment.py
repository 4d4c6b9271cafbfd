"""Do trees follow objects? Attachment beside what places alone give, parts to wholes, subtrees as objects."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sslcore.probes.attention import patch_distances
from sslcore.validate import check_rank, check_tensor, require


@dataclass(frozen=True)
class Attachment:
    """How often a token's parent lies on its own object, in [0, 1], over all scored tokens; and the base rates.

    matched: a parent as far away as the tree's parents are, in any direction. neighbour: one of the four tokens
    next to it. random: any other token. distance: mean length of the edges, in tokens. tokens: how many were scored.
    """

    accuracy: float
    matched: float
    neighbour: float
    random: float
    distance: float
    tokens: int

    @property
    def gain(self) -> float:
        """Accuracy over a parent equally far away."""
        return self.accuracy - self.matched

    @property
    def kappa(self) -> float:
        """The gain as a share of the greatest there could be: 0 as by place alone, 1 always right (Cohen's form)."""
        return self.gain / (1 - self.matched)


def _check(parents: Tensor, labels: Tensor) -> None:
    check_rank("parents", parents, 2)
    require(parents.numel() > 0, f"parents: expected at least one tree, got shape {tuple(parents.shape)}")
    if parents.is_floating_point() or parents.dtype == torch.bool:
        raise TypeError(f"parents: expected whole numbers, got {parents.dtype}")
    check_tensor("labels", labels)
    require(labels.shape == parents.shape, f"labels: expected {tuple(parents.shape)}, got {tuple(labels.shape)}")
    low, high = int(parents.min()), int(parents.max())
    last = parents.shape[1] - 1
    require(-1 <= low and high <= last, f"parents: expected -1 to {last}, got {low} to {high}")


def attachment(
    parents: Tensor, labels: Tensor, grid: tuple[int, int], counted: Tensor | None = None
) -> Attachment:
    """Attachment accuracy of trees over tokens, with its base rates.

        for each scored token i: right += labels[parent of i] == labels[i]
        matched: draw a distance from those of all scored edges, then any token at that distance (of those there are)

    parents: (B, N), -1 for a root. labels: (B, N) object of each token, 0 = background. counted: (B, N) bool, tokens to
    score; None scores all on objects. Roots are never scored.
    Raises ValueError for shapes that do not fit, or where nothing is left to score.
    """
    _check(parents, labels)
    distances = patch_distances(grid)
    require(len(distances) == parents.shape[1], f"grid: expected {parents.shape[1]} tokens, got {grid}")
    scored = (labels > 0) & (parents >= 0)
    if counted is not None:
        require(counted.shape == labels.shape, f"counted: expected {tuple(labels.shape)}, got {tuple(counted.shape)}")
        scored &= counted
    require(bool(scored.any()), "labels: expected at least one token on an object that has a parent")
    image, child = scored.nonzero(as_tuple=True)
    parent = parents[image, child]
    same = labels[image] == labels[image, child][:, None]  # (M, N)
    rows = distances[child]  # (M, N)
    away = rows > 0
    # Distances on a grid are roots of whole numbers: as such they are bins.
    bins, where = rows.square().round().long().unique(return_inverse=True)
    edges = torch.bincount(where[torch.arange(len(parent)), parent], minlength=len(bins)).double()
    shares = edges / edges.sum()
    there = torch.zeros(len(rows), len(bins), dtype=torch.double).scatter_add(1, where, torch.ones_like(rows).double())
    right = torch.zeros_like(there).scatter_add(1, where, same.double())
    weight = shares * (there > 0)
    matched = (weight * right / there.clamp_min(1)).sum(1) / weight.sum(1)
    near = (rows == 1).double()
    return Attachment(
        accuracy=float(same[torch.arange(len(parent)), parent].double().mean()),
        matched=float(matched.mean()),
        neighbour=float(((near * same).sum(1) / near.sum(1)).mean()),
        random=float(((away * same).double().sum(1) / away.double().sum(1)).mean()),
        distance=float(rows[torch.arange(len(parent)), parent].mean()),
        tokens=len(parent),
    )


def part_to_whole(parents: Tensor, labels: Tensor, parts: Tensor) -> float:
    """How often the first ancestor outside a token's part lies on the same object, over tokens of parts.

    labels: (B, N) objects, 0 = background. parts: (B, N) what of it, 1 = body, higher = a part. A token whose ancestors
    up to the root all lie in its part counts as wrong. ValueError where there is no token of a part.
    """
    _check(parents, labels)
    require(parts.shape == labels.shape, f"parts: expected {tuple(labels.shape)}, got {tuple(parts.shape)}")
    scored = (labels > 0) & (parts > 1)
    require(bool(scored.any()), "parts: expected at least one token of a part")
    piece, node = labels * (int(parts.max()) + 1) + parts, parents.clone()
    for _ in range(parents.shape[1]):
        up = (node >= 0) & (piece.gather(1, node.clamp_min(0)) == piece)
        node = torch.where(up, parents.gather(1, node.clamp_min(0)), node)
    found = (node >= 0) & (labels.gather(1, node.clamp_min(0)) == labels)
    return float(found[scored].double().mean())


def adjusted_rand(first: Tensor, second: Tensor) -> float:
    """Adjusted Rand index of two partitions of the same things, (N,) integers each: 1 = the same, 0 = as by chance."""
    check_rank("first", first, 1)
    require(first.shape == second.shape, f"second: expected {tuple(first.shape)}, got {tuple(second.shape)}")
    require(len(first) >= 2, f"first: expected at least two things, got {len(first)}")
    rows, columns = (labels.unique(return_inverse=True)[1] for labels in (first, second))
    table = torch.zeros(int(rows.max()) + 1, int(columns.max()) + 1, dtype=torch.double)
    table.index_put_((rows, columns), torch.ones(len(rows), dtype=torch.double), accumulate=True)

    def pairs(counts: Tensor) -> Tensor:
        return (counts * (counts - 1) / 2).sum()

    joint, one, other = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    chance = one * other / (len(first) * (len(first) - 1) / 2)
    best = (one + other) / 2
    return 1.0 if best == chance else float((joint - chance) / (best - chance))


def subtree_rand(groups: Tensor, labels: Tensor) -> float:
    """Adjusted Rand index of groups with objects, on tokens of objects only, mean over images with two or more objects.

    groups, labels: (B, N); labels 0 = background. ValueError where no image shows two objects.
    """
    check_rank("groups", groups, 2)
    require(labels.shape == groups.shape, f"labels: expected {tuple(groups.shape)}, got {tuple(labels.shape)}")
    scores = []
    for group, label in zip(groups, labels, strict=True):
        front = label > 0
        if len(label[front].unique()) >= 2:
            scores.append(adjusted_rand(group[front], label[front]))
    require(len(scores) > 0, "labels: expected an image with at least two objects")
    return sum(scores) / len(scores)
