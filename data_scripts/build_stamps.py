"""Rebuild the embedded photo cut-outs from Debian's tuxpaint-stamps-default package, byte for byte.

    apt-get download tuxpaint-stamps-default        # 2022.06.04-1, 161 MB, mostly sounds
    dpkg-deb -x tuxpaint-stamps-default_*.deb FOLDER
    python data_scripts/build_stamps.py FOLDER [--check]

Each cut-out is cropped to its alpha mask, its rim recoloured from inside (photographs cut from a white page keep a
white fringe), scaled to 96 px on the longer side, premultiplied, and rounded to 65 levels: two grey levels of error
that nobody sees, a third off the file. Needs Pillow and SciPy.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
from stamp_nouns import noun_forms
from writing import finish

from sslcore.data.storage import EMBEDDED, npz_bytes

SIDE, STEP, TRAIN = 96, 4, 190
TOP_FOLDERS = {"animals", "food", "plants", "vehicles", "household", "hobbies", "sports", "military", "medical"}


def is_photo(relative: Path, rgba: np.ndarray) -> bool:
    """Photographs have hundreds of colours, drawings few. Left out: mirrored copies, cartoons, close-ups of spiders."""
    parts = relative.parts
    if parts[0] not in TOP_FOLDERS or "cartoon" in str(relative) or "_mirror" in relative.name:
        return False
    opaque = rgba[..., 3] > 127
    coarse = (rgba[opaque][:, :3] >> 3).astype(np.int32) @ [1024, 32, 1]
    return parts[:2] != ("animals", "spiders") and opaque.sum() >= 500 and len(np.unique(coarse)) >= 250


def cut_out(rgba: np.ndarray) -> np.ndarray:
    """(h, w, 4) straight RGBA of any size -> (96, 96, 4) premultiplied RGBA, centred, in levels 0..64."""
    from PIL import Image
    from scipy import ndimage

    rows, columns = np.nonzero(rgba[..., 3] > 16)
    rgba = rgba[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    alpha = rgba[..., 3].astype(np.float32) / 255
    radius = max(1, round(max(alpha.shape) / SIDE))
    core = ndimage.binary_erosion(alpha > 0.98, iterations=radius, border_value=1)
    # Legs and stalks vanish under erosion: where no core is near, opaque pixels keep their own colour.
    core |= (alpha > 0.5) & ~ndimage.binary_dilation(core, iterations=2 * radius + 1)
    nearest = ndimage.distance_transform_edt(~core, return_distances=False, return_indices=True)
    colour = rgba[..., :3][tuple(nearest)].astype(np.float32)
    planes = np.concatenate([colour * alpha[..., None], 255 * alpha[..., None]], axis=-1)
    scale = SIDE / max(alpha.shape)
    height, width = (max(1, round(length * scale)) for length in alpha.shape)
    method = Image.BOX if scale < 0.5 else Image.HAMMING if scale <= 1 else Image.BICUBIC
    small = [Image.fromarray(planes[..., c].copy()).resize((width, height), method) for c in range(4)]
    levels = (np.clip(np.rint(np.stack(small, -1)), 0, 255).astype(np.int64) + STEP // 2) // STEP
    levels[..., :3] = np.minimum(levels[..., :3], levels[..., 3:])
    tile = np.zeros((SIDE, SIDE, 4), np.uint8)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    tile[top : top + height, left : left + width] = levels
    return tile


def to_residuals(tiles: np.ndarray) -> np.ndarray:
    """(N, 96, 96, 4) levels -> (4, N, 96, 96) differences mod 256: red and blue from green, each row from the last."""
    planes = np.moveaxis(tiles, -1, 0).astype(np.int16)
    planes[0] -= planes[1]
    planes[2] -= planes[1]
    return (np.diff(planes, axis=2, prepend=0) % 256).astype(np.uint8)


def split_of(nouns: list[str]) -> list[str]:
    """190 train / 68 test. Stamps whose noun ends in the same word (all apples, both lions) stay on one side."""
    groups: dict[str, list[int]] = {}
    for index, noun in enumerate(nouns):
        groups.setdefault(noun.split(" of ")[-1].split()[-1], []).append(index)
    split = ["test"] * len(nouns)
    free = TRAIN
    for key in sorted(groups, key=lambda word: hashlib.sha256(word.encode()).hexdigest()):
        if len(groups[key]) <= free:
            free -= len(groups[key])
            for index in groups[key]:
                split[index] = "train"
    return split


def build(root: Path) -> tuple[bytes, bytes]:
    """(stamps.npz, stamps.json) from the unpacked package."""
    from PIL import Image

    tiles, records = [], []
    for path in sorted(root.rglob("*.png")):
        relative = path.relative_to(root)
        rgba = np.asarray(Image.open(path).convert("RGBA"))
        if not is_photo(relative, rgba):
            continue
        caption = path.with_suffix(".txt").read_text("utf-8", "replace").splitlines()[0].strip()
        name = relative.with_suffix("").as_posix()
        singular, plural = noun_forms(name, caption)
        tiles.append(cut_out(rgba))
        records.append(
            {"name": name, "class": name.rpartition("/")[0], "caption": caption, "noun": singular, "plural": plural}
        )
    if len(records) != 258:
        raise SystemExit(f"expected 258 photographs under {root}, found {len(records)}: is this version 2022.06.04-1?")
    for record, split in zip(records, split_of([record["noun"] for record in records]), strict=True):
        record["split"] = split
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    return npz_bytes({"residuals": to_residuals(np.stack(tiles))}), f"[\n{lines}\n]\n".encode()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where dpkg-deb -x unpacked the package")
    parser.add_argument("--check", action="store_true", help="write nothing; compare with the committed files")
    arguments = parser.parse_args()
    root = arguments.folder / "usr/share/tuxpaint/stamps"
    if not root.is_dir():
        raise SystemExit(f"{root} is missing: unpack the .deb with `dpkg-deb -x FILE.deb {arguments.folder}` first")
    arrays, table = build(root)
    return finish({EMBEDDED / "stamps/stamps.npz": arrays, EMBEDDED / "stamps/stamps.json": table}, arguments.check)


if __name__ == "__main__":
    raise SystemExit(main())
