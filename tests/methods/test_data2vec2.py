"""data2vec 2.0: the student sees visible patches alone, the teacher all of them once, whatever the number of masks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sslcore.backbones import VisionTransformer, small_convnet
from sslcore.methods import Data2Vec2
from sslcore.methods.data2vec2 import TARGETS
from sslcore.objectives import patchify, unpatchify
from sslcore.views import MaskIndices
from tests.methods.small_methods import small_batch, small_method


def views_of(method):
    return method.views(small_batch(), torch.Generator().manual_seed(0))


def copy_of(views, m):
    """The views with the m-th mask alone."""
    images, masks, holes = views
    return images, MaskIndices(*(part[:, [m]] for part in masks)), holes[:, [m]]


@pytest.mark.parametrize("masks", [1, 3])
def test_one_pass_of_the_teacher_and_as_many_of_the_student_as_masks(masks):
    method, student, teacher = small_method("data2vec2", num_masks=masks), [], []
    for network, shapes in ((method.backbone, student), (method.teacher_backbone, teacher)):
        network.blocks[0].register_forward_pre_hook(lambda _, inputs, to=shapes: to.append(tuple(inputs[0].shape)))
    method.loss(views_of(method))
    assert student == [(8 * masks, 4 + 1, 12)] and teacher == [(8, 16 + 1, 12)]


def test_hidden_pixels_reach_the_target_alone():
    method = small_method("data2vec2", num_masks=1)
    images, masks, holes = views_of(method)
    hidden = masks.mask[:, 0, :, None]
    other = unpatchify(torch.where(hidden, torch.randn(8, 16, 48), patchify(images, 4)), 4, (4, 4), 3)
    for first, second in zip(method.predict(images, masks, holes), method.predict(other, masks, holes), strict=True):
        assert torch.equal(first, second)
    assert not torch.allclose(method.targets(images), method.targets(other), atol=1e-2)


@pytest.mark.parametrize("target", TARGETS)
def test_gradient_of_many_masks_is_the_mean_of_single_ones(target):
    method = small_method("data2vec2", num_masks=3, target=target)
    views = views_of(method)

    def gradient(*parts):
        method.zero_grad()
        torch.stack([method.loss(part).total for part in parts]).mean().backward()
        return torch.cat([weight.grad.flatten() for weight in method.parameters() if weight.requires_grad])

    torch.testing.assert_close(gradient(views), gradient(*(copy_of(views, m) for m in range(3))), rtol=1e-4, atol=1e-6)
    assert all(weight.grad is None for weight in (method.teacher_backbone or torch.nn.Identity()).parameters())


def test_copies_differ_and_belong_to_their_image():
    method = small_method("data2vec2", num_masks=4)
    images, masks, holes = views_of(method)
    assert masks.mask.shape == (8, 4, 16) and (masks.mask.sum(2) == 12).all() and holes.shape == (8, 4, 12, 12)
    assert len(masks.mask.flatten(0, 1).unique(dim=0)) > 8 and holes.std() == pytest.approx(0.01, rel=0.1)
    pred, cls = method.predict(images, masks, holes)
    turned = method.predict(images.roll(1, 0), MaskIndices(*(part.roll(1, 0) for part in masks)), holes.roll(1, 0))
    torch.testing.assert_close(turned[0].roll(-1, 0), pred), torch.testing.assert_close(turned[1].roll(-1, 0), cls)


def test_targets_are_the_mlp_outputs_of_the_last_blocks():
    torch.manual_seed(0)
    vit = VisionTransformer(16, 4, 3, 12, 3, num_heads=2)
    method = Data2Vec2(vit, top_k=2, block=2, decoder_groups=4)
    images, seen = torch.randn(5, 3, 16, 16), []
    for block in method.teacher_backbone.blocks:
        block.mlp.register_forward_hook(lambda _, __, out: seen.append(out[:, 1:]))
    got = method.targets(images)
    mean = torch.stack([F.instance_norm(out.mT).mT for out in seen[1:]]).mean(0)
    assert len(seen) == 3
    torch.testing.assert_close(got, F.layer_norm(mean, (12,)))


def test_the_embedding_target_has_neither_place_nor_context():
    method = small_method("data2vec2", target="embedding", instance_norm=False)
    torch.nn.init.normal_(method.teacher_backbone.pos_embed)
    images = torch.randn(2, 3, 16, 16)
    patches = method.teacher_backbone.patch_embed["proj"](images).flatten(2).mT
    torch.testing.assert_close(method.targets(images), F.layer_norm(patches, (12,)), rtol=1e-4, atol=1e-4)
    pixels = small_method("data2vec2", target="pixels", instance_norm=False).targets(images)
    torch.testing.assert_close(pixels, F.layer_norm(patchify(images, 4), (48,)))


def test_the_teacher_follows_along_a_line_and_then_steadily():
    method = small_method("data2vec2", momentum=0.5, end_momentum=0.9, anneal=0.5)
    torch.nn.init.zeros_(method.teacher_backbone.cls_token), torch.nn.init.ones_(method.backbone.cls_token)
    for progress, left in ((0.25, 0.7), (0.5, 0.7 * 0.9), (1.0, 0.7 * 0.9 * 0.9)):
        method.after_step(progress)
        torch.testing.assert_close(method.teacher_backbone.cls_token, torch.full((1, 1, 12), 1 - left))


def test_meters_know_a_target_that_only_says_where():
    method = small_method("data2vec2")
    images = torch.randn(64, 3, 16, 16)
    healthy = method.collapse(images)
    method.targets = lambda images: torch.randn(16, 12, generator=torch.Generator().manual_seed(0)).expand(64, -1, -1)
    blind = method.collapse(images)
    method.targets = lambda images: torch.randn(64, 16, 12)
    assert blind["content"] < 1e-6 < healthy["content"] < 1.1 and method.collapse(images)["content"] > 0.9
    assert method.collapse(images)["rank"] > 11


def test_settings_and_sizes():
    method = small_method("data2vec2", img_size=24, cls_weight=0.0)
    images, masks, _ = views = views_of(method)
    assert images.shape[-1] == 24 and masks.mask.shape == (8, 2, 36) and method.loss(views).cls == 0
    assert small_method("data2vec2", target="pixels").teacher_backbone is None
    plain = VisionTransformer(16, 4, 3, 12, 1, num_heads=2, class_token=False)
    assert Data2Vec2(plain).cls_weight == 0.0
    with pytest.raises(ValueError, match="expected a vision transformer, got StagedConvNet"):
        Data2Vec2(small_convnet(3))
    for wrong in ({"target": "words"}, {"num_masks": 0}, {"top_k": 2}, {"top_k": 0}, {"anneal": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            small_method("data2vec2", **wrong)
