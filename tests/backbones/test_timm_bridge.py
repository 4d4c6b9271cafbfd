"""Claims about the bridge: tokens are forward_features rearranged, attention is exact or
refused, the model is left as found."""

from __future__ import annotations

import pytest
import torch

from sslcore.backbones import create_backbone, timm_backbone

pytest.importorskip("timm")

MAPS = {  # name: (options, image size)
    "resnet18": ({}, 64),
    "convnext_atto": ({}, 64),
    "swin_tiny_patch4_window7_224": (dict(img_size=56, depths=(1, 1, 1, 1), window_size=7), 56),
}
SEQUENCES = {
    "vit_tiny_patch16_224": (dict(img_size=48, depth=2), 48),
    "deit_tiny_distilled_patch16_224": (dict(img_size=48, depth=2), 48),
    "vit_small_patch16_dinov3": (dict(img_size=48, depth=2), 48),
    "vit_base_patch16_siglip_224": (dict(img_size=48, depth=2), 48),
}


def build(name, table):
    options, size = table[name]
    torch.manual_seed(0)
    return timm_backbone(name, **options).eval(), torch.randn(2, 3, size, size)


@pytest.mark.parametrize("name", MAPS)
@torch.no_grad()
def test_feature_maps_become_row_major_tokens(name):
    net, x = build(name, MAPS)
    features = net.model.forward_features(x)
    if name.startswith("swin"):
        features = features.permute(0, 3, 1, 2)
    tokens = net(x, return_layers=True)
    height, width = tokens.grid
    assert features.shape == (2, net.embed_dim, height, width) and height * net.patch_size >= x.shape[2]
    for place in range(height * width):
        assert torch.equal(tokens.patch_tokens[:, place], features[:, :, place // width, place % width])
    torch.testing.assert_close(tokens.cls_token, features.mean(dim=(2, 3)))
    assert net.num_prefix_tokens == 0 and tokens.register_tokens is None
    assert all(layer.ndim == 3 for layer in tokens.layers) and len(tokens.layers) >= 4
    with pytest.raises(ValueError, match="no softmax attention"):
        net(x, return_attention=True)


@pytest.mark.parametrize("name", SEQUENCES)
@torch.no_grad()
def test_sequences_lose_their_prefix_and_show_exact_attention(name):
    net, x = build(name, SEQUENCES)
    features, prefix = net.model.forward_features(x), net.num_prefix_tokens
    tokens = net(x, return_layers=True, return_attention=True)
    assert tokens.grid == (3, 3)
    torch.testing.assert_close(tokens.patch_tokens, features[:, prefix:], rtol=1e-5, atol=1e-5)
    expected = features[:, 0] if prefix else features.mean(1)
    torch.testing.assert_close(tokens.cls_token, expected, rtol=1e-5, atol=1e-5)
    assert [layer.shape for layer in tokens.layers] == [(2, prefix + 9, net.embed_dim)] * 3
    torch.testing.assert_close(net.model.norm(tokens.layers[-1])[:, prefix:], tokens.patch_tokens, rtol=1e-5, atol=1e-5)
    for weights in tokens.attentions:
        assert weights.shape[-2:] == (prefix + 9, prefix + 9) and weights.dtype == torch.float32
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:3]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net(x, return_attention=[-1]).attentions[0], tokens.attentions[1])
    # Hooks and switches are gone afterwards.
    assert all(block.attn.fused_attn and not block.attn.attn_drop._forward_pre_hooks for block in net.model.blocks)
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in net.model.blocks)


@torch.no_grad()
def test_attention_is_the_softmax_of_queries_and_keys():
    net, x = build("vit_tiny_patch16_224", SEQUENCES)
    tokens = net(x, return_layers=True, return_attention=True)
    for block, entering, weights in zip(net.model.blocks, tokens.layers[:-1], tokens.attentions, strict=True):
        qkv = block.attn.qkv(block.norm1(entering)).reshape(2, 10, 3, 3, 64)
        query, key = qkv[:, :, 0].transpose(1, 2), qkv[:, :, 1].transpose(1, 2)
        scores = torch.einsum("bhid,bhjd->bhij", query, key) / 8.0
        torch.testing.assert_close(weights, scores.softmax(-1), rtol=1e-5, atol=1e-5)


def test_a_failing_pass_still_restores_the_model():
    net, _ = build("vit_tiny_patch16_224", SEQUENCES)
    with pytest.raises(AssertionError):  # timm's own complaint about the size
        net(torch.randn(1, 3, 32, 32), return_attention=True, return_layers=True)
    assert all(block.attn.fused_attn and not block.attn.attn_drop._forward_pre_hooks for block in net.model.blocks)
    assert not any(block._forward_hooks for block in net.model.blocks)


@torch.no_grad()
def test_a_norm_behind_the_pooling_is_applied_to_the_tokens():
    net = timm_backbone("vit_tiny_patch16_224", img_size=32, depth=1, global_pool="avg").eval()
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(net(x).patch_tokens, net.model.fc_norm(net.model.forward_features(x))[:, 1:])


def test_preprocess_follows_the_data_config():
    net = timm_backbone("resnet18")
    white = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(net.preprocess(white)[0, :, 0, 0], expected)
    torch.testing.assert_close(net.preprocess(white.float() / 255), net.preprocess(white))
    grey = net.preprocess(white[:, :1])
    assert grey.shape == (1, 1, 2, 2)
    torch.testing.assert_close(grey[0, 0, 0, 0].item(), (1 - 0.449) / 0.226, rtol=1e-5, atol=0)


def test_names_and_channels():
    with pytest.raises(ValueError, match="nearest known: .*resnet18"):
        timm_backbone("resnet_18")
    with pytest.raises(ValueError, match="known: convnet, .*regnet, resnet18, timm/<model name>, vit"):
        create_backbone("vgg")
    net = create_backbone("timm/resnet10t", in_chans=1)
    assert net(torch.zeros(2, 1, 32, 32)).grid == (1, 1)
    with pytest.raises(ValueError, match=r"\(B >= 1, 1, H, W\)"):
        net(torch.zeros(2, 3, 32, 32))
    with pytest.raises(TypeError, match="floating-point"):
        net(torch.zeros(2, 1, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match="expected 7 x 7 patch tokens, forward_features gives 1"):
        timm_backbone("pit_ti_224").eval()(torch.zeros(1, 3, 224, 224))


def test_create_backbone_passes_options_on():
    assert create_backbone("vit", img_size=16, patch_size=4, embed_dim=24, depth=1, num_heads=2).embed_dim == 24
    assert create_backbone("convnet", widths=(4, 8)).embed_dim == 8
    assert create_backbone("resnet18", width=8).embed_dim == 64
