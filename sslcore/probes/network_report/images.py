"""What a card is measured on: unseen photos, garments, single objects and scenes with twins, at the network's size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcore.data import ImageSet, compose_scenes, load
from sslcore.validate import require, unknown

SPLITS = ("train", "val", "test")
PHOTO_SEED, GARMENT_SEED, SINGLE_SEEDS = 811, 821, {"val": 831, "test": 832}


@dataclass(frozen=True)
class Sizes:
    """How many images. photos: in all (four sevenths train, one val, two test); garments, scenes: (train, val, test);
    singles: as many again for val, which no network sees.

    garments (0, 0, 0) leaves that set out. Numbers of two cards compare only at equal sizes.
    """

    photos: int
    garments: tuple[int, int, int]
    singles: int
    scenes: tuple[int, int, int]


SIZES = {
    "tiny": Sizes(140, (40, 20, 40), 20, (40, 20, 30)),  # to try things out
    "quick": Sizes(280, (0, 0, 0), 60, (90, 25, 60)),  # a ViT-S at 224 px on two cores
    "standard": Sizes(340, (120, 40, 120), 100, (320, 60, 240)),  # small networks, seconds each
    "full": Sizes(952, (600, 200, 600), 400, (600, 150, 600)),
}


@dataclass(frozen=True)
class ReportSets:
    """photos, garments: {"train", "val", "test"} -> images with labels, garments may be empty; singles: {"val", "test"}
    -> images with one object and its mask; scenes: {"train", "val", "test"} -> four objects, two pairs of twins.
    img_size: side in pixels; sizes: what was asked for."""

    photos: dict[str, ImageSet]
    garments: dict[str, ImageSet]
    singles: dict[str, ImageSet]
    scenes: dict[str, ImageSet]
    img_size: int
    sizes: Sizes


def split_by_class(labels: Tensor) -> dict[str, Tensor]:
    """Indices of the splits: four sevenths of each class to train, one to val, two to test, as near as it goes.

    Within a split indices are sorted by class, so neighbours are mostly two views of one thing.
    """
    order = labels.argsort(stable=True)
    counts = torch.bincount(labels)
    starts = counts.cumsum(0) - counts
    share = (torch.arange(len(labels)) - starts[labels[order]] + 0.5) / counts[labels[order]]
    edges = {"train": share < 4 / 7, "val": (share >= 4 / 7) & (share < 5 / 7), "test": share >= 5 / 7}
    return {split: order[chosen] for split, chosen in edges.items()}


def resized(images: Tensor, img_size: int) -> Tensor:
    """(N, 1 or 3, H, W) uint8 -> (N, 3, img_size, img_size) uint8, bilinear with antialiasing."""
    pixels = images.float().expand(-1, 3, -1, -1)
    pixels = F.interpolate(pixels, size=(img_size, img_size), mode="bilinear", antialias=True, align_corners=False)
    return pixels.round().clamp(0, 255).to(torch.uint8)


def photo_sets(num: int, img_size: int) -> dict[str, ImageSet]:
    """Single cut-outs from the 68 photos that no network of the course was trained on; the class is the photo."""
    scenes = compose_scenes(
        num, img_size=img_size, num_objects=1, split="test", size_range=(0.6, 0.9), captions=False, seed=PHOTO_SEED
    )
    labels = torch.unique(scenes.labels, return_inverse=True)[1]
    chosen = split_by_class(labels)
    return {s: ImageSet("photos", s, scenes.images[index], labels[index]) for s, index in chosen.items()}


def single_sets(num: int, img_size: int) -> dict[str, ImageSet]:
    """One cut-out somewhere on a ground, about half the picture's side: what attention and discovery should find."""
    look = {"img_size": img_size, "num_objects": 1, "split": "test", "size_range": (0.4, 0.7), "captions": False}
    return {split: compose_scenes(num, seed=seed, **look) for split, seed in SINGLE_SEEDS.items()}


def garment_sets(sizes: tuple[int, int, int], img_size: int) -> dict[str, ImageSet]:
    """Fashion-MNIST garments somewhere on a canvas: ten classes, unlike anything in the photo scenes."""
    found = {}
    for split, count in zip(SPLITS, sizes, strict=True):
        whole = load("fashion_canvas", split)
        require(count <= len(whole), f"garments: expected at most {len(whole)} for {split}, got {count}")
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(GARMENT_SEED))[:count]
        found[split] = ImageSet("garments", split, resized(whole.images[order], img_size), whole.labels[order])
    return found


def report_sets(img_size: int, sizes: Sizes | str | None = None) -> ReportSets:
    """The images of a card at img_size x img_size pixels; the same scenes at every size.

    sizes: a Sizes, a key of SIZES, or None: "standard" up to 96 px, else "quick".
    Raises ValueError for an unknown name, too few images, or an img_size the composer refuses.
    """
    if sizes is None:
        sizes = "standard" if img_size <= 96 else "quick"
    if isinstance(sizes, str):
        if sizes not in SIZES:
            unknown("sizes", sizes, SIZES)
        sizes = SIZES[sizes]
    require(sizes.photos >= 140, f"photos: expected at least 140, about two of each, got {sizes.photos}")
    enough = min(*sizes.scenes, sizes.singles) >= 10
    require(enough, f"scenes and singles: expected at least 10 a split, got {sizes.scenes} and {sizes.singles}")
    scenes = {s: load("twins", s, num=n, img_size=img_size) for s, n in zip(SPLITS, sizes.scenes, strict=True)}
    garments = garment_sets(sizes.garments, img_size) if min(sizes.garments) > 0 else {}
    singles = single_sets(sizes.singles, img_size)
    return ReportSets(photo_sets(sizes.photos, img_size), garments, singles, scenes, img_size, sizes)
