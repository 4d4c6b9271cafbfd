"""Graphs of positive pairs: links between instances, tracks within one, what follows from both; batches of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sslcore.validate import check_images, check_rank, require


class PairKinds(NamedTuple):
    """Pairs (P, 2) of node numbers, lower number first, none twice within a kind and none with itself."""

    intra: Tensor  # two views of one instance: the tracks
    inter: Tensor  # two instances in one view: the links
    mixed: Tensor  # one end of a link moved along its track: another instance in another view
    transitive: Tensor  # both ends moved

    def all(self) -> Tensor:
        """The pairs of all kinds, each once."""
        return tidy_pairs(torch.cat(list(self)))


def tidy_pairs(pairs: Tensor) -> Tensor:
    """(P, 2) -> the distinct unordered pairs of two different nodes, sorted. Raises ValueError for another shape."""
    check_rank("pairs", pairs, 2)
    require(pairs.shape[1] == 2, f"pairs: expected two columns, got shape {tuple(pairs.shape)}")
    pairs = pairs.sort(dim=1).values
    return pairs[pairs[:, 0] != pairs[:, 1]].unique(dim=0)


def close_pairs(links: Tensor, tracks: Tensor) -> PairKinds:
    """Transitive closure of depth one: at most one track at either end of exactly one link, and the tracks themselves.

        for a, b in links:                       # similar instances, similar view
            for x in (a, partner(a)):            # partner: the other end of the node's track, if it has one
                for y in (b, partner(b)):
                    pairs += (x, y)
        pairs += tracks

    links: (L, 2), tracks: (T, 2) node numbers, int64; a node ends at most one track. Longer chains are left out
    because errors multiply along them. Raises ValueError for other shapes, negative numbers, or a node on two tracks.
    Source: Wang, He & Gupta 2017 (arXiv 1708.02901), section on transitivity (from memory).
    """
    intra, inter = tidy_pairs(tracks), tidy_pairs(links)
    nodes = torch.cat([intra.flatten(), inter.flatten()])
    require(bool((nodes >= 0).all()), "links, tracks: expected node numbers of at least 0, got a negative one")
    ends = intra.flatten()
    require(len(ends.unique()) == len(ends), "tracks: expected every node on at most one track, got one on several")
    partner = torch.full((int(nodes.max()) + 1 if len(nodes) else 1,), -1, device=nodes.device)
    partner[ends] = intra.flip(1).flatten()
    a, b = inter.unbind(1)
    moved_a, moved_b = partner[a], partner[b]

    def joined(*sides: tuple[Tensor, Tensor]) -> Tensor:
        pairs = torch.cat([torch.stack(side, dim=1) for side in sides])
        return tidy_pairs(pairs[(pairs >= 0).all(dim=1)])

    return PairKinds(intra, inter, joined((moved_a, b), (a, moved_b)), joined((moved_a, moved_b)))


def pair_purity(pairs: Tensor, labels: Tensor) -> float:
    """Share of pairs (P, 2) whose two nodes have one label (N,). For reporting; no method may see it."""
    require(len(pairs) >= 1, "pairs: expected at least one, got none")
    return float((labels[pairs[:, 0]] == labels[pairs[:, 1]]).float().mean())


def cluster_links(clusters: Tensor, per_node: int, generator: torch.Generator | None = None) -> Tensor:
    """Links (L, 2) between nodes of one cluster: each node with `per_node` random others of it.

    clusters: (N,) cluster numbers, negative = in none. Alone in its cluster a node gets no link.
    """
    check_rank("clusters", clusters, 1)
    require(per_node >= 1, f"per_node: expected at least 1, got {per_node}")
    order = torch.randperm(len(clusters), generator=generator)
    order = order[clusters[order].argsort(stable=True)]
    order = order[clusters[order] >= 0]
    # In a shuffled order by cluster, the nodes 1, 2, ... places on (round the cluster) are random members of it.
    sizes = torch.unique_consecutive(clusters[order], return_counts=True)[1]
    start = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    size, place = sizes.repeat_interleave(sizes), torch.arange(len(order))
    links = [
        torch.stack([order, order[start + (place - start + step) % size]], dim=1) for step in range(1, per_node + 1)
    ]
    return tidy_pairs(torch.cat(links)) if len(order) else torch.zeros(0, 2, dtype=torch.long)


class PairBatches:
    """Batches of positive pairs for `fit`: called with (step, batch_size, generator) it gives a dict.

    images: (N, C, H, W) nodes. kinds: lists of pairs (P, 2); each row of a batch draws a kind, all equally likely,
    then a pair of that kind and which end comes first. labels: (N,) pairs of equal label (of their first end) are no
    negatives of each other; None makes every pair its own label.
    The batch holds "images" and "positives" (B, C, H, W) and "pair_labels" (B,).
    """

    def __init__(self, images: Tensor, kinds: Sequence[Tensor], labels: Tensor | None = None) -> None:
        check_images("images", images)
        require(len(kinds) >= 1 and all(len(kind) for kind in kinds), "kinds: expected pairs in every kind, got none")
        self.images, self.labels = images, labels
        self.pairs = torch.cat(list(kinds)).to(images.device)
        counts = torch.tensor([len(kind) for kind in kinds], device=images.device)
        self.counts, self.starts = counts, counts.cumsum(0) - counts

    def __call__(self, step: int, batch_size: int, generator: torch.Generator) -> dict[str, Any]:
        draws = torch.rand(3, batch_size, generator=generator, device=generator.device)
        kind, place, turn = draws.to(self.pairs.device)
        kind = (kind * len(self.counts)).long()
        row = self.starts[kind] + (place * self.counts[kind]).long().minimum(self.counts[kind] - 1)
        pairs = self.pairs[row]
        first, second = torch.where((turn < 0.5)[:, None], pairs, pairs.flip(1)).unbind(1)
        labels = torch.arange(batch_size, device=first.device) if self.labels is None else self.labels[first]
        return {"images": self.images[first], "positives": self.images[second], "pair_labels": labels}
