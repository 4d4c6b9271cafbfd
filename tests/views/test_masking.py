"""Masks: exact counts, consistent indices, uniform or blocky, different for each image."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcore.views import block_mask, cube_mask, multi_block_mask, random_mask


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
