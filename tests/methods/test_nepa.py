"""NEPA: nothing later leaks, targets are constants, reading orders, positions outside the targets, bad input."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sslcore.backbones import VisionTransformer, small_convnet
from sslcore.methods import NEPA
from sslcore.objectives import patchify, unpatchify
from sslcore.probes import token_influence
from tests.methods.small_methods import small_batch, small_method


def images_of(method):
    return method.views(small_batch(), torch.Generator().manual_seed(0))


def build(pos_embed="rope", **settings):
    torch.manual_seed(0)
    return NEPA(VisionTransformer(16, 4, 3, 12, 2, num_heads=3, pos_embed=pos_embed), **settings).eval()


@pytest.mark.parametrize("pos_embed", ["rope", "learned", "sincos", "none"])
@pytest.mark.parametrize("order", ["raster", "columns", "random"])
def test_later_patches_change_nothing_at_earlier_places(order, pos_embed):
    method = build(pos_embed, order=order).double()
    patches = patchify(images_of(method).double(), 4)

    def said(patches):  # places in reading order, the class token left out
        return method.predict(unpatchify(patches, 4, (4, 4), 3))[0][:, 1:]

    influence = token_influence(said, patches)[:, method.reading]
    assert torch.equal(influence > 1e-12, torch.ones(16, 16).bool().tril())


def test_without_the_mask_the_answer_is_in_sight():
    method = build(causal=False).double()
    patches = patchify(images_of(method).double(), 4)
    influence = token_influence(lambda p: method.predict(unpatchify(p, 4, (4, 4), 3))[0][:, 1:], patches)
    assert bool((influence > 1e-12).all())


@pytest.mark.parametrize("pos_embed", ["rope", "sincos"])
@pytest.mark.parametrize("order", ["raster", "columns", "random"])
def test_sequence_is_the_convolution_in_reading_order(order, pos_embed):
    method = build(pos_embed, order=order)
    images = images_of(method)
    outputs, sequence = method.predict(images)
    cells = method.backbone.patch_embed["proj"](images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(sequence[:, 1:], cells[:, method.reading], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(sequence[:, 0], method.backbone.cls_token[0].expand(8, -1))
    cosines = F.cosine_similarity(outputs[:, :-1], sequence[:, 1:], dim=2)
    torch.testing.assert_close(method.loss(images), -cosines.mean())


def test_reading_orders():
    assert build().reading.tolist() == list(range(16))
    assert build(order="columns").reading[:5].tolist() == [0, 4, 8, 12, 1]
    first, second = (build(order="random", order_seed=seed).reading for seed in (0, 1))
    assert sorted(first.tolist()) == list(range(16)) and not torch.equal(first, second)
    assert torch.equal(first, build(order="random").reading)


def test_stop_gradient_reaches_the_convolution_as_input_only():
    gradients = {}
    for stop in (True, False):
        method = build(stop_gradient=stop)
        method.loss(images_of(method)).backward()
        gradients[stop] = method.backbone.patch_embed["proj"].weight.grad
    method = build()
    outputs, sequence = method.predict(images_of(method))
    constant = sequence.detach().clone()
    (-F.cosine_similarity(outputs[:, :-1], constant[:, 1:], dim=2).mean()).backward()
    expected = method.backbone.patch_embed["proj"].weight.grad
    torch.testing.assert_close(gradients[True], expected, atol=1e-6, rtol=1e-4)
    assert not torch.allclose(gradients[False], expected, atol=1e-4)


def test_small_layer_scale_starts_at_copying():
    torch.manual_seed(0)
    method = NEPA(VisionTransformer(16, 4, 3, 12, 2, num_heads=3, pos_embed="rope", init_values=1e-6))
    outputs, sequence = method.predict(images_of(method))
    torch.testing.assert_close(outputs, F.layer_norm(sequence, (12,), eps=1e-6), atol=1e-4, rtol=1e-3)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="expected a vision transformer, got StagedConvNet"):
        NEPA(small_convnet(3))
    with pytest.raises(ValueError, match="expected a class token alone before the patches, got 3 tokens"):
        NEPA(VisionTransformer(16, 4, 3, 12, 1, num_heads=3, num_registers=2))
    with pytest.raises(ValueError, match="expected a class token alone before the patches, got 0 tokens"):
        NEPA(VisionTransformer(16, 4, 3, 12, 1, num_heads=3, class_token=False))
    with pytest.raises(ValueError, match="unknown order 'spiral'; known: columns, random, raster"):
        small_method("nepa", order="spiral")
