"""Claims about attention maps: rows sum to one, they reproduce what the fused kernel computed, masks show in them."""

from __future__ import annotations

import math

import pytest
import torch

from sslcore.backbones import VisionTransformer, attention_weights
from sslcore.backbones.attention import Attention
from sslcore.backbones.positions import rope_angles


def naive_weights(query, key, allowed=None):
    """Row by row in float64 with the exponentials written out."""
    batch, heads, length, dim = query.shape
    out = torch.zeros(batch, heads, length, length, dtype=torch.float64)
    for b in range(batch):
        for h in range(heads):
            for i in range(length):
                row = query[b, h, i].double()
                scores = [float(row @ key[b, h, j].double()) / math.sqrt(dim) for j in range(length)]
                powers = [math.exp(s) if allowed is None or allowed[i, j] else 0.0 for j, s in enumerate(scores)]
                out[b, h, i] = torch.tensor(powers, dtype=torch.float64) / sum(powers)
    return out


@pytest.mark.parametrize("causal", [False, True])
def test_weights_match_the_written_out_softmax(causal):
    torch.manual_seed(0)
    query, key = torch.randn(2, 2, 5, 4), torch.randn(2, 2, 5, 4)
    allowed = torch.ones(5, 5, dtype=torch.bool).tril() if causal else None
    got = attention_weights(query, key, "causal" if causal else None)
    torch.testing.assert_close(got.double(), naive_weights(query, key, allowed), rtol=1e-5, atol=1e-6)
    assert got.dtype == torch.float32


def test_weights_stay_float32_under_autocast_and_for_half_inputs():
    query, key = torch.randn(1, 1, 6, 8), torch.randn(1, 1, 6, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = attention_weights(query, key)
    torch.testing.assert_close(inside, attention_weights(query, key), rtol=0, atol=0)
    assert attention_weights(query.bfloat16(), key.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("rope", [False, True])
@pytest.mark.parametrize("mask", [None, "causal", "bool", "additive"])
def test_weights_times_values_reproduce_the_fused_output(rope, mask):
    torch.manual_seed(0)
    layer, x = Attention(16, 2), torch.randn(3, 10, 16)
    mask = {
        "bool": (torch.rand(3, 1, 10, 10) > 0.5) | torch.eye(10, dtype=torch.bool),
        "additive": torch.randn(10, 10),
    }.get(mask, mask)
    angles = rope_angles((3, 3), 8) if rope else None
    out, weights = layer(x, angles, mask, True)
    assert layer(x, angles, mask, False)[1] is None
    value = layer.qkv(x)[..., 32:].reshape(3, 10, 2, 8).transpose(1, 2)
    rebuilt = layer.proj((weights @ value).transpose(1, 2).reshape(3, 10, 16))
    torch.testing.assert_close(rebuilt, out, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2, 10), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["learned", "rope"])
def test_network_maps_are_stochastic_and_asking_changes_nothing(kind):
    torch.manual_seed(0)
    net = VisionTransformer(16, 4, embed_dim=16, depth=3, num_heads=2, num_registers=2, pos_embed=kind).eval()
    x = torch.randn(2, 3, 16, 16)
    plain, shown = net(x), net(x, return_attention=True)
    assert plain.attentions is None and torch.equal(plain.patch_tokens, shown.patch_tokens)
    assert [tuple(a.shape) for a in shown.attentions] == [(2, 2, 19, 19)] * 3
    for weights in shown.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 19), rtol=1e-5, atol=1e-5)
        assert weights.min() >= 0
    last, first = net(x, return_attention=[-1, 0]).attentions
    assert torch.equal(last, shown.attentions[2]) and torch.equal(first, shown.attentions[0])
    kept = net(x, ids_keep=torch.tensor([[1, 2, 3]] * 2), return_attention=True)
    assert kept.attentions[0].shape == (2, 2, 6, 6)


def test_forbidden_pairs_have_weight_zero():
    net = VisionTransformer(16, 4, embed_dim=16, depth=2, num_heads=2)
    weights = net(torch.randn(1, 3, 16, 16), attn_mask="causal", return_attention=True).attentions[1]
    upper = torch.ones(17, 17, dtype=torch.bool).triu(1)
    assert weights[..., upper].abs().max() == 0 and weights[..., ~upper].min() > 0


def test_maps_carry_gradients():
    net = VisionTransformer(16, 4, embed_dim=16, depth=1, num_heads=2)
    net(torch.randn(1, 3, 16, 16), return_attention=True).attentions[0][0, 0, 0, 1].backward()
    assert net.blocks[0].attn.qkv.weight.grad.abs().max() > 0


def test_bad_input_is_named():
    query = torch.randn(2, 2, 5, 4)
    for key, mask, message in (
        (query[:1], None, "equal shapes"), (query[0], None, "equal shapes"), (query, "triangle", "causal"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            attention_weights(query, key, mask)
    with pytest.raises(ValueError, match="4 dimensions"):
        attention_weights(query[0], query[0])
