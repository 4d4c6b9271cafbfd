"""Which pairs of tokens the same-object probe is asked about, and how chance is kept level.

Distance alone answers "same object?" for most pairs of an image: near tokens share an object. Matching takes that
away. Within every cell of pairs that look alike from where they lie, as many same as different pairs are kept:
  none                    every pair (distance alone is then a strong answer)
  displacement            cells of equal (|row step|, |column step|)
  displacement+midpoint   the same, and the midpoint in the same one of 5 x 5 regions of the image
  position                cells of equal token positions; no function of the two places can then do better than 0.5
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sslcore.validate import check_rank, require, unknown

MATCHES = ("none", "displacement", "displacement+midpoint", "position")
STRATA = ("same_class", "foreground", "all")
MIDPOINT_REGIONS = 5  # odd, so that a mirrored image falls into mirrored regions


@dataclass(frozen=True)
class Pairs:
    """P pairs of tokens of the same image, sorted by image: image, first < second (P,) long, same (P,) bool."""

    image: Tensor
    first: Tensor
    second: Tensor
    same: Tensor
    grid: tuple[int, int]

    def __len__(self) -> int:
        return len(self.image)

    def take(self, index: Tensor) -> Pairs:
        """The pairs chosen by a boolean mask or by indices in ascending order."""
        return Pairs(self.image[index], self.first[index], self.second[index], self.same[index], self.grid)

    def to(self, device: torch.device | str) -> Pairs:
        """The same pairs on another device."""
        columns = (column.to(device) for column in (self.image, self.first, self.second, self.same))
        return Pairs(*columns, self.grid)

    def shuffled(self, seed: int = 0) -> Pairs:
        """The same pairs with their answers permuted: what is then learnt is chance."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).to(self.same.device)
        return Pairs(self.image, self.first, self.second, self.same[order], self.grid)

    @property
    def prior(self) -> float:
        """Share of the pairs that lie on one object."""
        return float(self.same.float().mean())


def candidate_pairs(
    labels: Tensor,
    purity: Tensor,
    grid: tuple[int, int],
    twin_of: Tensor | None = None,
    stratum: str = "same_class",
    min_purity: float = 0.6,
) -> Pairs:
    """Every pair i < j inside an image that the stratum admits.

    labels, purity: (B, N) from token_labels; grid: (h, w) with h * w = N; twin_of: (B, K), twin's index or -1
    (object index = id - 1). stratum: "same_class" both tokens on one object that has a twin, or on the two twins;
    "foreground" both on objects; "all" also background, which counts as one more object.
    Tokens of purity below min_purity are left out. Raises ValueError on bad shapes or when twins are not given.
    """
    check_rank("labels", labels, 2)
    require(labels.shape == purity.shape, f"purity: expected shape {tuple(labels.shape)}, got {tuple(purity.shape)}")
    require(grid[0] * grid[1] == labels.shape[1], f"grid: expected {labels.shape[1]} tokens, got {grid}")
    if stratum not in STRATA:
        unknown("stratum", stratum, STRATA)
    usable = purity >= min_purity
    if stratum != "all":
        usable &= labels > 0
    if stratum == "same_class":
        require(twin_of is not None, "twin_of: the same-class stratum needs the index of each object's twin, got None")
        check_rank("twin_of", twin_of, 2)
        require(len(twin_of) == len(labels), f"twin_of: expected {len(labels)} rows, got {len(twin_of)}")
        columns = int(labels.max())
        require(columns <= twin_of.shape[1], f"twin_of: expected {columns} columns, got {twin_of.shape[1]}")
        # Id 0 is background; -1 + 1 = 0 marks "no twin", which no foreground token can equal.
        twin_id = torch.cat([torch.zeros_like(twin_of[:, :1]), twin_of + 1], 1).to(labels).gather(1, labels)
        usable &= twin_id > 0
    first, second = torch.triu_indices(labels.shape[1], labels.shape[1], 1, device=labels.device)
    found = []
    for start in range(0, len(labels), 32):  # chunks bound the (images, N * (N - 1) / 2) table
        rows = slice(start, start + 32)
        same = labels[rows][:, first] == labels[rows][:, second]
        keep = usable[rows][:, first] & usable[rows][:, second]
        if stratum == "same_class":
            keep &= same | (twin_id[rows][:, first] == labels[rows][:, second])
        image, pair = keep.nonzero(as_tuple=True)
        found.append((image + start, first[pair], second[pair], same[image, pair]))
    image, first, second, same = (torch.cat(column) for column in zip(*found, strict=True))
    return Pairs(image, first, second, same, tuple(grid))


def cells(pairs: Pairs, match: str) -> Tensor:
    """Number (P,) of the matching cell each pair falls into."""
    height, width = pairs.grid
    if match == "position":
        return pairs.first * (height * width) + pairs.second
    row_sum = pairs.first // width + pairs.second // width
    column_sum = pairs.first % width + pairs.second % width
    row_step = (pairs.first // width - pairs.second // width).abs()
    column_step = (pairs.first % width - pairs.second % width).abs()
    cell = row_step * width + column_step
    if match == "displacement+midpoint":
        row_region = (2 * row_sum + 1) * MIDPOINT_REGIONS // (4 * height - 2)
        column_region = (2 * column_sum + 1) * MIDPOINT_REGIONS // (4 * width - 2)
        cell = (cell * MIDPOINT_REGIONS + row_region) * MIDPOINT_REGIONS + column_region
    return cell


def rank_within(group: Tensor, generator: torch.Generator | None) -> Tensor:
    """Random rank 0, 1, ... of every element among the elements of its group. group: (P,) long >= 0."""
    shuffle = torch.randperm(len(group), generator=generator).to(group.device)
    order = shuffle[group[shuffle].argsort(stable=True)]
    counts = torch.bincount(group)
    starts = (counts.cumsum(0) - counts)[group[order]]
    rank = torch.empty_like(group)
    rank[order] = torch.arange(len(group), device=group.device) - starts
    return rank


def match_pairs(pairs: Pairs, match: str, generator: torch.Generator | None = None) -> Pairs:
    """Keep, in every cell, a random equal number of same and different pairs (see the top of this file)."""
    if match not in MATCHES:
        unknown("match", match, MATCHES)
    if match == "none" or len(pairs) == 0:
        return pairs
    cell = torch.unique(cells(pairs, match), return_inverse=True)[1]
    same = pairs.same.long()
    total = torch.bincount(cell)
    positive = torch.bincount(cell, weights=same.double()).long()
    quota = torch.minimum(positive, total - positive)
    return pairs.take(rank_within(cell * 2 + same, generator) < quota[cell])


def cap_pairs(pairs: Pairs, max_pairs: int, generator: torch.Generator | None = None) -> Pairs:
    """At most max_pairs // 2 same and as many different pairs of each image, so that big objects do not rule."""
    require(max_pairs >= 2, f"max_pairs: expected at least 2, got {max_pairs}")
    if len(pairs) == 0:
        return pairs
    return pairs.take(rank_within(pairs.image * 2 + pairs.same.long(), generator) < max_pairs // 2)


def sample_pairs(
    labels: Tensor,
    purity: Tensor,
    grid: tuple[int, int],
    twin_of: Tensor | None = None,
    stratum: str = "same_class",
    match: str = "position",
    min_purity: float = 0.6,
    max_pairs: int | None = None,
    generator: torch.Generator | None = None,
) -> Pairs:
    """The probe's pairs: candidates of the stratum, capped for each image, then matched over all images.

    Arguments as in candidate_pairs, match_pairs, cap_pairs; max_pairs=None keeps all. The cap comes first, so the
    matched cells stay exactly level. Raises ValueError when no pair of both kinds is left.
    """
    pairs = candidate_pairs(labels, purity, grid, twin_of, stratum, min_purity)
    if max_pairs is not None:
        pairs = cap_pairs(pairs, max_pairs, generator)
    pairs = match_pairs(pairs, match, generator)
    both = len(pairs) > 0 and bool(pairs.same.any()) and not bool(pairs.same.all())
    detail = f"stratum {stratum!r}, match {match!r}, min_purity {min_purity}"
    require(both, f"pairs: expected same and different pairs, got {len(pairs)} in all ({detail}); check the masks")
    return pairs
