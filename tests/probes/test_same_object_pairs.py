"""Token labels, the choice of pairs and their matching, against plain loops."""

from __future__ import annotations

import collections

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sslcore.probes.same_object.labels import token_grid, token_labels
from sslcore.probes.same_object.metrics import auroc
from sslcore.probes.same_object.pairs import (
    MATCHES,
    Pairs,
    candidate_pairs,
    cap_pairs,
    cells,
    match_pairs,
    sample_pairs,
)
from tests.probes.planted import painted_scenes

GRID = (8, 8)


def scene_labels(num: int = 12, seed: int = 0):
    scenes = painted_scenes(num, seed)
    return *token_labels(scenes.masks, 4), scenes.extras["twin_of"]


def test_token_labels_match_a_loop_over_patches():
    masks = torch.randint(0, 4, (3, 8, 12), dtype=torch.uint8)
    labels, purity = token_labels(masks, 4)
    assert labels.shape == (3, 6)
    for image in range(3):
        for token in range(6):
            row, column = 4 * (token // 3), 4 * (token % 3)
            counts = collections.Counter(masks[image, row : row + 4, column : column + 4].flatten().tolist())
            most = max(counts.values())
            assert int(labels[image, token]) == min(key for key, count in counts.items() if count == most)
            assert float(purity[image, token]) == pytest.approx(most / 16)


def test_grid_is_found_from_the_image_shape():
    assert token_grid(32, 32, 16) == (4, 4)
    assert token_grid(32, 64, 8) == (2, 4)
    for height, width, tokens in ((32, 32, 15), (32, 64, 9), (32, 32, 0)):
        with pytest.raises(ValueError, match="tokens"):
            token_grid(height, width, tokens)


@pytest.mark.parametrize("stratum", ["same_class", "foreground", "all"])
def test_candidates_match_a_triple_loop(stratum):
    labels, purity, twin_of = scene_labels(5)
    twin_of = twin_of.clone()
    twin_of[0, :2] = -1  # image 0: objects 1 and 2 have no twin
    expected = []
    for image in range(5):
        for first in range(64):
            for second in range(first + 1, 64):
                a, b = int(labels[image, first]), int(labels[image, second])
                pure = purity[image, first] >= 0.6 and purity[image, second] >= 0.6
                if stratum == "foreground":
                    pure = pure and a > 0 and b > 0
                if stratum == "same_class":
                    pure = pure and a > 0 and b > 0 and int(twin_of[image, a - 1]) >= 0
                    pure = pure and (a == b or int(twin_of[image, a - 1]) == b - 1)
                if pure:
                    expected.append((image, first, second, a == b))
    pairs = candidate_pairs(labels, purity, GRID, twin_of, stratum)
    rows = [c.tolist() for c in (pairs.image, pairs.first, pairs.second, pairs.same)]
    assert list(zip(*rows, strict=True)) == expected


def displaced(pairs: Pairs) -> collections.Counter:
    width = pairs.grid[1]
    count = collections.Counter()
    for first, second, same in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.same.tolist(), strict=True):
        step = abs(first // width - second // width), abs(first % width - second % width)
        count[step] += 1 if same else -1
    return count


@pytest.mark.parametrize("match", MATCHES[1:])
def test_matched_cells_are_level_and_every_finer_matching_keeps_displacement_level(match):
    pairs = candidate_pairs(*scene_labels(40)[:2], GRID, scene_labels(40)[2])
    matched = match_pairs(pairs, match, torch.Generator().manual_seed(0))
    assert 0 < len(matched) < len(pairs) and matched.prior == 0.5
    assert set(displaced(matched).values()) == {0}
    cell = cells(matched, match)
    for value in torch.unique(cell):
        assert float(matched.same[cell == value].float().mean()) == 0.5
    # No cell could have given more: the scarcer answer is used up.
    everywhere = cells(pairs, match)
    most = sum(
        2 * min(int((inside & pairs.same).sum()), int((inside & ~pairs.same).sum()))
        for inside in (everywhere == value for value in torch.unique(everywhere))
    )
    assert len(matched) == most


@given(st.integers(0, 10_000))
def test_no_function_of_the_places_beats_chance_on_position_matched_pairs(seed):
    pairs = candidate_pairs(*scene_labels(20, 3)[:2], GRID, scene_labels(20, 3)[2])
    matched = match_pairs(pairs, "position", torch.Generator().manual_seed(seed))
    table = torch.randn(64, 64, generator=torch.Generator().manual_seed(seed))
    assert auroc(table[matched.first, matched.second], matched.same) == pytest.approx(0.5, abs=1e-12)


def test_without_matching_distance_gives_most_answers_away():
    labels, purity, twin_of = scene_labels(40)
    pairs = sample_pairs(labels, purity, GRID, twin_of, match="none")
    steps = torch.stack([pairs.first // 8 - pairs.second // 8, pairs.first % 8 - pairs.second % 8]).float()
    assert auroc(-steps.norm(dim=0), pairs.same) > 0.9


def test_midpoint_regions_are_symmetric_under_flips():
    pairs = candidate_pairs(*scene_labels(10)[:2], GRID, scene_labels(10)[2])
    flipped = Pairs(pairs.image, 63 - pairs.second, 63 - pairs.first, pairs.same, GRID)
    counts = [torch.unique(cells(p, "displacement+midpoint"), return_counts=True)[1] for p in (pairs, flipped)]
    assert torch.equal(counts[0].sort().values, counts[1].sort().values)


def test_cap_bounds_each_image_and_kind():
    labels, purity, twin_of = scene_labels(30)
    capped = cap_pairs(candidate_pairs(labels, purity, GRID, twin_of), 6, torch.Generator().manual_seed(1))
    for image in range(30):
        inside = capped.same[capped.image == image]
        assert int(inside.sum()) <= 3 and int((~inside).sum()) <= 3


def test_a_seed_fixes_the_sample_and_pairs_stay_sorted():
    labels, purity, twin_of = scene_labels(40)
    draws = [
        sample_pairs(labels, purity, GRID, twin_of, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0].first, draws[1].first) and torch.equal(draws[0].image, draws[1].image)
    assert len(draws[0]) == len(draws[2])
    assert bool((draws[0].image.diff() >= 0).all()) and bool((draws[0].first < draws[0].second).all())


def test_shuffling_keeps_the_share():
    labels, purity, twin_of = scene_labels(20)
    pairs = candidate_pairs(labels, purity, GRID, twin_of)
    assert pairs.shuffled(1).prior == pairs.prior and not torch.equal(pairs.shuffled(1).same, pairs.same)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"stratum": "twins"}, "stratum"),
        ({"match": "distance"}, "match"),
        ({"twin_of": None}, "twin_of"),
        ({"twin_of": torch.zeros(3, 4, dtype=torch.long)}, "twin_of"),
        ({"twin_of": torch.zeros(12, 2, dtype=torch.long)}, "twin_of"),
        ({"grid": (8, 9)}, "grid"),
        ({"purity": torch.ones(12, 3)}, "purity"),
        ({"max_pairs": 1}, "max_pairs"),
        ({"labels": torch.zeros(12, 64, dtype=torch.long)}, "same and different pairs"),
        ({"min_purity": 1.1}, "same and different pairs"),
    ],
)
def test_bad_input_is_named(change, message):
    labels, purity, twin_of = scene_labels()
    good = {"labels": labels, "purity": purity, "grid": GRID, "twin_of": twin_of}
    with pytest.raises(ValueError, match=message):
        sample_pairs(**(good | change))


@pytest.mark.parametrize(
    "masks, patch, message",
    [
        (torch.zeros(8, 8, dtype=torch.uint8), 4, "dimensions"),
        (torch.zeros(0, 8, 8, dtype=torch.uint8), 4, "at least one image"),
        (torch.zeros(1, 8, 8), 4, "integer"),
        (torch.zeros(1, 8, 9, dtype=torch.uint8), 4, "divisible"),
    ],
)
def test_bad_masks_are_named(masks, patch, message):
    with pytest.raises(ValueError, match=message):
        token_labels(masks, patch)
