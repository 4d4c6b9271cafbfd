"""Attentive probe: finds one marked token that the mean token hides; chosen on val; bad input."""

from __future__ import annotations

import pytest
import torch

from sslcore.probes.attentive import AttentivePool, attentive_probe
from sslcore.probes.linear import linear_probe


def marked(count: int, seed: int):
    """16 tokens; the one with a large first entry carries the class in its sign, and louder decoys hide the mean."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(count, 16, 8, generator=generator)
    labels = torch.randint(2, (count,), generator=generator)
    tokens[..., 0] = 0
    tokens[..., 1] *= 3
    place = torch.randint(16, (count,), generator=generator)
    tokens[torch.arange(count), place, 0] = 4
    tokens[torch.arange(count), place, 1] = labels * 4.0 - 2
    return tokens, labels


def test_finds_the_marked_token_where_the_mean_does_not():
    train, val, test = marked(600, 1), marked(200, 2), marked(300, 3)
    result = attentive_probe(train, val, test, num_heads=2, epochs=8, lrs=[1e-2])
    means = [(tokens.mean(1), labels) for tokens, labels in (train, val, test)]
    assert result.accuracy > 0.85 > 0.75 > linear_probe(*means).accuracy
    assert result.lr == 1e-2 and 1 <= result.epoch <= 8


def test_starts_as_the_mean_and_counts_its_parameters():
    pool = AttentivePool(8, 3, 2)
    tokens = torch.randn(2, 5, 8)
    torch.testing.assert_close(pool(tokens), pool(tokens[:, torch.randperm(5)]))
    torch.testing.assert_close(pool(tokens), pool.head(pool.norm(pool.value(tokens).mean(1))))
    train = marked(20, 4)
    size = attentive_probe(train, train, train, num_heads=2, epochs=1, lrs=[1e-3]).num_parameters
    assert size == 8 + 2 * (64 + 8) + 16 + 2 * 8 + 2


def test_the_short_cut_equals_keys_and_values_of_every_token():
    torch.manual_seed(0)
    pool = AttentivePool(12, 3, 4)
    torch.nn.init.normal_(pool.query)
    tokens = torch.randn(5, 7, 12)
    key, value = (layer(tokens).unflatten(-1, (4, 3)) for layer in (pool.key, pool.value))
    rows = []
    for head in range(4):
        weights = (key[:, :, head] @ pool.query[head] / 3**0.5).softmax(1)
        rows.append((weights[..., None] * value[:, :, head]).sum(1))
    torch.testing.assert_close(pool(tokens), pool.head(pool.norm(torch.cat(rows, 1))))


def test_same_seed_same_result():
    train, val = marked(60, 5), marked(40, 6)
    first, second = (attentive_probe(train, val, val, epochs=2, seed=3) for _ in range(2))
    assert first.accuracy == second.accuracy and first.lr == second.lr


@pytest.mark.parametrize(
    "change, message",
    [({"num_heads": 3}, "num_heads"), ({"lrs": []}, "lrs"), ({"epochs": 0}, "epochs")],
)
def test_bad_settings_are_named(change, message):
    train = marked(8, 1)
    with pytest.raises(ValueError, match=message):
        attentive_probe(train, train, train, **change)


def test_bad_tokens_are_named():
    tokens, labels = marked(8, 1)
    with pytest.raises(ValueError, match="dimensions"):
        attentive_probe((tokens[:, 0], labels), (tokens, labels), (tokens, labels))
    with pytest.raises(ValueError, match="finite"):
        attentive_probe((tokens * float("nan"), labels), (tokens, labels), (tokens, labels))
