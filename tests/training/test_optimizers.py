"""LARS against a NumPy transcription, the learning rate at every step, and what is decayed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from sslcore.training import LARS, make_optimizer, warmup_cosine
from sslcore.training.optimizers import param_groups, set_lr


def lars_in_numpy(weight, gradients, lr, momentum, decay, trust, adapt):
    """The update of one array through several steps, tensor by tensor and line by line."""
    speed = np.zeros_like(weight)
    for gradient in gradients:
        change = gradient + decay * weight
        if adapt:
            size, length = np.sqrt((weight**2).sum()), np.sqrt((change**2).sum())
            if size > 0 and length > 0:
                change = change * trust * size / length
        speed = momentum * speed + change
        weight = weight - lr * speed
    return weight


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("adapt", [True, False])
def test_lars_follows_the_transcription(decay: float, momentum: float, adapt: bool):
    rng = np.random.default_rng(0)
    shapes = [(4, 3), (2, 3, 5), (7,)]
    starts = [rng.normal(size=shape) for shape in shapes] + [np.zeros((3, 2))]  # a zero weight has no size to scale to
    steps = [[rng.normal(size=start.shape) for _ in range(4)] for start in starts]
    weights = [nn.Parameter(torch.tensor(start)) for start in starts]
    group = {"params": weights, "adapt": adapt, "weight_decay": decay}
    optimizer = LARS([group], lr=0.5, momentum=momentum, trust=0.02)
    for number in range(4):
        for weight, gradients in zip(weights, steps, strict=True):
            weight.grad = torch.tensor(gradients[number])
        optimizer.step()
    for weight, start, gradients in zip(weights, starts, steps, strict=True):
        expected = lars_in_numpy(start, gradients, 0.5, momentum, decay, 0.02, adapt)
        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-12)


def test_lars_leaves_parameters_without_gradient_alone():
    weights = [nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    weights[0].grad = torch.ones(2, 2)
    LARS(weights, lr=1.0).step()
    assert not torch.equal(weights[0], torch.ones(2, 2)) and torch.equal(weights[1], torch.ones(2, 2))


def test_lars_step_does_not_depend_on_the_gradient_s_size():
    ends = []
    for factor in (1.0, 1000.0):
        weight = nn.Parameter(torch.full((3, 3), 2.0))
        weight.grad = factor * torch.arange(9.0).reshape(3, 3)
        LARS([weight], lr=1.0).step()
        ends.append(weight.detach())
    torch.testing.assert_close(ends[0], ends[1])


def test_vectors_are_neither_decayed_nor_adapted():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    net[3].weight.requires_grad_(False)
    groups = {group["name"]: group for group in param_groups(net, 0.3)}
    assert {w.ndim for w in groups["weights"]["params"]} == {4} and groups["weights"]["weight_decay"] == 0.3
    assert len(groups["vectors"]["params"]) == 4 and groups["vectors"]["weight_decay"] == 0.0
    adapts = {group["name"]: group["adapt"] for group in make_optimizer("lars", net, 1.0, 0.3).param_groups}
    assert adapts == {"weights": True, "vectors": False}


def test_decay_reaches_weights_and_not_biases():
    for name in ("adamw", "sgd", "lars"):
        net = nn.Linear(3, 3)
        nn.init.ones_(net.bias)
        before = net.weight.detach().clone()
        for weight in net.parameters():
            weight.grad = torch.zeros_like(weight)
        make_optimizer(name, net, 0.1, 0.5).step()
        assert torch.equal(net.bias, torch.ones(3)) and not torch.equal(net.weight, before), name


def test_schedule_values():
    rates = [warmup_cosine(step, 10, 2.0, warmup=0.4, min_lr=0.5) for step in range(10)]
    rising = [0.5, 1.0, 1.5, 2.0]
    falling = [0.5 + 0.75 * (1 + math.cos(math.pi * done / 6)) for done in range(6)]
    assert rates == pytest.approx(rising + falling)
    assert warmup_cosine(0, 100, 1.0, warmup=0.0) == 1.0
    assert 0 < warmup_cosine(99, 100, 1.0) < 1e-3
    assert warmup_cosine(0, 1, 1.0) == 1.0


def test_groups_may_scale_the_rate():
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))], "lr_scale": 0.1}], lr=1.0)
    set_lr(optimizer, 2.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2)


def test_bad_input_is_refused():
    net = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="unknown optimizer 'adam'; known: adamw, lars, sgd"):
        make_optimizer("adam", net, 0.1, 0.0)
    with pytest.raises(ValueError, match="lr: expected a finite number above 0, got 0"):
        make_optimizer("sgd", net, 0, 0.0)
    with pytest.raises(ValueError, match="weight_decay: expected at least 0, got -1"):
        make_optimizer("sgd", net, 0.1, -1)
    with pytest.raises(ValueError, match="lr: expected at least 0, got -1"):
        LARS(net.parameters(), lr=-1)
    with pytest.raises(ValueError, match="expected at least one parameter to train, got none"):
        make_optimizer("sgd", net.requires_grad_(False), 0.1, 0.0)
