"""Clocks and scales: a longer job takes longer, saved bytes are the bytes saved, two processes report one number."""

from __future__ import annotations

import functools
import time

import pytest
import torch
from torch import nn

from sslcore.methods import SimCLR
from sslcore.training.timing import ranks_seconds, saved_bytes, seconds_of, simclr_on_ranks, step_seconds


def test_median_leaves_out_the_first_call_and_single_stalls():
    naps = iter([0.1, 0.0, 0.1, 0.0, 0.0, 0.0])
    assert seconds_of(lambda: time.sleep(next(naps))).wall < 0.05
    slept = seconds_of(lambda: time.sleep(0.02), 1)
    assert slept.wall >= 0.02 and slept.processor < 0.02
    with pytest.raises(ValueError, match="repeats: expected at least 1, got 0"):
        seconds_of(lambda: None, 0)


def test_step_is_a_step_of_training():
    method, views = simclr_on_ranks(2, images=8, img_size=8, embed_dim=12)
    assert isinstance(method, SimCLR) and views[0].shape == (4, 3, 8, 8)
    before = method.backbone.norm.weight.detach().clone()
    assert step_seconds(method, views, repeats=1).wall > 0
    assert not torch.equal(method.backbone.norm.weight, before)


def test_saved_bytes_are_counted_once_and_without_weights():
    x, layer = torch.randn(10, 4), nn.Linear(4, 4)
    assert saved_bytes(lambda: layer(x), layer) == 10 * 4 * 4
    assert saved_bytes(lambda: layer(x) + layer(x), layer) == 10 * 4 * 4
    assert saved_bytes(lambda: layer(x).relu(), layer) == 2 * 10 * 4 * 4


def test_two_processes_time_a_step():
    timing = ranks_seconds(2, functools.partial(simclr_on_ranks, images=8, img_size=8, embed_dim=12), repeats=2)
    assert 0 < timing.processor < 60 and 0 < timing.wall < 60 and 0 < timing.link < 1e12
    with pytest.raises(ValueError, match="ranks: expected at least 1, got 0"):
        ranks_seconds(0, simclr_on_ranks)
