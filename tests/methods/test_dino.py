"""DINO: the loss against the double loop, the centre, the temperature's rise, the frozen prototypes, the meters."""

from __future__ import annotations

import math

import pytest
import torch

from tests.methods.small_methods import small_batch, small_method


def views_of(method, seed: int = 0):
    return method.views(small_batch(), torch.Generator().manual_seed(seed))


def with_center(**settings):
    method = small_method("dino", **settings)
    method.center.copy_(torch.linspace(-0.2, 0.2, 16))
    for weight in method.head.mlp.parameters():
        weight.data.add_(0.05 * torch.randn_like(weight))
    return method


def by_hand(method, views, teacher_temp: float) -> torch.Tensor:
    """Every pair of a teacher crop with another student crop, each crop encoded on its own."""
    losses = []
    for t, big in enumerate(views[:2]):
        logits = method.teacher_head(method.features(big, method.teacher_backbone))
        target = ((logits - method.center) / teacher_temp).softmax(1).detach()
        for s, crop in enumerate(views):
            if s != t:
                student = method.head(method.features(crop)) / method.student_temp
                losses.append(-(target * student.log_softmax(1)).sum(1).mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("local_crops", [0, 2])
def test_loss_is_the_mean_over_pairs_of_crops(local_crops: int):
    method = with_center(local_crops=local_crops, warmup_temp=None)
    views = views_of(method)
    assert [view.shape[-1] for view in views] == [16, 16] + [8] * local_crops
    expected = by_hand(method, views, 0.04)
    torch.testing.assert_close(method.loss(views), expected)


@pytest.mark.parametrize("progress, temperature", [(0.0, 0.02), (0.25, 0.03), (0.5, 0.04), (1.0, 0.04)])
def test_teacher_temperature_rises_over_the_warmup(progress: float, temperature: float):
    method = with_center(warmup_temp=0.02, teacher_temp=0.04, warmup=0.5, momentum=1.0)
    method.after_step(progress)
    views = views_of(method)
    expected = by_hand(method, views, temperature)
    torch.testing.assert_close(method.loss(views), expected)


def test_center_moves_after_the_loss_and_only_where_asked():
    method, views = with_center(), None
    views = views_of(method)
    old, answers = method.center.clone(), method.teach(views[:2])
    method.loss(views)
    torch.testing.assert_close(method.center, 0.9 * old + 0.1 * answers.mean(dim=(0, 1)))
    off = small_method("dino", centering=False)
    off.loss(views_of(off))
    assert torch.equal(off.center, torch.zeros(16))


def test_last_layer_is_frozen_for_the_first_part():
    method = small_method("dino", freeze_last_layer=0.5)
    for progress, moves in ((0.4, False), (0.6, True)):
        method.after_step(progress)
        method.zero_grad()
        method.loss(views_of(method)).backward()
        assert bool(method.head.prototypes.weight.grad.any()) == moves
        assert method.head.mlp[0].weight.grad.any()


def test_meters_know_both_collapses():
    method = small_method("dino", warmup_temp=None)
    views = views_of(method)
    assert set(method.collapse(views)) == {"entropy", "divergence"}
    method.teach = lambda crops: torch.zeros(2, 8, 16)
    uniform = method.collapse(views)
    assert uniform["entropy"] == pytest.approx(math.log(16)) and uniform["divergence"] == pytest.approx(0.0, abs=1e-5)
    method.teach = lambda crops: 10.0 * torch.eye(16)[torch.zeros(2, 8, dtype=torch.long)]
    single = method.collapse(views)
    assert single["entropy"] == pytest.approx(0.0, abs=1e-5) and single["divergence"] == pytest.approx(0.0, abs=1e-5)
    method.teach = lambda crops: 10.0 * torch.eye(16)[torch.arange(16)].reshape(2, 8, 16)
    spread = method.collapse(views)
    assert spread["entropy"] == pytest.approx(0.0, abs=1e-5) and spread["divergence"] == pytest.approx(math.log(16))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="local_crops: expected at least 0, got -1"):
        small_method("dino", local_crops=-1)
    with pytest.raises(ValueError, match=r"warmup: expected a part of the run in \(0, 1\], got 0"):
        small_method("dino", warmup=0)
