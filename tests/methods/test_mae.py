"""MAE: only visible pixels reach the encoder, only hidden patches are scored."""

from __future__ import annotations

import pytest
import torch

from sslcore.backbones import small_convnet
from sslcore.methods import MAE
from sslcore.objectives import patchify, unpatchify
from tests.methods.small_methods import small_batch, small_method


def views_of(method):
    return method.views(small_batch(), torch.Generator().manual_seed(0))


def test_hidden_pixels_do_not_reach_the_prediction():
    method = small_method("mae")
    images, indices = views_of(method)
    patches = patchify(images, 4)
    changed = unpatchify(patches + 5.0 * indices.mask[..., None], 4, (4, 4), 3)
    first, second = method.reconstruct(images, indices), method.reconstruct(changed, indices)
    assert torch.equal(first, second)
    seen = unpatchify(patches + 5.0 * ~indices.mask[..., None], 4, (4, 4), 3)
    assert not torch.allclose(first, method.reconstruct(seen, indices), atol=1e-3)


@pytest.mark.parametrize("ratio, visible", [(0.75, 4), (0.5, 8), (0.2, 12)])
def test_encoder_runs_on_the_visible_patches_alone(ratio: float, visible: int):
    method = small_method("mae", mask_ratio=ratio)
    lengths = []
    method.backbone.blocks[0].register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    images, indices = views_of(method)
    method.reconstruct(images, indices)
    assert lengths == [visible + 1]  # and the class token


@pytest.mark.parametrize("norm_pix", [True, False])
def test_loss_is_the_mean_over_hidden_patches(norm_pix: bool):
    method = small_method("mae", norm_pix=norm_pix)
    images, indices = views_of(method)
    target = patchify(images, 4)
    if norm_pix:
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    error = (method.reconstruct(images, indices) - target)[indices.mask].square().mean()
    torch.testing.assert_close(method.loss((images, indices)), error)


def test_size_comes_from_the_backbone_unless_given():
    assert small_method("mae").img_size == 16
    method = small_method("mae", img_size=24)
    images, indices = views_of(method)
    assert images.shape[-1] == 24 and indices.mask.shape == (8, 36)
    assert method.loss((images, indices)).isfinite()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="expected a vision transformer that can drop patches, got .*StagedConvNet"):
        MAE(small_convnet(3))
    with pytest.raises(ValueError, match="img_size: expected a multiple of the patch size 4, got 18"):
        small_method("mae", img_size=18)
