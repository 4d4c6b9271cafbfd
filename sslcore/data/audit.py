"""What to look at before pre-training on a set: duplicates, a filter of several detectors, and what slips through."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcore.validate import check_finite, check_float, check_images, check_rank, require


class Duplicates(NamedTuple):
    """Pairs of images that look alike, most alike first: pairs (P, 2) with i < j, similarity (P,), mirrored (P,)."""

    pairs: Tensor
    similarity: Tensor
    mirrored: Tensor


def _thumbnails(images: Tensor, side: int) -> Tensor:
    """(N, side * side) grey thumbnails, mean 0 and length 1; all zeros for a flat image."""
    small = F.adaptive_avg_pool2d(images.float().mean(1, keepdim=True), side).flatten(1)
    small = small - small.mean(1, keepdim=True)
    length = small.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-3 * side, small / length.clamp_min(1e-12), torch.zeros_like(small))


def find_duplicates(
    images: Tensor, threshold: float = 0.95, *, side: int = 16, mirrored: bool = True, chunk: int = 1024
) -> Duplicates:
    """All pairs whose grey thumbnails correlate at least `threshold`.

        t = thumbnails of side x side, mean 0, length 1
        for i < j: similarity = max(t[i] @ t[j], t[i] @ mirror(t[j]))

    images: (N, C, H, W). Blind to brightness, contrast, size and, with mirrored, to left and right; not to turns, crops
    or what colour something has. threshold in (0, 1]: a knob, so look at the pairs. Flat images match nothing. Memory
    is chunk * N. Raises ValueError for a threshold or side out of range, TypeError for other than images.
    """
    check_images("images", images)
    require(0 < threshold <= 1, f"threshold: expected a correlation in (0, 1], got {threshold}")
    require(2 <= side <= min(images.shape[2:]), f"side: expected 2 to {min(images.shape[2:])}, got {side}")
    require(chunk >= 1, f"chunk: expected at least 1, got {chunk}")
    rows = _thumbnails(images, side)
    flipped = rows.unflatten(1, (side, side)).flip(2).flatten(1)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        plain = part @ rows.T
        turned = part @ flipped.T if mirrored else torch.full_like(plain, -1.0)
        similarity = torch.maximum(plain, turned).triu(start + 1)
        # A float's breath below: two equal images must match at threshold 1.
        index = (similarity >= threshold - 1e-5).nonzero()
        first, second = index.unbind(1)
        index = torch.stack([first + start, second], dim=1)
        found.append((index, similarity[first, second], turned[first, second] > plain[first, second]))
    pairs, similarity, turned = (torch.cat(part) for part in zip(*found, strict=True))
    order = similarity.argsort(descending=True, stable=True)
    return Duplicates(pairs[order], similarity[order].clamp_max(1.0), turned[order])


class Sieved(NamedTuple):
    """keep (N,) bool; looked_at and dropped: images that each stage had to score, and those it took out."""

    keep: Tensor
    looked_at: dict[str, int]
    dropped: dict[str, int]


def sieve(scores: Mapping[str, Tensor], thresholds: Mapping[str, float]) -> Sieved:
    """Keep the images that score below the threshold of every detector, one stage after the other.

        for stage in scores:                                   # in order: the cheap detector first
            dropped[stage] = left & (scores[stage] >= thresholds[stage])
            left = left & ~dropped[stage]

    scores: {stage: (N,) detector scores}. thresholds: one a stage. Which images are kept does not depend on the order
    of the stages, only how many each of them has to look at. A higher threshold keeps more.
    Raises ValueError for no stage, scores of different length, names that differ, or NaN; TypeError for integers.
    """
    require(len(scores) >= 1, "scores: expected at least one stage, got none")
    require(set(scores) == set(thresholds), f"thresholds: expected {sorted(scores)}, got {sorted(thresholds)}")
    count = len(next(iter(scores.values())))
    left, looked_at, dropped = None, {}, {}
    for stage, values in scores.items():
        check_rank(f"scores of {stage}", values, 1)
        check_float(f"scores of {stage}", values)
        check_finite(f"scores of {stage}", values)
        require(len(values) == count, f"scores of {stage}: expected {count}, got {len(values)}")
        require(not math.isnan(thresholds[stage]), f"threshold of {stage}: expected a number, got nan")
        left = torch.ones_like(values, dtype=torch.bool) if left is None else left
        hit = left & (values >= thresholds[stage])
        looked_at[stage], dropped[stage] = int(left.sum()), int(hit.sum())
        left = left & ~hit
    return Sieved(left, looked_at, dropped)


def residual_share(prevalence: float, recalls: Sequence[float], false_alarms: Sequence[float] = ()) -> float:
    """Share of the kept images that should have gone, if the detectors err independently.

        missed = prevalence * prod(1 - recalls);  clean = (1 - prevalence) * prod(1 - false_alarms)
        return missed / (missed + clean)

    recalls, false_alarms: one a stage, the share of wanted hits and of clean images that it drops; no false_alarms
    means none. Detectors that miss the same images leave more than this. All numbers in [0, 1]. Returns 0 where nothing
    is kept. Raises ValueError for numbers out of range or false_alarms of another length.
    """
    require(len(recalls) >= 1, "recalls: expected at least one stage, got none")
    stages = len(recalls)
    require(len(false_alarms) in (0, stages), f"false_alarms: expected {stages} or none, got {len(false_alarms)}")
    for name, values in (("prevalence", [prevalence]), ("recalls", recalls), ("false_alarms", false_alarms)):
        require(all(0 <= value <= 1 for value in values), f"{name}: expected numbers in [0, 1], got {list(values)}")
    missed = prevalence * math.prod(1 - recall for recall in recalls)
    clean = (1 - prevalence) * math.prod(1 - alarm for alarm in false_alarms)
    return missed / (missed + clean) if missed + clean > 0 else 0.0
