"""Claims about rendering in blocks: the values of the whole-batch path, whatever is drawn and however it is cut."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from sslcore.views import ViewPolicy, blocks, simclr_policy
from sslcore.views.color import ORDERS

POLICIES = {
    "everything": ViewPolicy(16, scale=(0.1, 1.0), jitter=(0.8, 0.8, 0.8, 0.2), blur=0.5, solarize=0.3),
    "colour only": simclr_policy(12),
    "own statistics": ViewPolicy(24, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), blur=1.0),
    "no colour": ViewPolicy(9, jitter_probability=0.0, grayscale=0.0),
    "always all": ViewPolicy(16, jitter_probability=1.0, grayscale=1.0, blur=1.0, solarize=1.0),
}


def batch(channels=3, count=61, side=20):
    generator = torch.Generator().manual_seed(4)
    return torch.randint(0, 256, (count, channels, side, side + 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", POLICIES)
def test_equal_to_the_whole_batch_path(name, channels):
    policy, images = POLICIES[name], batch(channels)
    if channels == 1 and not isinstance(policy.mean, float):
        policy = dataclasses.replace(policy, mean=0.4, std=0.2)
    drawn = policy.sample(61, 20, 23, torch.Generator().manual_seed(0))
    difference = (policy.render(images, drawn) - policy._render_whole(images, drawn)).abs()
    assert (difference < 1e-4).float().mean() > 0.9999  # a value next to the threshold of solarize may flip


@pytest.mark.parametrize("images_a_block", [1, 7, 60, 1000])
def test_block_size_does_not_change_the_views(monkeypatch, images_a_block):
    policy = POLICIES["everything"]
    whole = policy(batch(), torch.Generator().manual_seed(0))
    monkeypatch.setattr(blocks, "BLOCK", 3 * 20 * 23 * images_a_block)
    torch.testing.assert_close(policy(batch(), torch.Generator().manual_seed(0)), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_runs_give_every_image_its_own_order(channels):
    drawn = POLICIES["everything"].sample(500, 20, 20, torch.Generator().manual_seed(0))
    ranks, orders = blocks.ranked_orders(drawn, channels, True)
    ranks, index = ranks.sort(stable=True)
    applied = [[] for _ in range(500)]
    calls = 0
    for place in range(len(orders[0])):
        for operation, part in blocks.runs(ranks, orders, place):
            calls += 1
            for image in index[part].tolist():
                applied[image].append(operation)
    kept = range(4) if channels == 3 else (0, 1)
    for image in range(500):
        expected = [operation for operation in ORDERS[drawn.order[image]] if operation in kept]
        assert applied[image] == (expected if drawn.jitter[image] else [])
    assert calls <= (64 if channels == 3 else 4)  # one by one it would be four times the 24 orders


def test_without_jitter_no_image_has_a_run():
    drawn = POLICIES["no colour"].sample(5, 20, 20)
    ranks, orders = blocks.ranked_orders(drawn, 3, False)
    assert list(blocks.runs(ranks, orders, 0)) == []
