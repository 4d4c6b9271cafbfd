"""Patch network and pool: no pixel crosses a patch border, order matters only with positions, trunk on whole images."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sslcore.backbones import PatchPool, create_backbone, residual_trunk, small_convnet, with_fresh_group
from sslcore.probes import untrained_copy


def build(depth=2, norm="group", **settings):
    torch.manual_seed(0)
    return PatchPool(residual_trunk(3, (4, 8), norm=norm), **{"img_size": 32, "depth": depth, **settings})


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_each_patch_is_embedded_alone(images, norm):
    net = build(norm=norm).eval()
    embedded = net.embed(images)
    assert embedded.shape == (2, 16, 8)
    for place in (0, 7, 13):
        row, column = divmod(place, 4)
        patch = images[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        alone = F.layer_norm(net.trunk(patch).pooled, (8,), net.patch_norm.weight, net.patch_norm.bias, 1e-6)
        torch.testing.assert_close(embedded[:, place], alone, atol=1e-5, rtol=1e-4)


def test_group_norm_keeps_patches_apart_also_in_training(images):
    moved = images.clone()
    moved[:, :, :8, :8] += 3.0
    for norm, apart in (("group", True), ("batch", False)):
        net = build(norm=norm).train()
        assert torch.allclose(net.embed(moved)[:, 1:], net.embed(images)[:, 1:], atol=1e-5) is apart


def test_pool_is_an_ordinary_transformer_on_what_is_kept(images):
    net = build()
    ids = torch.tensor([[3, 8, 1], [15, 0, 5]])
    tokens = net(images, ids_keep=ids, return_layers=True, return_attention=True)
    sequence = torch.stack([(net.embed(images) + net.pos_embed)[b, ids[b]] for b in range(2)])
    sequence = torch.cat([net.cls_token.expand(2, 1, -1), sequence], 1)
    torch.testing.assert_close(tokens.layers[0], sequence)
    for block, expected in zip(net.blocks, tokens.layers[1:], strict=True):
        attention = torch.nn.MultiheadAttention(8, 4, batch_first=True)
        attention.load_state_dict({"in_proj_weight": block.attn.qkv.weight, "in_proj_bias": block.attn.qkv.bias,
                                   "out_proj.weight": block.attn.proj.weight, "out_proj.bias": block.attn.proj.bias})
        x = block.norm1(sequence)
        sequence = sequence + attention(x, x, x)[0]
        sequence = sequence + block.mlp(block.norm2(sequence))
        torch.testing.assert_close(expected, sequence, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(tokens.cls_token, net.norm(sequence)[:, 0], atol=1e-5, rtol=1e-4)
    assert tokens.patch_tokens.shape == (2, 3, 8) and tokens.grid == (4, 4) and tokens.num_prefix_tokens == 1
    assert [a.shape for a in tokens.attentions] == [(2, 4, 4, 4)] * 2


def test_order_of_visible_patches_matters_only_through_positions(images):
    net = build()
    torch.nn.init.normal_(net.pos_embed)
    ids = torch.tensor([[3, 8, 1, 10]] * 2)
    pooled = net(images, ids_keep=ids).cls_token
    torch.testing.assert_close(net(images, ids_keep=ids.flip(1)).cls_token, pooled, atol=1e-5, rtol=1e-4)
    moved = net.embed(images)[:, torch.arange(16).roll(1)]
    assert not torch.allclose(net.pool(moved, (4, 4)).cls_token, net(images).cls_token, atol=1e-3)
    torch.nn.init.zeros_(net.pos_embed)
    torch.testing.assert_close(net.pool(moved, (4, 4)).cls_token, net(images).cls_token, atol=1e-5, rtol=1e-4)


def test_patches_left_out_change_nothing(images):
    net, ids = build(), torch.tensor([[3, 8, 1]] * 2)
    changed = images.clone()
    changed[:, :, :8, :8] = 9.0
    assert torch.equal(net(changed, ids_keep=ids).cls_token, net(images, ids_keep=ids).cls_token)
    assert not torch.equal(net(changed).cls_token, net(images).cls_token)


def test_other_sizes_resample_the_positions():
    tokens = build()(torch.randn(1, 3, 48, 64))
    assert tokens.grid == (6, 8) and tokens.patch_tokens.shape == (1, 48, 8)


def test_trunk_runs_on_whole_images_and_takes_one_more_group(images):
    net = build()
    whole = net.trunk(images)
    assert whole.grid == (8, 8) and whole.patch_tokens.shape == (2, 64, 8) and net.trunk.patch_size == 4
    deeper = with_fresh_group(net.trunk)
    tokens = deeper(images, return_layers=True)
    assert tokens.grid == (4, 4) and deeper.embed_dim == 16 and deeper.patch_size == 8
    torch.testing.assert_close(tokens.layers[-2], whole.patch_tokens)
    with torch.no_grad():
        for weight in deeper.parameters():
            weight.add_(1)
    torch.testing.assert_close(net.trunk(images).patch_tokens, whole.patch_tokens)  # a copy, not the same weights
    torch.manual_seed(3)
    first = with_fresh_group(net.trunk, 12, blocks=2)(images).cls_token
    torch.manual_seed(3)
    assert torch.equal(with_fresh_group(net.trunk, 12, blocks=2)(images).cls_token, first) and first.shape == (2, 12)


def test_is_the_resnet_of_torchvision():
    from torchvision.models.resnet import resnet18

    reference, net = resnet18(), residual_trunk(3, (64, 128, 256), blocks=2, stem_stride=2, norm="batch")
    pairs = [(net.stages[1], reference.layer1), (net.stages[2], reference.layer2), (net.stages[3], reference.layer3)]
    for ours, theirs in pairs:
        ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 64, 16, 16)
    ours, theirs = net.stages[1:].eval(), torch.nn.Sequential(*(part for _, part in pairs)).eval()
    torch.testing.assert_close(torch.nn.Sequential(*ours)(x), theirs(x))


def test_untrained_copy_starts_as_the_net_did():
    net = build()
    fresh = untrained_copy(net, seed=5)
    for (name, weight), other in zip(net.named_parameters(), fresh.parameters(), strict=True):
        if weight.ndim >= 2:
            assert not torch.equal(weight, other), name
            assert other.std() < 2 * weight.std() + 1e-3, name


def test_is_built_from_plain_numbers(images):
    options = {"in_chans": 3, "widths": (4, 8), "img_size": 32, "depth": 1}
    torch.manual_seed(2)
    net = create_backbone("patch_pool", **options)
    torch.manual_seed(2)
    again = PatchPool(residual_trunk(3, (4, 8)), img_size=32, depth=1)
    assert torch.equal(net(images).cls_token, again(images).cls_token)


def test_bad_input_is_refused(images):
    net = build()
    for call, said in (
        (lambda: residual_trunk(1, ()), "expected at least one group"),
        (lambda: residual_trunk(1, (6,)), "multiples of 4"),
        (lambda: residual_trunk(1, (8,), norm="layer"), "unknown norm 'layer'; known: batch, group"),
        (lambda: residual_trunk(1, (8,), stem_stride=0), "stem_stride: expected a finite number above 0"),
        (lambda: PatchPool(small_convnet(1, (8,)), img_size=30), "img_size: expected a multiple of patch_size 8"),
        (lambda: PatchPool(small_convnet(1, (8,)), num_heads=3), "num_heads: expected a divisor of 8, got 3"),
        (lambda: net(images[:, :1]), "x: expected"),
        (lambda: net(images[..., :30]), "multiples of patch_size 8"),
        (lambda: net.pool(torch.randn(2, 9, 8), (4, 4)), "embedded: expected"),
        (lambda: net(images, return_attention=[2]), "return_attention"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            call()
    with pytest.raises(TypeError, match="ids_keep: expected int64"):
        net(images, ids_keep=torch.zeros(2, 3))
