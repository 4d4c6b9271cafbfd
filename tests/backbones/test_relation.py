"""Retrieval against scikit-learn, and what the relation block ignores and what it does not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from sslcore.backbones.relation import RelationBlock, nearest_rows


@given(num=st.integers(1, 9), seed=st.integers(0, 30))
def test_retrieval_equals_scikit_learn(num, seed):
    generator = torch.Generator().manual_seed(seed)
    queries, memory = torch.randn(4, 6, generator=generator), torch.randn(9, 6, generator=generator)
    found = NearestNeighbors(n_neighbors=num, metric="cosine").fit(memory.numpy()).kneighbors(queries.numpy())[1]
    assert torch.equal(nearest_rows(queries, memory, num), memory[torch.from_numpy(found)])


def test_lengths_steer_nothing_and_come_back_as_stored():
    queries, memory = torch.randn(4, 6), torch.randn(9, 6)
    lengths = torch.rand(9, 1) * 5 + 0.1
    plain = nearest_rows(queries, memory, 3)
    scaled = nearest_rows(7 * queries, memory * lengths, 3)
    unit, expected = (rows / rows.norm(dim=2, keepdim=True) for rows in (scaled, plain))
    torch.testing.assert_close(unit, expected)
    assert not torch.allclose(scaled, plain)


def test_neighbours_carry_no_gradient_and_may_be_none():
    queries = torch.randn(2, 4, requires_grad=True)
    assert not nearest_rows(queries, torch.randn(5, 4), 2).requires_grad
    assert nearest_rows(queries, torch.randn(5, 4), 0).shape == (2, 0, 4)


def test_order_of_the_neighbours_does_not_matter_but_who_they_are_does():
    block = RelationBlock(8, 2).double()
    feature, neighbours = torch.randn(3, 8, dtype=torch.float64), torch.randn(3, 5, 8, dtype=torch.float64)
    out = block(feature, neighbours)
    torch.testing.assert_close(block(feature, neighbours[:, torch.randperm(5)]), out)
    assert not torch.allclose(block(feature, torch.randn_like(neighbours)), out)
    assert out.shape == (3, 8) and not torch.allclose(block(feature.roll(1, 0), neighbours), out)


def test_without_neighbours_one_token_attends_to_itself():
    block = RelationBlock(8, 2)
    feature = torch.randn(3, 8)
    sequence = feature[:, None]
    alone = sequence + block.block.attn.proj(block.block.attn.qkv(block.block.norm1(sequence))[..., 16:])
    alone = alone + block.block.mlp(block.block.norm2(alone))
    torch.testing.assert_close(block(feature, torch.zeros(3, 0, 8)), block.norm(alone[:, 0]))


def test_bad_input_is_refused():
    x = torch.randn(3, 4)
    for queries, memory, num in ((x[0], x, 1), (x, x[0], 1), (x, torch.randn(3, 5), 1), (x, x, 4), (x, x, -1)):
        with pytest.raises(ValueError, match="expected"):
            nearest_rows(queries, memory, num)
    with pytest.raises(ValueError, match="divisor"):
        RelationBlock(8, 3)
