"""Which networks a board gets from names, and their untrained controls."""

from __future__ import annotations

import pytest
import torch

from sslcore.backbones import create_backbone
from sslcore.bench import find_networks, named_report
from sslcore.hub import save_checkpoint
from sslcore.probes.network_report import report_sets
from tests.bench.small_boards import SHAPE, SMALL, tiny_checkpoints


def test_all_means_all_and_one_control_a_shape(tmp_path):
    folder = tiny_checkpoints(tmp_path)
    found = find_networks(folder=folder)
    assert [network.name for network in found] == ["first_vit", "second_vit", "untrained"]
    assert [network.control for network in found] == ["untrained", "untrained", None]
    other = {**SHAPE, "depth": 2}
    save_checkpoint("wide", create_backbone("vit", **other), {"architecture": {"name": "vit", "kwargs": other}}, folder)
    more = find_networks(["all", "first_vit"], folder=folder)  # a name given twice is one row
    names = ["first_vit", "second_vit", "wide", "untrained vit 1", "untrained vit 2"]
    assert [network.name for network in more] == names
    assert len(more[-1].build().blocks) == 2 and len(find_networks(folder=folder, controls=False)) == 3


def test_the_control_has_fresh_weights_of_the_same_shape_each_time(tmp_path):
    found = find_networks(["second_vit"], folder=tiny_checkpoints(tmp_path))
    trained, fresh = (network.build() for network in found)
    assert not torch.equal(trained.blocks[0].mlp.fc1.weight, fresh.blocks[0].mlp.fc1.weight)
    assert torch.equal(fresh.blocks[0].mlp.fc1.weight, found[1].build().blocks[0].mlp.fc1.weight)


def test_timm_names_stand_beside_checkpoints(tmp_path):
    pytest.importorskip("timm")
    found = find_networks(["first_vit"], ["resnet10t"], folder=tiny_checkpoints(tmp_path), pretrained=False)
    names = ["first_vit", "timm/resnet10t", "untrained vit", "untrained timm/resnet10t"]
    assert [network.name for network in found] == names
    assert type(found[1].build()).__name__ == "TimmBackbone"


def test_wrong_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown checkpoint"):
        find_networks(["nobody"], folder=tiny_checkpoints(tmp_path))
    with pytest.raises(ValueError, match="none"):
        find_networks(folder=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="unknown timm model"):
        find_networks([], ["no_such_net"])[0].build()


def test_weights_that_cannot_be_fetched_are_said_so(monkeypatch):
    timm = pytest.importorskip("timm")

    def offline(*arguments, **options):
        raise OSError("no connection")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match="random-timm"):
        find_networks([], ["resnet10t"])[0].build()


def test_a_card_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCORE_CHAPTERS", str(tmp_path))
    tiny_checkpoints(tmp_path / "checkpoints")
    card = named_report("first_vit", sets=report_sets(64, SMALL), untrained=False, quiet=True)
    assert card.name == "first_vit" and "knn_photos" in card.scores
