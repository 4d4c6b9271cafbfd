"""Readers of the sets that are committed with the package."""

from __future__ import annotations

import functools
import json

import numpy as np
import torch
from torch import Tensor

from sslcore.data.imageset import ImageSet
from sslcore.data.storage import EMBEDDED, DataFileError, read_embedded
from sslcore.validate import require, unknown

STAMPS_COMMAND = "python data_scripts/build_stamps.py FOLDER"
FASHION_COMMAND = "python data_scripts/build_fashion_mnist.py"
FASHION_CLASSES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
FASHION_SPLITS = {"train": 10_000, "val": 1_000, "test": 1_000}


@functools.cache
def stamp_table() -> tuple[dict[str, str], ...]:
    """One record a stamp, in the order of the pixels: name, class, caption, noun, plural, split."""
    return tuple(json.loads((EMBEDDED / "stamps/stamps.json").read_text("utf-8")))


@functools.cache
def stamp_pixels() -> Tensor:
    """(258, 4, 96, 96) uint8: red, green, blue premultiplied by alpha, and alpha. Shared: do not write into it."""
    residuals = read_embedded("stamps/stamps.npz", STAMPS_COMMAND)["residuals"]
    if residuals.shape != (4, len(stamp_table()), 96, 96):
        raise DataFileError(f"stamps.npz: expected (4, {len(stamp_table())}, 96, 96), got {residuals.shape}")
    levels = np.cumsum(residuals, axis=2, dtype=np.uint8)  # undoes the row differences, modulo 256
    levels[0] += levels[1]
    levels[2] += levels[1]
    pixels = np.minimum(levels.astype(np.uint16) * 4, 255).astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(1, 0, 2, 3)))


def stamp_ids(split: str = "all") -> Tensor:
    """(n,) int64 row numbers of the stamps in a split: "train" 190, "test" 68, "all" 258."""
    if split not in ("train", "test", "all"):
        unknown("split of stamps", split, ("train", "test", "all"))
    return torch.tensor([i for i, record in enumerate(stamp_table()) if split in ("all", record["split"])])


def load_stamps(split: str = "train", background: int = 128) -> ImageSet:
    """Photo cut-outs, one object an image, on a flat ground.

    Args:
        split: "train" (190), "test" (68) or "all" (258). Objects of one kind (all apples) are on one side.
        background: grey level 0..255 behind the object.

    Returns:
        images (n, 3, 96, 96); labels = folder class; masks 1 where alpha > 127; captions as in the package; extras:
        alpha (n, 96, 96) uint8, ids (n,) row among all 258, nouns, plurals.
    """
    require(0 <= background <= 255, f"background: expected a grey level in 0..255, got {background}")
    ids = stamp_ids(split)
    pixels = stamp_pixels()[ids]
    records = [stamp_table()[i] for i in ids.tolist()]
    classes = sorted({record["class"] for record in stamp_table()})
    alpha = pixels[:, 3]
    behind = (255 - alpha.int()) * background // 255
    return ImageSet(
        name="stamps",
        split=split,
        images=(pixels[:, :3] + behind[:, None]).clamp(0, 255).to(torch.uint8),
        labels=torch.tensor([classes.index(record["class"]) for record in records]),
        classes=classes,
        masks=(alpha > 127).to(torch.uint8),
        captions=[record["caption"] for record in records],
        extras={
            "alpha": alpha.clone(),
            "ids": ids,
            "nouns": [record["noun"] for record in records],
            "plurals": [record["plural"] for record in records],
        },
    )


def load_fashion_mnist(split: str = "train") -> ImageSet:
    """Fashion-MNIST subset: 28 x 28 grey clothes, 10 balanced classes; train 10 000, val 1 000, test 1 000.

    All three are disjoint parts of the original training set: figures do not compare with the official test set.
    """
    if split not in FASHION_SPLITS:
        unknown("split of fashion_mnist", split, FASHION_SPLITS)
    wanted = [f"{split}_images", f"{split}_labels"]
    arrays = read_embedded("fashion_mnist/fashion_mnist.npz", FASHION_COMMAND, wanted)
    images, labels = (torch.from_numpy(arrays[name]) for name in wanted)
    return ImageSet("fashion_mnist", split, images[:, None], labels.long(), list(FASHION_CLASSES))
