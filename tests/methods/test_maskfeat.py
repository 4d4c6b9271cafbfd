"""MaskFeat: hidden pixels enter the target alone, and every target is what its name says."""

from __future__ import annotations

import pytest
import torch

from sslcore.backbones import VisionTransformer, small_convnet
from sslcore.methods import MaskFeat
from sslcore.methods.maskfeat import TARGETS
from sslcore.objectives import hog_targets, patchify, unpatchify
from tests.methods.small_methods import small_batch, small_method


def settings_for(target):
    teacher = VisionTransformer(16, 4, 3, 12, 1, num_heads=2) if target == "teacher" else None
    return {"target": target, "codebook": torch.randn(6, 48) if target == "codes" else None, "teacher": teacher}


def views_of(method):
    return method.views(small_batch(), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("target", TARGETS)
def test_hidden_pixels_reach_the_target_alone(target: str):
    method = small_method("maskfeat", **settings_for(target))
    images, mask = views_of(method)
    assert mask.dtype == torch.bool and (mask.sum(1) == 16 - int(16 * 0.6)).all()
    other = unpatchify(torch.where(mask[..., None], torch.randn(8, 16, 48), patchify(images, 4)), 4, (4, 4), 3)
    assert torch.equal(method.predict(images, mask), method.predict(other, mask))
    assert not torch.equal(method.loss((images, mask)), method.loss((other, mask)))


@pytest.mark.parametrize("target", TARGETS)
def test_only_what_learns_gets_a_gradient(target: str):
    method = small_method("maskfeat", **settings_for(target))
    method.loss(views_of(method)).backward()
    assert method.head.weight.grad.abs().sum() > 0 and method.backbone.mask_token.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in (method.teacher or torch.nn.Identity()).parameters())


def test_each_target_is_what_its_name_says():
    images = torch.rand(2, 3, 16, 16)
    cut = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)  # (B, N, C, p, p)

    def targets(name):
        return small_method("maskfeat", **settings_for(name)).targets(images)

    torch.testing.assert_close(targets("colour"), cut.mean((3, 4)))
    torch.testing.assert_close(targets("pixels"), cut.permute(0, 1, 3, 4, 2).flatten(2))
    torch.testing.assert_close(targets("norm_pixels").std(2), torch.ones(2, 16), rtol=0, atol=1e-3)
    torch.testing.assert_close(targets("hog"), hog_targets(images, 4, 2))
    torch.testing.assert_close(targets("raw_hog"), hog_targets(images, 4, 2, normalize=False))
    torch.testing.assert_close(targets("teacher").var(2, unbiased=False), torch.ones(2, 16), rtol=0, atol=1e-2)


def test_light_changes_raw_targets_only():
    images = torch.rand(2, 3, 16, 16)
    for name, indifferent in (("hog", True), ("norm_pixels", True), ("codes", True), ("raw_hog", False),
                              ("pixels", False), ("colour", False)):  # fmt: skip
        method = small_method("maskfeat", **settings_for(name))
        same = torch.allclose(method.targets(images), method.targets(0.5 * images + 0.2), atol=1e-2)
        assert same == indifferent, name


def test_a_code_is_the_nearest_centroid():
    images = torch.rand(2, 3, 16, 16)
    patches = small_method("maskfeat", target="norm_pixels").targets(images)
    codebook = patches[0, [3, 7, 11]] + 0.01
    codes = small_method("maskfeat", target="codes", codebook=codebook).targets(images)
    assert codes.shape == (2, 16) and codes[0, [3, 7, 11]].tolist() == [0, 1, 2]
    distance = (patches[:, :, None] - codebook).square().sum(3)
    assert torch.equal(codes, distance.argmin(2))


def test_a_zero_prediction_of_hog_costs_one_ninth():
    method = small_method("maskfeat", policy=lambda images, generator=None: images.float() / 255)
    torch.nn.init.zeros_(method.head.weight), torch.nn.init.zeros_(method.head.bias)
    assert method.loss(views_of(method)).item() == pytest.approx(1 / 9, abs=1e-6)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="expected a vision transformer with mask tokens, got .*StagedConvNet"):
        MaskFeat(small_convnet(3))
    vit = VisionTransformer(16, 4, 3, 12, 1, num_heads=2)
    with pytest.raises(ValueError, match="target"):
        MaskFeat(vit, target="words")
    with pytest.raises(ValueError, match="codebook"):
        MaskFeat(vit, target="codes")
    with pytest.raises(ValueError, match="codebook"):
        MaskFeat(vit, codebook=torch.zeros(3, 48))
    with pytest.raises(ValueError, match="teacher"):
        MaskFeat(vit, target="teacher")
