"""Claims: with the same weights our transformer gives timm's tokens, layers and attention; what cannot match is
refused."""

from __future__ import annotations

import pytest
import torch

from sslcore.backbones import VisionTransformer, load_timm_vit

timm = pytest.importorskip("timm")

NO_CLASS = dict(class_token=False, global_pool="avg", fc_norm=False)
VARIANTS = {
    "plain": {},
    "layer scale": dict(init_values=0.1),
    "registers": dict(reg_tokens=4),
    "registers without positions": dict(reg_tokens=2, no_embed_class=True),
    "no class token": NO_CLASS,
    "registers, no class token": dict(reg_tokens=2) | NO_CLASS,
    "no positions, no biases": dict(pos_embed="none", qkv_bias=False),
}


def timm_model(**options):
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, pretrained=False, depth=3, **options).eval()
    with torch.no_grad():  # the usual start of 0.02 leaves little to tell apart
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    return model


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_tokens_and_layers_equal_timm(variant):
    model, x = timm_model(**VARIANTS[variant]), torch.randn(2, 3, 64, 64)
    net = load_timm_vit(model)
    seen = []
    handles = [block.register_forward_hook(lambda _m, _i, output: seen.append(output)) for block in model.blocks]
    theirs = model.forward_features(x)
    for handle in handles:
        handle.remove()
    ours, prefix = net(x, return_layers=True), model.num_prefix_tokens
    close = dict(rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.patch_tokens, theirs[:, prefix:], **close)
    if model.cls_token is None:
        torch.testing.assert_close(ours.cls_token, theirs[:, prefix:].mean(1), **close)
    else:
        torch.testing.assert_close(ours.cls_token, theirs[:, 0], **close)
    if model.reg_token is not None:
        torch.testing.assert_close(ours.register_tokens, theirs[:, prefix - model.num_reg_tokens : prefix], **close)
    for layer, reference in zip(ours.layers[1:], seen, strict=True):
        torch.testing.assert_close(layer, reference, **close)


@pytest.mark.parametrize("variant", ["plain", "registers", "no class token"])
@torch.no_grad()
def test_attention_equals_the_explicit_softmax_of_timm(variant):
    model, x = timm_model(**VARIANTS[variant]), torch.randn(2, 3, 64, 64)
    for block in model.blocks:
        block.attn.fused_attn = False
    reference = timm.utils.AttentionExtract(model, method="fx")(x)
    ours = load_timm_vit(model)(x, return_attention=True).attentions
    assert len(ours) == len(reference) == 3
    for weights, theirs in zip(ours, reference.values(), strict=True):
        torch.testing.assert_close(weights, theirs, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_full_tiny_model_by_name_and_from_a_state_dict():
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, pretrained=False).eval()
    net = VisionTransformer(64, 16, embed_dim=192, depth=12, num_heads=3).eval()
    assert net.load_timm(model.state_dict()) is net
    x = torch.randn(2, 3, 64, 64)
    theirs = model.forward_head(model.forward_features(x), pre_logits=True)
    torch.testing.assert_close(net(x).cls_token, theirs, rtol=1e-5, atol=1e-5)
    named = load_timm_vit("vit_tiny_patch16_224", img_size=32, in_chans=1, depth=1)
    assert named(torch.zeros(1, 1, 32, 32)).grid == (2, 2) and named.training
    white = torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)
    torch.testing.assert_close(named.preprocess(white), torch.ones(1, 1, 2, 2))


@torch.no_grad()
def test_another_size_equals_timm_with_dynamic_size():
    model = timm_model(dynamic_img_size=True)
    x = torch.randn(1, 3, 96, 48)
    theirs = model.forward_features(x)
    torch.testing.assert_close(load_timm_vit(model)(x).patch_tokens, theirs[:, 1:], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_causal_mask_equals_timm():
    model, x = timm_model(), torch.randn(1, 3, 64, 64)
    theirs = model.forward_features(x, is_causal=True)
    ours = load_timm_vit(model)(x, attn_mask="causal").patch_tokens
    torch.testing.assert_close(ours, theirs[:, 1:], rtol=1e-5, atol=1e-5)


def test_what_does_not_fit_is_refused():
    small = VisionTransformer(64, 16, embed_dim=192, depth=3, num_heads=3)
    with pytest.raises(ValueError, match="unexpected .*q_norm"):
        load_timm_vit(timm_model(qk_norm=True))
    with pytest.raises(ValueError, match="missing .*'norm.bias'"):
        load_timm_vit(timm_model(class_token=False, global_pool="avg"))
    with pytest.raises(ValueError, match="expected exact GELU"):
        load_timm_vit(timm_model(act_layer="gelu_tanh"))
    with pytest.raises(ValueError, match="other shape .*pos_embed"):
        small.load_timm(timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, pretrained=False))
    with pytest.raises(ValueError, match="norm_eps"):
        VisionTransformer(64, 16, embed_dim=192, depth=3, num_heads=3, norm_eps=1e-5).load_timm(timm_model())
    with pytest.raises(ValueError, match='the network has "rope"'):
        VisionTransformer(64, 16, embed_dim=192, depth=3, num_heads=3, pos_embed="rope").load_timm(timm_model())
    with pytest.raises(ValueError, match="got ResNet; use timm_backbone"):
        load_timm_vit("resnet18")
