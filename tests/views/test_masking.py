"""Masks: exact counts, consistent indices, uniform or blocky, different for each image."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcore.views import block_mask, cube_mask, inverse_block_mask, multi_block_mask, random_mask


@given(st.integers(1, 5), st.integers(2, 80), st.floats(0.01, 0.99), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_indices_describe_one_permutation(batch, patches, ratio, seed):
    kept = int(patches * (1 - ratio) + 1e-9)
    if not 0 < kept < patches:
        with pytest.raises(ValueError, match="visible"):
            random_mask(batch, patches, ratio)
        return
    ids_keep, ids_restore, mask = random_mask(batch, patches, ratio, torch.Generator().manual_seed(seed))
    assert ids_keep.shape == (batch, kept) and mask.dtype == torch.bool
    assert (mask.sum(1) == patches - kept).all()
    assert not mask.gather(1, ids_keep).any()
    # visible patches first, then placeholders: un-shuffling puts every visible patch back in its place
    sequence = torch.full((batch, patches), -1)
    sequence[:, :kept] = ids_keep
    restored = sequence.gather(1, ids_restore)
    place = torch.arange(patches).expand(batch, -1)
    assert torch.equal(restored[~mask], place[~mask]) and (restored[mask] == -1).all()


@pytest.mark.parametrize(("patches", "ratio", "kept"), [(10, 0.9, 1), (64, 0.75, 16), (196, 0.75, 49), (10, 0.7, 3)])
def test_round_ratios_keep_the_round_count(patches, ratio, kept):
    assert random_mask(2, patches, ratio).ids_keep.shape == (2, kept)


def test_every_patch_is_hidden_equally_often():
    mask = random_mask(4000, 16, 0.75, torch.Generator().manual_seed(0)).mask
    assert (mask.float().mean(0) - 0.75).abs().max() < 0.035  # five standard errors
    assert len(mask.unique(dim=0)) > 500


@given(st.integers(2, 16), st.integers(2, 16), st.floats(0.1, 0.9), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_block_masks_hide_the_exact_count(height, width, ratio, seed):
    patches = height * width
    kept = int(patches * (1 - ratio) + 1e-9)
    if not 0 < kept < patches:
        with pytest.raises(ValueError, match="visible"):
            block_mask(3, (height, width), ratio)
        return
    generator = torch.Generator().manual_seed(seed)
    mask = block_mask(3, (height, width), ratio, generator)
    assert mask.shape == (3, patches) and mask.dtype == torch.bool
    assert (mask.sum(1) == patches - kept).all()


def test_block_masks_are_blocky_varied_and_cover_the_grid():
    def joins(mask):
        """Share of hidden patches whose right neighbour is hidden too."""
        mask = mask.view(-1, 14, 14).float()
        return float((mask[:, :, 1:] * mask[:, :, :-1]).sum() / mask[:, :, :-1].sum())

    generator = torch.Generator().manual_seed(0)
    blocks = block_mask(400, (14, 14), 0.4, generator)
    scattered = random_mask(400, 196, 0.4, generator).mask
    assert joins(scattered) < 0.45
    assert joins(blocks) > 0.75
    assert len(blocks.unique(dim=0)) > 390
    # whole blocks favour the centre, but no side over its opposite, and no patch is always visible
    often = block_mask(4000, (14, 14), 0.4, generator).float().mean(0)
    assert often.min() > 0.02 and often.max() < 0.9
    assert (often - often.flip(0)).abs().max() < 0.055  # five standard errors of a difference


def test_masks_repeat_with_the_seed():
    for draw in (lambda g: random_mask(4, 36, 0.6, g).mask, lambda g: block_mask(4, (6, 6), 0.6, g)):
        first, second, other = (draw(torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
        assert torch.equal(first, second) and not torch.equal(first, other)


def test_bad_input_raises():
    for ratio in (0.0, 1.0, -0.5, 1.5, float("nan"), 0.999):
        with pytest.raises(ValueError, match="ratio"):
            random_mask(2, 16, ratio)
        with pytest.raises(ValueError, match="ratio"):
            block_mask(2, (4, 4), ratio)
    with pytest.raises(ValueError, match="batch"):
        random_mask(0, 16)
    with pytest.raises(ValueError, match="num_patches"):
        random_mask(2, 1)
    with pytest.raises(ValueError, match="grid"):
        block_mask(2, (0, 4))
    with pytest.raises(ValueError, match="aspect"):
        block_mask(2, (4, 4), aspect=(2.0, 1.0))
    with pytest.raises(TypeError, match="generator"):
        random_mask(2, 16, generator=0)


@given(
    st.integers(1, 4), st.integers(1, 6), st.integers(1, 7), st.integers(1, 7), st.floats(0.05, 0.95), st.integers(0, 9)
)
@settings(max_examples=40, deadline=None)
def test_cubes_hide_the_exact_count(batch, time, height, width, ratio, seed):
    cells = time * height * width
    kept = int(cells * (1 - ratio) + 1e-9)
    if cells < 2 or not 0 < kept < cells:
        with pytest.raises(ValueError, match="expected at least 2|visible"):
            cube_mask(batch, (time, height, width), ratio, max_cubes=5)
        return
    mask = cube_mask(batch, (time, height, width), ratio, torch.Generator().manual_seed(seed), max_cubes=5)
    assert mask.shape == (batch, cells) and mask.dtype == torch.bool and (mask.sum(1) == cells - kept).all()


def test_cubes_are_boxes():
    # Cubes as large as a frame hide whole frames, and half of four frames is two of them.
    square = {"min_area": 36, "aspect": (0.999, 1.001)}
    frames = cube_mask(60, (4, 6, 6), 0.5, torch.Generator().manual_seed(3), **square).view(60, 4, 36)
    assert torch.equal(frames.all(2), frames.any(2)) and (frames.all(2).sum(1) == 2).all()
    assert len(frames.all(2).unique(dim=0)) == 6  # all pairs of frames, also those that are no neighbours


def test_cubes_last_and_stay_together_more_than_random_cells():
    cubes = cube_mask(200, (8, 7, 7), 0.4, torch.Generator().manual_seed(0)).view(200, 8, 7, 7).float()
    cells = random_mask(200, 392, 0.4, torch.Generator().manual_seed(0)).mask.view(200, 8, 7, 7).float()

    def agreement(mask):  # of neighbours in time, along rows and along columns
        return [float((mask.narrow(d, 1, mask.shape[d] - 1) == mask.narrow(d, 0, mask.shape[d] - 1)).float().mean())
                for d in (1, 2, 3)]  # fmt: skip

    assert min(agreement(cubes)) > 0.7 and max(agreement(cells)) < 0.55
    assert len(cubes.flatten(1).unique(dim=0)) == 200
    share = cubes.mean((0, 2, 3))
    assert (share[0] - share[7]).abs() < 0.08  # early and late frames alike


def test_cubes_are_reproduced_and_bad_settings_refused():
    first, second = (cube_mask(3, (4, 4, 4), generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
    for settings_, words in (
        ({"grid": (0, 4, 4)}, "grid"),
        ({"ratio": 1.0}, "ratio"),
        ({"aspect": (2.0, 1.0)}, "aspect"),
        ({"min_area": 17}, "min_area"),
        ({"max_cubes": 0}, "max_cubes"),
        ({"batch": 0}, "batch"),
    ):
        with pytest.raises(ValueError, match=words):
            cube_mask(**{"batch": 2, "grid": (4, 4, 4), **settings_})


def algorithm_one(rng: random.Random, side: int, target: int, smallest: int) -> torch.Tensor:
    """The paper's sampler in plain Python: a block counts if it adds something and no more than is missing."""
    mask, failures = torch.zeros(side, side, dtype=torch.bool), 0
    while mask.sum() < target and failures < 10:  # tries in a row
        missing = target - int(mask.sum())
        area, aspect = rng.uniform(min(smallest, missing), missing), 0.3 ** rng.uniform(-1, 1)
        height, width = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        failures += 1
        if 1 <= height < side and 1 <= width < side:
            top, left = rng.randint(0, side - height), rng.randint(0, side - width)
            block = mask[top : top + height, left : left + width]
            if 0 < int((~block).sum()) <= missing:
                mask[top : top + height, left : left + width], failures = True, 0
    return mask


def test_block_masks_look_like_the_papers():
    rng = random.Random(0)
    papers = torch.stack([algorithm_one(rng, 14, 79, 16) for _ in range(600)]).float()
    ours = block_mask(600, (14, 14), 0.4, torch.Generator().manual_seed(0)).view(600, 14, 14).float()
    assert 72 < papers.sum((1, 2)).mean() <= 79 and (ours.sum((1, 2)) == 79).all()  # the paper's may fall short

    def joins(mask):
        return float((mask[:, :, 1:] * mask[:, :, :-1]).sum() / mask[:, :, :-1].sum())

    assert abs(joins(papers) - joins(ours)) < 0.05
    often = torch.stack([papers.mean(0).flatten(), ours.mean(0).flatten()])
    assert torch.corrcoef(often)[0, 1] > 0.9  # the same places are hidden often and seldom
@given(st.integers(1, 4), st.integers(2, 15), st.integers(2, 15), st.floats(0.1, 0.9), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_inverse_blocks_keep_the_exact_count(batch, height, width, ratio, block):
    kept = int(height * width * (1 - ratio) + 1e-9)
    if not 0 < kept < height * width:
        with pytest.raises(ValueError, match="visible"):
            inverse_block_mask(batch, (height, width), ratio)
        return
    ids_keep, ids_restore, mask = inverse_block_mask(batch, (height, width), ratio, block=block)
    assert ids_keep.shape == (batch, kept) and mask.dtype == torch.bool
    assert (mask.sum(1) == height * width - kept).all() and not mask.gather(1, ids_keep).any()
    assert torch.equal(ids_restore.gather(1, ids_keep), torch.arange(kept).expand(batch, -1))
    assert torch.equal(ids_restore.sort(1).values, torch.arange(height * width).expand(batch, -1))


def test_inverse_blocks_are_squares_around_their_centres():
    # 9 of 49 visible and one centre: inside the grid the square and nothing else, at the border what is left of it
    mask = inverse_block_mask(2000, (7, 7), 0.8, torch.Generator().manual_seed(0)).mask.view(-1, 7, 7)
    squares = [torch.zeros(7, 7, dtype=torch.bool) for _ in range(49)]
    for centre, square in enumerate(squares):
        row, column = divmod(centre, 7)
        square[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = True
    for visible in ~mask:
        assert any(bool((visible & square).sum() == square.sum()) for square in squares)
    whole = torch.stack([square for square in squares if square.sum() == 9])
    alone = (~mask[:, None] == whole).all((2, 3)).sum(0)  # how often each of the 25 inner squares came out
    assert 0 < alone.min() and alone.sum() > 900 and len(mask.unique(dim=0)) > 500


def one_inverse_block(height, width, ratio, adjust, block, draw):
    """One mask patch by patch, as the method's public code goes about it; True = visible."""
    kept, visible = int(height * width * (1 - ratio)), np.zeros((height, width), bool)
    for _ in range(int(height * width * (1 - ratio + adjust) / block**2)):
        row, column = draw.integers(height), draw.integers(width)
        for y in range(row - block // 2, row - block // 2 + block):
            for x in range(column - block // 2, column - block // 2 + block):
                visible[min(max(y, 0), height - 1), min(max(x, 0), width - 1)] = True
    while visible.sum() > kept:
        visible.flat[draw.choice(np.flatnonzero(visible))] = False
    while visible.sum() < kept:
        visible.flat[draw.choice(np.flatnonzero(~visible))] = True
    return visible


def test_inverse_blocks_follow_the_law_of_a_slow_transcription():
    def facts(visible):  # mean and spread of right-hand neighbours both visible; how often each place is visible
        pairs = (visible[:, :, 1:] & visible[:, :, :-1]).sum((1, 2)).astype(float)
        return pairs.mean(), pairs.std(), visible.mean(0)

    draw = np.random.default_rng(0)
    slow = np.stack([one_inverse_block(14, 14, 0.8, 0.07, 3, draw) for _ in range(600)])
    generator = torch.Generator().manual_seed(0)
    fast = ~inverse_block_mask(6000, (14, 14), 0.8, generator).mask.view(-1, 14, 14).numpy()
    (pairs, spread, share), (slow_pairs, slow_spread, slow_share) = facts(fast), facts(slow)
    assert (fast.sum((1, 2)) == 39).all() and (slow.sum((1, 2)) == 39).all()
    assert abs(pairs - slow_pairs) < 5 * slow_spread / 600**0.5 and abs(spread / slow_spread - 1) < 0.15
    assert np.abs(share - slow_share).max() < 5 * 0.5 / 600**0.5
    scattered = ~random_mask(600, 196, 0.8, generator).mask.view(-1, 14, 14).numpy()
    assert facts(scattered)[0] < 10 < 15 < pairs


def test_inverse_blocks_are_reproduced_and_bad_settings_refused():
    first, second = (inverse_block_mask(3, (6, 6), generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first.mask, second.mask) and torch.equal(first.ids_keep, second.ids_keep)
    for wrong, word in (({"ratio": 1.0}, "ratio"), ({"block": 0}, "block"), ({"adjust": -0.3}, "adjust"),
                        ({"adjust": float("nan")}, "adjust")):  # fmt: skip
        with pytest.raises(ValueError, match=word):
            inverse_block_mask(3, (6, 6), **wrong)
    with pytest.raises(ValueError, match="batch"):
        inverse_block_mask(0, (6, 6))
    with pytest.raises(ValueError, match="grid"):
        inverse_block_mask(2, (0, 6))
@given(st.integers(1, 12), st.integers(2, 12), st.integers(1, 5), st.integers(1, 20), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_multi_blocks_always_hide_something_and_keep_enough(height, width, blocks, min_keep, seed):
    cells, generator = height * width, torch.Generator().manual_seed(seed)
    if min_keep >= cells:
        with pytest.raises(ValueError, match="min_keep"):
            multi_block_mask(3, (height, width), min_keep=min_keep)
        return
    mask = multi_block_mask(3, (height, width), blocks, min_keep=min_keep, generator=generator)
    assert mask.shape == (3, cells) and mask.dtype == torch.bool
    assert mask.any(1).all() and ((~mask).sum(1) >= min_keep).all()


def test_multi_blocks_are_rectangles_of_the_asked_area_and_shape():
    area, aspect = (0.15, 0.2), (0.75, 1.5)
    generator = torch.Generator().manual_seed(0)
    mask = multi_block_mask(500, (20, 20), 1, area, aspect, generator=generator).view(500, 20, 20)
    rows, columns = mask.any(2).sum(1), mask.any(1).sum(1)
    assert torch.equal(mask.sum((1, 2)), rows * columns)  # a filled rectangle, without holes or parts
    tall, share = rows / columns, rows * columns / 400
    assert tall.min() > 0.62 and tall.max() < 1.8 and tall.min() < 0.9 and tall.max() > 1.3  # rounding to whole cells
    assert share.min() > 0.12 and share.max() < 0.23 and (share.mean() - 0.175).abs() < 0.01
    assert torch.corrcoef(torch.stack([tall, share]))[0, 1].abs() < 0.2  # large blocks are not always the tall ones
    # four blocks of one shape: the union of four such rectangles, never larger, never smaller than one
    four = multi_block_mask(500, (20, 20), 4, area, aspect, generator=torch.Generator().manual_seed(0)).float().mean(1)
    assert four.min() > 0.15 and four.max() <= 4 * 0.23 and 0.4 < four.mean() < 0.6


def test_multi_blocks_reach_every_cell_and_favour_no_side():
    often = multi_block_mask(4000, (7, 7), generator=torch.Generator().manual_seed(1)).float().mean(0).view(7, 7)
    assert often.min() > 0.05 and often[3, 3] > 0.6
    for turned in (often.flip(0), often.flip(1), often.T):
        assert (often - turned).abs().max() < 0.055  # five standard errors of a difference


def test_multi_blocks_cut_from_behind_are_reproduced_and_bad_settings_refused():
    whole = {"grid": (6, 6), "num_blocks": 1, "area": (1.0, 1.0), "aspect": (1.0, 1.0)}
    assert (multi_block_mask(2, **whole, min_keep=7).sum(1) == 29).all()
    first, second, other = (multi_block_mask(4, (8, 8), generator=torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert len(multi_block_mask(100, (8, 8)).unique(dim=0)) > 95
    for settings_, words in (
        ({"batch": 0}, "batch"),
        ({"grid": (0, 4)}, "grid"),
        ({"num_blocks": 0}, "num_blocks"),
        ({"area": (0.3, 0.2)}, "area"),
        ({"area": (0.3, 1.2)}, "area"),
        ({"aspect": (0.0, 1.0)}, "aspect"),
        ({"min_keep": 0}, "min_keep"),
    ):
        with pytest.raises(ValueError, match=words):
            multi_block_mask(**{"batch": 2, "grid": (4, 4), **settings_})
