"""Langevin sampling, the replay buffer, and EBM.

Claims: a step is the formula; without noise and with small steps the score rises; parameters get no gradient and
batch norm keeps its statistics; long chains reach the known Gaussian; a buffer changes only where written, restarts
at the given rate, and travels in the state dict; EBM's loss is contrastive divergence on its own samples.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sslcore.backbones import small_convnet
from sslcore.methods import EBM
from sslcore.methods.sampling import ReplayBuffer, langevin
from sslcore.objectives import contrastive_divergence
from tests.methods.small_methods import small_batch, small_method


def bowl(images):
    return -(images - 1).square().flatten(1).sum(1) / 2


def test_steps_are_the_formula():
    images, noise = torch.randn(2, 1, 2, 2), torch.randn(2, 3, 1, 2, 2)
    expected = images
    for t in range(3):
        expected = expected + 0.1 * (1 - expected) + 0.2 * noise[:, t]
    torch.testing.assert_close(langevin(bowl, images, noise, 0.1, 0.2), expected)
    assert torch.equal(langevin(bowl, images, noise[:, :0], 0.1, 0.2), images)
    assert torch.equal(langevin(bowl, images, noise, 0.0, 0.0), images)


def test_without_noise_the_score_rises_and_nothing_else_moves():
    net = small_convnet(3, (4, 8)).eval()
    head = nn.Linear(8, 1)
    images, still = torch.randn(5, 3, 16, 16), torch.zeros(5, 1, 3, 16, 16)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    score = lambda x: head(net(x).cls_token)[:, 0]  # noqa: E731
    last = score(images)
    with torch.no_grad():  # sampling works without a graph around it
        for _ in range(5):
            images = langevin(score, images, still, 1e-3, 0.0)
            assert (score(images) > last).all()
            last = score(images)
    assert all(weight.grad is None for weight in net.parameters()) and not images.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_long_chains_reach_the_gaussian():
    generator = torch.Generator().manual_seed(0)
    step, images = 0.05, torch.zeros(3000, 1, 1, 1)
    noise = torch.randn(3000, 150, 1, 1, 1, generator=generator)
    samples = langevin(bowl, images, noise, step, (2 * step) ** 0.5)
    assert samples.mean().item() == pytest.approx(1.0, abs=0.06)
    assert samples.var().item() == pytest.approx(1 / (1 - step / 2), abs=0.1)  # the Euler step widens it a little
    colder = langevin(bowl, images, noise, step, 0.1 * (2 * step) ** 0.5)
    assert colder.var() < 0.02


def test_the_buffer_changes_only_where_it_is_written():
    buffer = ReplayBuffer(10, (3, 4, 4), bound=2.0)
    before, slots = buffer.images.clone(), torch.tensor([7, 2])
    assert before.abs().max() <= 2 and before.min() < -1.5 and before.max() > 1.5
    uniform = torch.rand(2, 3, 4, 4)
    starts = buffer.starts(slots, torch.tensor([False, True]), uniform)
    assert torch.equal(starts[0], before[7]) and torch.equal(starts[1], 4 * uniform[1] - 2)
    buffer.write(slots, torch.ones(2, 3, 4, 4))
    changed = (buffer.images != before).flatten(1).any(1)
    assert changed.nonzero()[:, 0].tolist() == [2, 7]
    other = ReplayBuffer(10, (3, 4, 4))
    other.load_state_dict(buffer.state_dict())
    assert torch.equal(other.images, buffer.images)


def test_loss_is_contrastive_divergence_on_its_samples():
    method = small_method("ebm", "convnet", l2=0.1, data_sigma=0.0).eval()
    views = method.views(small_batch(), torch.Generator().manual_seed(0))
    fake = method.sample(views)
    expected = contrastive_divergence(method.score(views["images"]), method.score(fake), 0.1)
    torch.testing.assert_close(tuple(method.loss(views)), tuple(expected))
    method.train()
    before, flags = method.replay.images.clone(), [part.training for part in method.modules()]
    statistics = [b.clone() for name, b in method.backbone.named_buffers()]
    samples = method.sample(views)
    assert torch.equal(method.replay.images[views["slots"]], samples)
    assert [part.training for part in method.modules()] == flags
    assert (method.replay.images != before).flatten(1).any(1).sum() == 8
    assert all(torch.equal(a, b) for a, b in zip(statistics, method.backbone.buffers(), strict=True))
    assert all(weight.grad is None for weight in method.parameters())


def test_views_draw_slots_once_and_restarts_at_the_rate():
    method = small_method("ebm", restart=0.25, buffer_size=2000)
    batch = {"images": torch.zeros(1500, 3, 16, 16, dtype=torch.uint8), "labels": None}
    method.steps = 1
    views = method.views(batch, torch.Generator().manual_seed(0))
    assert len(views["slots"].unique()) == 1500
    assert views["fresh"].float().mean().item() == pytest.approx(0.25, abs=0.04)
    assert views["images"].std().item() == pytest.approx(0.03, abs=0.002)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="steps: expected at least 1, got 0"):
        small_method("ebm", steps=0)
    with pytest.raises(ValueError, match="buffer_size: expected at least the batch of 8, got 5"):
        small_method("ebm", buffer_size=5).views(small_batch())
    with pytest.raises(ValueError, match="noise: expected"):
        langevin(bowl, torch.zeros(2, 1, 2, 2), torch.zeros(3, 1, 1, 2, 2), 0.1, 0.1)
    for size, bound in ((0, 1.0), (3, 0.0)):
        with pytest.raises(ValueError, match="expected"):
            ReplayBuffer(size, (1, 2, 2), bound)
    assert isinstance(small_method("ebm", "convnet"), EBM)
