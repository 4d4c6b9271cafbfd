"""Selfie: the answer does not reach its question, candidates come from one image, settings do what they say."""

from __future__ import annotations

import math

import pytest
import torch

from sslcore.backbones import VisionTransformer
from sslcore.methods import Selfie
from sslcore.methods.selfie import ask_for
from sslcore.objectives import patchify, unpatchify
from tests.methods.small_methods import small_batch, small_method


def views_of(method):
    return method.views(small_batch(), torch.Generator().manual_seed(0))


def hidden_of(indices):
    return [mask.nonzero()[:, 0].tolist() for mask in indices.mask]


@pytest.mark.parametrize("question", ["sum", "mlp"])
def test_hidden_pixels_reach_the_keys_alone(question):
    method = small_method("selfie", question=question)
    images, indices = views_of(method)
    noise = torch.randn(8, 16, 48)
    other = unpatchify(torch.where(indices.mask[..., None], noise, patchify(images, 4)), 4, (4, 4), 3)
    (queries, keys), (same, moved) = method.ask(images, indices), method.ask(other, indices)
    assert torch.equal(queries, same) and not torch.equal(keys, moved)


def test_equals_a_loop_over_hidden_patches():
    method = small_method("selfie")
    images, indices = views_of(method)
    embedded, costs = method.backbone.embed(images), []
    for b, hidden in enumerate(hidden_of(indices)):
        assert len(hidden) == 4
        visible = [[n for n in range(16) if n not in hidden]]
        pooled = method.backbone.pool(embedded[b : b + 1], (4, 4), torch.tensor(visible)).cls_token[0]
        for place in hidden:
            query = pooled + method.places[place]
            scores = torch.stack([query @ embedded[b, n] for n in hidden]) / math.sqrt(8)
            costs.append(scores.logsumexp(0) - query @ embedded[b, place] / math.sqrt(8))
    torch.testing.assert_close(method.loss((images, indices)), torch.stack(costs).mean(), atol=1e-5, rtol=1e-5)


def test_without_places_nothing_beats_chance():
    method = small_method("selfie")
    torch.nn.init.zeros_(method.places)
    assert method.loss(views_of(method)) >= math.log(4)


def test_visible_patches_matter_at_one_place_only_behind_the_mlp():
    for question, alike in (("sum", True), ("mlp", False)):
        method = small_method("selfie", question=question).double()
        images, indices = views_of(method)
        other = images.flip(0).double()
        embedded = method.backbone.embed(images.double())
        change = 0
        for sign, seen in ((1, images.double()), (-1, other)):
            pooled = method.backbone(seen, ids_keep=indices.ids_keep).cls_token
            hidden = indices.ids_restore.argsort(1)[:, 12:]
            queries, keys = ask_for(pooled, method.places, embedded, hidden)
            change = change + sign * method.head(queries) @ keys.mT
        assert torch.allclose(change, change[:, :1].expand_as(change)) is alike


def test_settings():
    images, indices = views_of(small_method("selfie", mask_ratio=0.5))
    assert images.shape == (8, 3, 16, 16) and (indices.mask.sum(1) == 8).all()
    method = small_method("selfie", distractors=3)
    queries, keys = method.ask(*views_of(method))
    assert queries.shape == (8, 4, 8) and keys.shape == (8, 7, 8)
    embedded, ids = method.backbone.embed(views_of(method)[0]), views_of(method)[1].ids_keep
    torch.testing.assert_close(keys[2, 4:], embedded[2, ids[2, :3]])
    assert method.scale == 8**-0.5 and small_method("selfie", scale=1.0).scale == 1.0


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="expected a PatchPool, got VisionTransformer"):
        Selfie(VisionTransformer(16, 4, 3, 12, 1, num_heads=3))
    for settings, said in (
        ({"question": "product"}, "unknown question 'product'; known: mlp, sum"),
        ({"distractors": 13}, "distractors: expected 0 to 12 visible patches, got 13"),
        ({"mask_ratio": 0.05}, "leaves no choice"),
        ({"img_size": 18}, "multiple of the patch size 4, got 18"),
    ):
        with pytest.raises(ValueError, match=said):
            small_method("selfie", **settings)
