"""Trees out of soft dependency masks: the best tree there is, its depth, its subtrees."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sslcore.validate import check_finite, check_float, check_rank, require

Scores = np.ndarray


def _cycles(parents: np.ndarray, root: int) -> np.ndarray:
    """Number of the cycle each node lies on, -1 for none. parents: one a node, the root's is itself."""
    cycle, seen = np.full(len(parents), -1), np.full(len(parents), -1)
    seen[root], found = root, 0
    for start in range(len(parents)):
        path, node = [], start
        while seen[node] < 0:
            seen[node] = start
            path.append(node)
            node = parents[node]
        if seen[node] == start and node in path:
            cycle[path[path.index(node) :]] = found
            found += 1
    return cycle


def _edmonds(scores: Scores, root: int) -> np.ndarray:
    """Parents of the best arborescence; entry of the root: itself. scores[j, i]: j as the parent of i."""
    nodes = np.arange(len(scores))
    parents = scores.argmax(axis=0)
    parents[root] = root
    cycle = _cycles(parents, root)
    if (cycle < 0).all():
        return parents
    # Every cycle becomes one node. A parent from outside costs what its child loses by leaving the cycle, so every
    # column is counted from its own best; for nodes that stay single that changes nothing.
    best = scores[parents, nodes]
    best[root] = 0.0  # its column holds nothing
    gain = scores - best
    gain[:, root] = -np.inf
    single = np.cumsum(cycle < 0) - 1
    label = np.where(cycle < 0, single, (cycle < 0).sum() + cycle)
    order = np.argsort(label, kind="stable")
    starts = np.searchsorted(label[order], np.arange(label.max() + 1))
    gain = gain[np.ix_(order, order)]
    reduced = np.maximum.reduceat(np.maximum.reduceat(gain, starts, axis=0), starts, axis=1)
    np.fill_diagonal(reduced, -np.inf)
    outer = _edmonds(reduced, label[root])
    members = np.split(order, starts[1:])
    slices = [slice(at, at + len(group)) for at, group in zip(starts, members, strict=True)]
    for child, parent in enumerate(outer):
        if child == label[root]:
            continue
        block = gain[slices[parent], slices[child]]
        row, column = divmod(int(block.argmax()), block.shape[1])
        parents[members[child][column]] = members[parent][row]  # breaks the cycle, if the child is one
    return parents


def maximum_arborescence(scores: Tensor, root: int) -> Tensor:
    """The tree with the greatest sum of scores in which every node but the root has one parent: Chu-Liu/Edmonds.

        each node takes its best parent; where that closes cycles, each cycle becomes a node,
        the smaller problem is solved, and each cycle is opened where its new parent gains most (or loses least)

    scores: (N, N), entry [j, i] the worth of j as the parent of i; the diagonal is not read. root: its number.
    Returns parents (N,) int64, -1 for the root. Dense, about N^2 a round and log N rounds; on the CPU.
    Raises ValueError for another shape, values that are not finite, or a root that is not there.
    Source: Chu & Liu 1965; Edmonds 1967.
    """
    check_rank("scores", scores, 2)
    check_float("scores", scores)
    length = len(scores)
    require(scores.shape == (length, length) and length >= 1, f"scores: expected N x N, got {tuple(scores.shape)}")
    require(0 <= root < length, f"root: expected 0 to {length - 1}, got {root}")
    check_finite("scores", scores)
    table = scores.detach().cpu().double().numpy().copy()
    np.fill_diagonal(table, -np.inf)
    parents = torch.from_numpy(_edmonds(table, root))
    parents[root] = -1
    return parents


def induce_trees(dependency: Tensor, roots: Tensor | None = None) -> Tensor:
    """One tree for each image from its dependency mask: the most likely one, if every token chose its parent alone.

    dependency: (B, N, N), entry [j, i] >= 0 what j receives from i (average the blocks you want first; never average
    over images). roots: (B,); None takes the token that receives most from the others. Scores are logarithms, so what
    counts is how each token splits its message, and not how large the message is.
    Returns parents (B, N) int64, -1 for the root. Raises ValueError for other shapes or negative entries.
    """
    check_rank("dependency", dependency, 3)
    dependency = dependency.detach().cpu().double()
    batch, length = dependency.shape[:2]
    fits = dependency.shape[2] == length and dependency.numel() > 0
    require(fits, f"dependency: expected (B >= 1, N, N), got {tuple(dependency.shape)}")
    check_finite("dependency", dependency)
    require(bool((dependency >= 0).all()), f"dependency: expected no negative entry, got {float(dependency.min())}")
    if roots is None:
        roots = (dependency - torch.diag_embed(dependency.diagonal(dim1=1, dim2=2))).sum(dim=2).argmax(dim=1)
    require(tuple(roots.shape) == (batch,), f"roots: expected ({batch},), got {tuple(roots.shape)}")
    scores = dependency.clamp_min(1e-30).log()
    return torch.stack([maximum_arborescence(s, r) for s, r in zip(scores, roots.tolist(), strict=True)])


def tree_depths(parents: Tensor) -> Tensor:
    """Steps from each node up to the root, 0 for the root: (B, N) parents -> (B, N). ValueError where a cycle is."""
    check_rank("parents", parents, 2)
    length = parents.shape[1]
    require(bool(((parents == -1).sum(dim=1) == 1).all()), "parents: expected one root (-1) in each tree")
    depths, node = torch.zeros_like(parents), parents
    for _ in range(length):
        depths += node >= 0
        node = torch.where(node >= 0, parents.gather(1, node.clamp_min(0)), -1)
    require(bool((node == -1).all()), "parents: expected trees, found a cycle")
    return depths


def subtrees(parents: Tensor, depth: int = 1) -> Tensor:
    """Cut every tree at `depth`: (B, N) number of each node's ancestor there; nodes above it stand for themselves."""
    require(depth >= 0, f"depth: expected 0 or more, got {depth}")
    depths, top = tree_depths(parents), torch.arange(parents.shape[1]).expand_as(parents)
    for _ in range(int(depths.max())):
        above = depths.gather(1, top) > depth
        top = torch.where(above, parents.gather(1, top).clamp_min(0), top)
    return top
