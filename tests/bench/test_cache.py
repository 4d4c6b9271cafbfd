"""Readings on disk: what the name depends on, damage of every kind, nothing half written."""

from __future__ import annotations

import functools

import pytest
import torch

from sslcore.backbones import create_backbone
from sslcore.bench import cached_readings, readings_key
from sslcore.bench.cache import CacheError, load_readings, save_readings, tensors_digest
from sslcore.probes.network_report import Readings, Sizes, report_sets
from tests.bench.small_boards import SHAPE, SMALL


@functools.cache
def sets(sizes=SMALL):
    return report_sets(64, sizes)


def network(seed=0):
    torch.manual_seed(seed)
    return create_backbone("vit", **SHAPE).eval()


def equal(first: Readings, second: Readings) -> bool:
    same = first.tensors.keys() == second.tensors.keys()
    return same and all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)


def test_the_second_time_comes_from_the_file(tmp_path):
    first, found = cached_readings(network(), sets(), tmp_path)
    again, found_again = cached_readings(network(), sets(), tmp_path)
    assert not found and found_again and equal(first, again)
    assert first.facts == again.facts and first.skipped == again.skipped
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


def test_the_key_follows_weights_architecture_and_images():
    other = network()
    with torch.no_grad():
        other.cls_token[0, 0, 0] += 1e-6
    larger = Sizes(141, *list(vars(SMALL).values())[1:])
    keys = [
        readings_key(network(), sets()),
        readings_key(other, sets()),
        readings_key(network(), sets(), "two heads"),
        readings_key(network(), sets(larger)),
    ]
    assert len(set(keys)) == 4 and keys[0] == readings_key(network(), sets())


def test_the_digest_sees_names_types_and_shapes():
    x = torch.arange(6.0)
    tables = [{"a": x}, {"b": x}, {"a": x.view(2, 3)}, {"a": x.half()}, {"a": x.flip(0)}, {}]
    assert len({tensors_digest(table) for table in tables}) == len(tables)


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "other", "empty"])
def test_a_damaged_file_is_named_and_made_again(tmp_path, damage):
    first, _ = cached_readings(network(), sets(), tmp_path)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[-5] ^= 1
        path.write_bytes(content)
    elif damage == "text":
        path.write_text("not tensors")
    elif damage == "other":
        from safetensors.torch import save_file

        save_file({"x": torch.ones(2)}, path)
    else:
        path.write_bytes(b"")
    with pytest.raises(CacheError, match=path.name):
        load_readings(path)
    said = []
    again, found = cached_readings(network(), sets(), tmp_path, say=said.append)
    assert not found and equal(first, again) and len(said) == 1 and path.name in said[0]
    assert cached_readings(network(), sets(), tmp_path)[1]


def test_a_broken_write_leaves_nothing(tmp_path, monkeypatch):
    import safetensors.torch

    def fail(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(OSError, match="full"):
        save_readings(tmp_path / "x.safetensors", Readings({"a": torch.ones(1)}))
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not cached_readings(network(), sets())[1] and list(tmp_path.iterdir()) == []
