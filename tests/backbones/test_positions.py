"""Claims about positions: the sin-cos table is MAE's, interpolation at home is the identity,
rotary scores are relative."""

from __future__ import annotations

import math

import pytest
import torch

from sslcore.backbones.positions import (
    grid_coordinates,
    resize_positions,
    rope_angles,
    rotate,
    sincos_positions,
)


def test_sincos_table_written_out():
    rows, columns, dim = 2, 3, 8
    table = sincos_positions((rows, columns), dim)
    for row in range(rows):
        for column in range(columns):
            expected = []
            for coordinate in (column, row):
                frequencies = [10000 ** (-k / 2) for k in range(2)]
                expected += [math.sin(coordinate * f) for f in frequencies]
                expected += [math.cos(coordinate * f) for f in frequencies]
            torch.testing.assert_close(table[row * columns + column], torch.tensor(expected))


def test_sincos_table_matches_lightly():
    reference = pytest.importorskip("lightly.models.utils")
    theirs = reference.get_2d_sine_cosine_positional_embedding(embed_dim=24, grid_size=5, cls_token=False)
    torch.testing.assert_close(sincos_positions((5, 5), 24), torch.as_tensor(theirs).float(), rtol=1e-5, atol=1e-5)


def test_coordinates_span_the_reference_grid():
    rows, columns = grid_coordinates((2, 3), (2, 3))
    assert rows.tolist() == [0, 0, 0, 1, 1, 1] and columns.tolist() == [0, 1, 2, 0, 1, 2]
    rows, columns = grid_coordinates((4, 1), (2, 3))
    assert rows.tolist() == [-0.25, 0.25, 0.75, 1.25] and columns.tolist() == [1.0] * 4


def test_resizing_is_the_identity_at_home_and_keeps_constants_elsewhere():
    table = torch.randn(1, 12, 5)
    assert resize_positions(table, (3, 4), (3, 4)) is table
    flat = torch.ones(1, 12, 5) * 0.7
    torch.testing.assert_close(resize_positions(flat, (3, 4), (6, 2)), flat)
    # A transposed grid of equal size is a real change, not the identity.
    assert not torch.allclose(resize_positions(table, (3, 4), (4, 3)), table)


def test_resizing_matches_timm():
    layers = pytest.importorskip("timm.layers")
    table = torch.randn(1, 16, 6)
    theirs = layers.resample_abs_pos_embed(table, new_size=[6, 3], old_size=[4, 4], num_prefix_tokens=0)
    torch.testing.assert_close(resize_positions(table, (4, 4), (6, 3)), theirs)


def test_rotary_scores_depend_on_the_displacement_only():
    torch.manual_seed(0)
    rows, columns, dim = 4, 5, 8
    query, key = torch.randn(dim), torch.randn(dim)
    angles = rope_angles((rows, columns), dim)
    everywhere = [rotate(v.expand(1, 1, rows * columns, dim), angles)[0, 0] for v in (query, key)]
    scores = everywhere[0] @ everywhere[1].T
    seen: dict[tuple[int, int], float] = {}
    for i in range(rows * columns):
        for j in range(rows * columns):
            step = (j // columns - i // columns, j % columns - i % columns)
            assert abs(seen.setdefault(step, float(scores[i, j])) - float(scores[i, j])) < 1e-4
    assert abs(seen[(0, 0)] - float(query @ key)) < 1e-4
    assert len({round(value, 3) for value in seen.values()}) > 0.9 * len(seen)  # different steps differ


def test_rotation_keeps_lengths_and_leaves_prefix_tokens_alone():
    x = torch.randn(2, 3, 2 + 6, 8)
    turned = rotate(x, rope_angles((2, 3), 8))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, :, :2], x[:, :, :2])
    assert torch.equal(turned[:, :, 2], x[:, :, 2])  # row 0, column 0: no turn
    assert not torch.allclose(turned[:, :, 3:], x[:, :, 3:])


def test_rotary_angles_at_another_size_stay_in_the_trained_range():
    home, fine = rope_angles((4, 4), 8), rope_angles((8, 8), 8, reference=(4, 4))
    assert fine.max() < home.max() + 0.5 and fine.min() >= -0.5
    torch.testing.assert_close(rope_angles((4, 4), 8, reference=(4, 4)), home)
