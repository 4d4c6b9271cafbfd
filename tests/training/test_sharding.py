"""What of sharding one process can show; the rest stands in test_ranks.py."""

from __future__ import annotations

import sys

import pytest
import torch

from sslcore.methods import create_method
from sslcore.training.ranks import Ranks
from sslcore.training.sharding import _units, gathered, like, sharded_copy, split_states
from tests.methods.small_methods import SMALL
from tests.training.rank_worker import build
from tests.training.small_runs import line


def test_whole_tensors_pass_through():
    method = line()
    optimizer = torch.optim.SGD(method.parameters(), 0.1, momentum=0.9)
    method(torch.rand(2, 3, 4, 4)).total.backward()
    optimizer.step()
    state = gathered(method.state_dict())
    assert all(state[name].data_ptr() == value.data_ptr() for name, value in method.state_dict().items())
    assert like(state["backbone.weight"], method.backbone.weight) is state["backbone.weight"]
    saved = {"method": state, "optimizer": gathered(optimizer.state_dict())}
    split = split_states(saved, method, optimizer)
    assert split["optimizer"]["state"][0]["momentum_buffer"] is saved["optimizer"]["state"][0]["momentum_buffer"]
    optimizer.load_state_dict(split["optimizer"])


def test_blocks_of_student_and_teacher_and_stages_are_gathered_one_at_a_time():
    dino = build("dino", "vit")
    assert {*_units(dino)} == {*dino.backbone.blocks, *dino.teacher_backbone.blocks}
    convnet = build("vicreg", "convnet")
    assert {*_units(convnet)} == {*convnet.backbone.stages}
    mae = create_method("mae", build("mae", "vit").backbone, **SMALL["mae"])
    assert {*mae.backbone.blocks, *mae.decoder.blocks} == {*_units(mae)}


def test_torch_without_fsdp2_is_told(monkeypatch: pytest.MonkeyPatch):
    ranks = Ranks()
    ranks.group = object()
    monkeypatch.setitem(sys.modules, "torch.distributed.fsdp", None)
    with pytest.raises(ValueError, match=r"fsdp: expected torch 2\.6 or newer, got "):
        sharded_copy(line(), ranks, torch.device("cpu"))
