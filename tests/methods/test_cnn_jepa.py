"""CNN-JEPA: hidden pixels reach the target alone, the loss written out, guards and controls do what they say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sslcore.backbones import VisionTransformer, small_convnet
from sslcore.methods import CNNJEPA
from tests.methods.small_methods import small_batch, small_method


def build(**settings) -> CNNJEPA:
    return small_method("cnn_jepa", "convnet", **settings)


def views_of(method, seed=0):
    return method.views(small_batch(), torch.Generator().manual_seed(seed))


def other_hidden(images, mask):
    holes = mask.view(-1, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return torch.where(holes, torch.randn_like(images), images)


def test_views_are_one_image_and_a_mask_of_its_cells():
    method = build()
    images, mask = views_of(method)
    assert images.shape == (8, 3, 16, 16) and mask.shape == (8, 16) and mask.dtype == torch.bool
    assert mask.any(1).all() and not mask.all(1).any()
    for probability, counts in ((0.0, {16 - int(16 * 0.4)}), (1.0, None)):
        method.block_probability = probability
        found = set(views_of(method)[1].sum(1).tolist())
        assert found == counts or (counts is None and len(found) > 1)


@pytest.mark.parametrize("hide", ["sparse", "pixels", "features"])
def test_hidden_pixels_reach_the_target_alone_unless_features_are_hidden(hide):
    method = build(hide=hide)
    images, mask = views_of(method)
    other = other_hidden(images, mask)
    same = torch.allclose(method.predict(images, mask), method.predict(other, mask))
    assert same == (hide != "features")
    assert not torch.equal(method.loss((images, mask)), method.loss((other, mask)))


def test_the_loss_written_out():
    method = build()
    for parameter in method.teacher_backbone.parameters():
        parameter.data.mul_(1.1)
    images, mask = views_of(method)
    z = method.backbone(images, mask=mask).patch_tokens.clone()
    z[mask] = method.predictor.mask_token
    p = method.predictor.layers(z.transpose(1, 2).reshape(8, -1, 4, 4)).flatten(2).transpose(1, 2)
    h = method.teacher_backbone(images).patch_tokens
    # Of unit vectors; in so narrow a net a ReLU may shut a whole cell, and its zero vector then costs 1/2.
    p, h = (x / x.norm(dim=2, keepdim=True).clamp(min=1e-12) for x in (p, h))
    expected = (p - h).square().sum(2)[mask].mean() / 2
    torch.testing.assert_close(method.loss((images, mask)), expected)


def test_teacher_takes_weights_and_keeps_statistics_of_its_own():
    method = build()
    method.loss(views_of(method)).backward()
    assert all(p.grad is None for p in method.teacher_backbone.parameters())
    with torch.no_grad():
        for parameter in method.backbone.parameters():
            parameter.add_(1.0)
    statistics = method.teacher_backbone.stages[0][1].running_mean.clone()
    assert not torch.equal(statistics, method.backbone.stages[0][1].running_mean)
    before = method.teacher_backbone.stages[0][0].weight.clone()
    method.after_step(0.0)
    torch.testing.assert_close(method.teacher_backbone.stages[0][0].weight, before + 0.1)
    assert torch.equal(method.teacher_backbone.stages[0][1].running_mean, statistics)


def test_without_the_stop_gradient_targets_are_the_students_own_and_learn():
    held, free = build(momentum=0.0), build(stop_gradient=False)
    views = views_of(held)
    torch.testing.assert_close(held.loss(views), free.loss(views))  # teacher and student start alike
    for method in (held, free):
        method.loss(views).backward()
    gradients = [method.backbone.stages[0][0].weight.grad for method in (held, free)]
    assert not torch.allclose(*gradients, rtol=1e-2)


def test_bad_settings_are_refused():
    net = small_convnet(3, (4, 8))
    for settings, said in (
        ({"hide": "all"}, "unknown hide 'all'; known: features, pixels, sparse"),
        ({"block_probability": 1.5}, "block_probability"),
        ({"predictor_depth": 0}, "depth"),
    ):
        with pytest.raises(ValueError, match=said):
            CNNJEPA(net, **settings)
    for backbone in (VisionTransformer(16, 4, 3, 12, 1, num_heads=2), nn.Conv2d(3, 4, 3)):
        with pytest.raises(ValueError, match="StagedConvNet"):
            CNNJEPA(backbone)
