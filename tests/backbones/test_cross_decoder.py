"""Claims: questions never meet, the mask is obeyed, attention equals a NumPy transcription; bad input is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sslcore.backbones import CrossDecoder, cluster_mask
from sslcore.backbones.cross_decoder import CrossBlock


@given(clusters=st.integers(1, 6), size=st.integers(1, 5))
def test_mask_by_hand(clusters, size):
    mask = cluster_mask(clusters, size)
    for question in range(clusters * size):
        for memory in range(clusters * size):
            assert bool(mask[question, memory]) == (memory // size <= question // size)
    assert torch.equal(cluster_mask(clusters, 1), torch.ones(clusters, clusters).bool().tril())


def test_cross_attention_equals_numpy():
    torch.manual_seed(0)
    block, x, memory = CrossBlock(6, 2), torch.randn(1, 3, 6), torch.randn(1, 4, 6)
    block.mlp.fc2.weight.data.zero_(), block.mlp.fc2.bias.data.zero_()
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]).bool()
    q, m = block.norm1(x)[0].detach().numpy(), block.norm_memory(memory)[0].detach().numpy()
    w = {name: value.detach().numpy() for name, value in block.named_parameters()}
    query = q @ w["query.weight"].T + w["query.bias"]
    key, value = np.split(m @ w["key_value.weight"].T + w["key_value.bias"], 2, axis=1)
    rows = []
    for i in range(3):
        heads = []
        for h in (slice(0, 3), slice(3, 6)):
            open_keys = np.flatnonzero(mask[i].numpy())
            score = np.exp(key[open_keys][:, h] @ query[i, h] / np.sqrt(3))
            heads.append(score / score.sum() @ value[open_keys][:, h])
        rows.append(np.concatenate(heads) @ w["proj.weight"].T + w["proj.bias"])
    torch.testing.assert_close(block(x, memory, mask).detach()[0], x[0] + torch.from_numpy(np.stack(rows)).float())


def test_questions_never_meet_and_the_mask_is_obeyed():
    torch.manual_seed(0)
    decoder = CrossDecoder(8, 2, (4, 4), 5, embed_dim=12, depth=2).double()
    layers = torch.randn(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    places, mask = torch.arange(4, 12), cluster_mask(2, 4)
    said = decoder(list(layers), places, mask)
    assert said.shape == (1, 8, 5)
    torch.testing.assert_close(decoder(list(layers), places[[5, 2]], mask[[5, 2]]), said[:, [5, 2]])
    read = torch.stack([torch.autograd.grad(said[:, i].sum(), layers, retain_graph=True)[0].abs().amax((0, 1, 3))
                        for i in range(8)])  # fmt: skip
    assert torch.equal(read > 0, mask)


def test_every_tap_and_block_counts():
    decoder = CrossDecoder(8, 3, (4, 4), 5, embed_dim=12, depth=2)
    layers = [torch.randn(2, 6, 8, requires_grad=True) for _ in range(3)]
    decoder(layers, torch.arange(6)).square().sum().backward()
    assert all(bool(layer.grad.any()) for layer in layers)
    assert all(weight.grad is not None for weight in decoder.parameters())


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="embed_dim: expected a multiple of 3 heads"):
        CrossDecoder(8, 1, (4, 4), 5, embed_dim=8)
    with pytest.raises(ValueError, match="taps"):
        CrossDecoder(8, 0, (4, 4), 5)
    decoder, layer = CrossDecoder(8, 1, (4, 4), 5), torch.randn(2, 6, 8)
    with pytest.raises(ValueError, match="layers: expected 1, got 2"):
        decoder([layer, layer], torch.arange(6))
    with pytest.raises(ValueError, match="places: expected 1 dimensions"):
        decoder([layer], torch.arange(6)[None])
    with pytest.raises(ValueError, match=r"mask: expected \(5, 6\), got \(6, 6\)"):
        decoder([layer], torch.arange(5), cluster_mask(6, 1))
    with pytest.raises(ValueError, match="size"):
        cluster_mask(3, 0)
