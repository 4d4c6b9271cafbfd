"""Subspaces of a fitted probe on planted codes: spectrum, keep and remove curves with calibrated answers."""

from __future__ import annotations

import functools

import pytest
import torch

from sslcore.probes.same_object.fit import same_object_probe
from sslcore.probes.same_object.subspace import (
    pca_subspace,
    probe_subspace,
    projector,
    random_subspace,
    regression_subspace,
    sign_aurocs,
    spectrum,
    steady_rest,
    subspace_curves,
)
from tests.probes.planted import coded_scenes, tokens_with_codes

FIT = {"kind": "quadratic", "epochs": 12, "lr": 5e-2, "weight_decay": 1e-3}


@functools.cache
def fitted(rotate: bool = True):
    splits = tuple(tokens_with_codes(count, seed, rotate) for count, seed in ((300, 0), (60, 1), (100, 2)))
    return splits, same_object_probe(*splits[:2], **FIT)


def test_eight_directions_agree_and_none_opposes():
    """Six code directions and the two that three one-hot classes leave. The ninth, the sum of the one-hot channels, is
    constant but for noise: its sign is of no account."""
    values, vectors = spectrum(fitted()[1])
    assert bool((values[:8] > 0).all()) and float(values[7]) > 10 * float(values[9].abs())
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(19), atol=1e-5, rtol=0)


def test_a_shared_code_is_read_by_agreeing_directions_alone():
    splits, probe = fitted()
    agreeing, opposing = sign_aurocs(probe, splits[2][0][0], splits[2][1])
    assert agreeing > 0.97 and opposing < 0.7


@pytest.mark.parametrize("rotate", [False, True])
def test_keep_and_remove_curves(rotate):
    """Removing 3 / 6 / 9 directions: 0.92 / 0.79 / 0.50, with or without a new probe; keeping 9 costs nothing."""
    splits, probe = fitted(rotate)
    curve = subspace_curves(probe, *splits, ks=(3, 6, 9), **FIT)
    assert curve.whole == pytest.approx(0.983, abs=0.01)
    at = {name: {k: value for k, (value, _) in row.items()} for name, row in curve.values.items()}
    for name in ("remove", "remove, retrained"):
        for k, expected, slack in ((3, 0.92, 0.03), (6, 0.79, 0.05), (9, 0.50, 0.03)):
            assert at[name][k] == pytest.approx(expected, abs=slack), (name, k)
    assert at["keep"][9] == pytest.approx(curve.whole, abs=0.005)
    assert at["keep, retrained"][9] == pytest.approx(curve.whole, abs=0.01)
    # Nine of nineteen directions at random take much of the code with them, but far from all.
    assert 0.55 < at["random remove, retrained"][9] < 0.95
    assert at["random remove, retrained"][3] > at["remove, retrained"][3]
    value, (low, high) = curve.values["remove"][6]
    assert low < value < high


def test_other_subspaces_are_orthonormal_and_find_what_is_planted():
    splits, probe = fitted()
    like = probe_subspace(probe, 3)
    scenes = coded_scenes(200, 7)
    kinds = torch.nn.functional.one_hot(scenes.kinds, 3).float()
    by_class = regression_subspace(scenes.features[0], kinds, like)
    for found in (like, random_subspace(like, 1), pca_subspace(scenes.features, like), by_class):
        torch.testing.assert_close(found.basis.T @ found.basis, torch.eye(3), atol=1e-4, rtol=0)
    axes = torch.linalg.qr(torch.randn(19, 19, generator=torch.Generator().manual_seed(99)))[0][:3]
    inside = torch.linalg.qr(axes.T * like.std[:, None])[0]
    overlap = torch.linalg.svdvals(inside.T @ by_class.basis[:, :2])
    assert float(overlap[1]) > 0.8  # two of its directions lie among the class axes


def test_the_rest_does_not_depend_on_how_its_eigenvectors_are_turned():
    basis, draw = (torch.linalg.qr(torch.randn(9, 9))[0] for _ in range(2))
    turned = torch.cat([basis[:, :4], basis[:, 4:] @ torch.linalg.qr(torch.randn(5, 5))[0]], 1)
    rest = steady_rest(basis, 4, draw)
    torch.testing.assert_close(rest.T @ rest, torch.eye(9), atol=1e-5, rtol=0)
    torch.testing.assert_close(rest[:, :4], basis[:, :4])
    torch.testing.assert_close(rest, steady_rest(turned, 4, draw), atol=1e-4, rtol=0)


def test_projectors_are_complementary():
    basis = torch.linalg.qr(torch.randn(7, 3))[0]
    keep, remove = projector(basis, False), projector(basis, True)
    torch.testing.assert_close(keep + remove, torch.eye(7))
    torch.testing.assert_close(remove @ remove, remove, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="k:"):
        probe_subspace(fitted()[1], 20)
