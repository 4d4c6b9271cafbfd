"""Attention read-outs: values that are known exactly for uniform and identity attention, and the map of a real row."""

from __future__ import annotations

import math

import pytest
import torch

from sslcore.probes.attention import (
    attention_distance,
    attention_entropy,
    attention_maps,
    attention_rollout,
    entropy,
    mean_distance,
    patch_distances,
    rollout,
)
from tests.probes.planted import NoAttention, TinyTransformer

IMAGES = torch.randint(0, 256, (5, 3, 16, 24), dtype=torch.uint8)


def uniform(tokens: int) -> torch.Tensor:
    return torch.full((2, 3, tokens, tokens), 1 / tokens)


def identity(tokens: int) -> torch.Tensor:
    return torch.eye(tokens).expand(2, 3, -1, -1)


def test_uniform_attention_has_entropy_one_and_the_mean_pairwise_distance():
    places = [(r, c) for r in range(2) for c in range(3)]
    expected = sum(math.dist(a, b) for a in places for b in places) / 36 * 8
    torch.testing.assert_close(entropy(uniform(7), 1), torch.ones(2, 3))
    torch.testing.assert_close(mean_distance(uniform(7), (2, 3), 8, 1), torch.full((2, 3), expected))


def test_identity_attention_has_entropy_and_distance_zero():
    assert torch.equal(entropy(identity(6)).abs(), torch.zeros(2, 3))
    assert torch.equal(mean_distance(identity(6), (2, 3), 8), torch.zeros(2, 3))


def test_entropy_lies_between_and_distances_are_symmetric():
    value = entropy(torch.randn(2, 3, 9, 9).mul(4).softmax(-1), 1)
    assert bool(((value > 0) & (value < 1)).all())
    distances = patch_distances((2, 3), 4)
    assert torch.equal(distances, distances.T) and distances[0, 5] == pytest.approx(4 * 5**0.5)


def test_rollout_of_known_attention():
    torch.testing.assert_close(rollout([uniform(6)])[0], (torch.eye(6) + torch.ones(6, 6) / 6) / 2)
    torch.testing.assert_close(rollout([identity(6)] * 4)[1], torch.eye(6))


def test_rollout_multiplies_later_blocks_from_the_left_and_rows_sum_to_one():
    first, second = (torch.randn(2, 3, 6, 6).softmax(-1) for _ in range(2))
    half = [(a[0].mean(0).double() + torch.eye(6, dtype=torch.float64)) / 2 for a in (first, second)]
    product = rollout([first, second])
    torch.testing.assert_close(product[0].double(), half[1] @ half[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(product.sum(-1), torch.ones(2, 6))


@pytest.mark.parametrize("prefix", [1, 3])
def test_maps_are_the_class_row_without_prefix_columns(prefix):
    net = TinyTransformer(prefix=prefix)
    tokens = net.eval()(net.preprocess(IMAGES), return_attention=True)
    maps = attention_maps(net, IMAGES, layer=0, batch_size=2)
    assert maps.shape == (5, 2, 2, 3)
    torch.testing.assert_close(maps.flatten(2), tokens.attentions[0][:, :, 0, prefix:])
    assert bool((maps.sum((2, 3)) < 1).all())
    expected = rollout(tokens.attentions)[:, 0, prefix:].unflatten(1, (2, 3))
    torch.testing.assert_close(attention_rollout(net, IMAGES, batch_size=3), expected)


def test_without_class_token_the_mean_query_stands_in():
    maps = attention_maps(TinyTransformer(prefix=0), IMAGES)
    torch.testing.assert_close(maps.sum((2, 3)), torch.ones(5, 2))


def test_head_averages_weigh_images_equally_whatever_the_batches():
    net = TinyTransformer()
    for probe in (attention_distance, attention_entropy):
        table = probe(net, IMAGES, batch_size=2)
        assert table.shape == (2, 2)
        torch.testing.assert_close(table, torch.stack([probe(net, image[None]) for image in IMAGES]).mean(0))


def test_a_net_without_attention_is_refused():
    for probe in (attention_maps, attention_rollout, attention_distance, attention_entropy):
        with pytest.raises(ValueError, match="NoAttention shows no attention"):
            probe(NoAttention(), IMAGES)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="layer"):
        attention_maps(TinyTransformer(), IMAGES, layer=2)
    with pytest.raises(ValueError, match="at least one image"):
        attention_maps(TinyTransformer(), IMAGES[:0])
    with pytest.raises(ValueError, match="T x T"):
        entropy(torch.ones(1, 1, 3, 4))
    with pytest.raises(ValueError, match="num_prefix_tokens"):
        entropy(torch.ones(1, 1, 3, 3), 3)
    with pytest.raises(ValueError, match="at least 2 patches"):
        entropy(torch.ones(1, 1, 2, 2), 1)
    with pytest.raises(ValueError, match="grid"):
        mean_distance(uniform(6), (2, 2))
    with pytest.raises(ValueError, match="at least one block"):
        rollout([])
    with pytest.raises(ValueError, match="one batch and length"):
        rollout([uniform(3), uniform(4)])


@pytest.mark.parametrize("name", ["vit", "convnet"])
def test_the_course_backbones_fit(name):
    create_backbone = pytest.importorskip("sslcore.backbones").create_backbone
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    if name == "convnet":
        with pytest.raises(ValueError, match="attention"):
            attention_maps(create_backbone("convnet", in_chans=3, widths=(4, 8)), images)
        return
    net = create_backbone("vit", img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=2)
    assert attention_maps(net, images).shape == (2, 2, 4, 4)
    assert attention_entropy(net, images).shape == (2, 2)
