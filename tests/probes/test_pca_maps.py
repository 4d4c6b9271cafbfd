"""Patch PCA: foreground against the border, colours that scikit-learn's components explain, bad input."""

from __future__ import annotations

import pytest
import torch

from sslcore.probes.pca_maps import patch_pca, principal


def planted() -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.zeros(3, 6, 6, dtype=torch.bool)
    mask[0, 1:4, 1:4] = mask[1, 2:5, 2:5] = mask[2, 1:3, 2:5] = True
    tokens = torch.randn(3, 36, 8) * 0.3
    tokens[..., 0] += torch.where(mask.flatten(1), 3.0, -3.0)
    return tokens, mask


def test_scores_agree_with_scikit_learn_up_to_sign():
    decomposition = pytest.importorskip("sklearn.decomposition")
    rows = torch.randn(50, 6) * torch.arange(1, 7)
    expected = torch.tensor(decomposition.PCA(3).fit_transform(rows.double().numpy()))
    torch.testing.assert_close(principal(rows, 3).double().abs(), expected.abs(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_foreground_is_the_side_away_from_the_border(sign):
    tokens, mask = planted()
    result = patch_pca(tokens * sign, (6, 6), foreground=True)
    assert torch.equal(result.foreground, mask)
    assert float(result.rgb[~mask].abs().max()) == 0 and float(result.rgb[mask].max()) == 1


def test_channels_span_zero_to_one_and_repeat():
    tokens, _ = planted()
    result = patch_pca(tokens, (6, 6))
    assert result.rgb.shape == (3, 6, 6, 3) and result.foreground is None
    torch.testing.assert_close(result.rgb.flatten(0, 2).amin(0), torch.zeros(3))
    torch.testing.assert_close(result.rgb.flatten(0, 2).amax(0), torch.ones(3))
    assert torch.equal(result.rgb, patch_pca(tokens, (6, 6)).rgb)


@pytest.mark.parametrize("shape", [(1, 35, 8), (1, 36, 2), (0, 36, 8)])
def test_bad_shapes_are_named(shape):
    with pytest.raises(ValueError, match="tokens"):
        patch_pca(torch.zeros(shape), (6, 6))


def test_nan_is_named():
    with pytest.raises(ValueError, match="finite"):
        patch_pca(torch.full((1, 36, 8), float("nan")), (6, 6))
