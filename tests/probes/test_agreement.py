"""Attention logits are the network's own, and partial correlations come out as planted."""

from __future__ import annotations

import pytest
import torch

from sslcore.backbones import TimmBackbone, VisionTransformer
from sslcore.probes.same_object.agreement import attention_agreement, attention_logits, partial_correlation
from sslcore.probes.same_object.pairs import Pairs
from sslcore.probes.same_object.subspace import Subspace

SHAPE = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}


def timm_net() -> TimmBackbone:
    timm = pytest.importorskip("timm")
    return TimmBackbone(timm.models.VisionTransformer(**SHAPE, num_classes=0, init_values=0.5, qk_norm=True)).eval()


@pytest.mark.parametrize("network", [lambda: VisionTransformer(**SHAPE).eval(), timm_net])
def test_the_logits_give_the_networks_attention(network):
    torch.manual_seed(0)
    backbone = network()
    tokens = backbone(torch.randn(2, 3, 32, 32), return_layers=True, return_attention=True)
    for block in range(2):
        logits = attention_logits(backbone, tokens.layers[block], block)
        shown = tokens.attentions[block][:, :, 1:, 1:]
        expected = shown / shown.sum(-1, keepdim=True)
        torch.testing.assert_close(logits.softmax(-1), expected, atol=1e-5, rtol=1e-4)


def test_rotary_positions_are_refused():
    with pytest.raises(ValueError, match="rotary"):
        attention_logits(VisionTransformer(**SHAPE | {"pos_embed": "rope"}), torch.randn(1, 17, 24), 0)


def planted_pairs(images: int = 80, each: int = 150) -> tuple[Pairs, torch.Generator]:
    generator = torch.Generator().manual_seed(0)
    image = torch.arange(images).repeat_interleave(each)
    ends = torch.stack([torch.randperm(64, generator=generator)[:2].sort().values for _ in image])
    return Pairs(image, ends[:, 0], ends[:, 1], image >= 0, (8, 8)), generator


def test_partial_correlation_is_the_planted_one():
    """attention = any function of displacement + s + noise of variance 3: r = 1 / 2 whatever the function is."""
    pairs, generator = planted_pairs()
    rows, columns = pairs.second // 8 - pairs.first // 8, (pairs.second % 8 - pairs.first % 8).abs()
    step = 5.0 * rows + 3.0 * columns
    place = 20 * torch.cos(step)
    s = torch.randn(len(pairs), generator=generator)
    noise = 3**0.5 * torch.randn(len(pairs), generator=generator)
    heads = torch.stack([place + s + noise, place + noise, place - s])
    found = partial_correlation(heads, s + 5 * torch.sin(step), pairs)
    torch.testing.assert_close(found.value, torch.tensor([0.5, 0.0, -1.0]), atol=0.03, rtol=0)
    assert bool((found.low <= found.value + 1e-6).all()) and bool((found.value <= found.high + 1e-6).all())
    assert float(found.low[0]) < 0.5 < float(found.high[0]) and float(found.low[1]) < 0 < float(found.high[1])


def test_covariates_are_taken_out():
    pairs, generator = planted_pairs()
    look, own, noise = (torch.randn(len(pairs), generator=generator) for _ in range(3))
    heads, score = (2 * look + own + noise)[None], look + own
    alone = partial_correlation(heads, score, pairs)
    rest = partial_correlation(heads, score, pairs, covariates=look)
    assert float(alone.value) == pytest.approx(3 / 12**0.5, abs=0.03)
    assert float(rest.value) == pytest.approx(0.5**0.5, abs=0.03)


def test_a_head_that_compares_what_the_probe_compares_agrees_fully():
    torch.manual_seed(1)
    backbone = VisionTransformer(**SHAPE | {"depth": 1, "num_heads": 1}).eval()
    sequence = torch.randn(6, 17, 24)
    logits = attention_logits(backbone, sequence, 0)[:, 0]
    first, second = torch.triu_indices(16, 16, 1)
    pairs = Pairs(torch.arange(6).repeat_interleave(120), first.repeat(6), second.repeat(6),
                  torch.ones(720, dtype=torch.bool), (4, 4))  # fmt: skip
    scores = ((logits + logits.mT) / 2)[pairs.image, pairs.first, pairs.second][None]
    found = attention_agreement(backbone, [sequence], scores, pairs)
    assert found.value.shape == (1,) and float(found.value) == pytest.approx(1, abs=1e-5)
    where = Subspace(torch.linalg.qr(torch.randn(24, 2))[0], torch.zeros(24), torch.ones(24))
    partial = attention_agreement(backbone, [sequence], scores, pairs, [where])
    assert float(partial.value) == pytest.approx(1, abs=1e-5)


def test_bad_input_is_named():
    pairs, _ = planted_pairs(4, 5)
    with pytest.raises(ValueError, match="20 pairs"):
        partial_correlation(torch.randn(1, 19), torch.randn(19), pairs)
    with pytest.raises(ValueError, match="blocks"):
        attention_logits(torch.nn.Linear(3, 3), torch.randn(1, 4, 3), 0)
