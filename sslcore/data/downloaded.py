"""Readers of the sets that the data scripts bring to this machine. All images are held in memory as uint8."""

from __future__ import annotations

from pathlib import Path

import torch

from sslcore.data.embedded import FASHION_CLASSES, FASHION_COMMAND
from sslcore.data.imageset import ImageSet
from sslcore.data.storage import DataFileError, data_folder, read_npz
from sslcore.validate import unknown

IMAGENETTE_FOLDERS = (
    *("n01440764", "n02102040", "n02979186", "n03000684", "n03028079"),
    *("n03394916", "n03417042", "n03425413", "n03445777", "n03888257"),
)
CLASSES: dict[str, list[str]] = {
    "cifar10": "airplane automobile bird cat deer dog frog horse ship truck".split(),
    "stl10": "airplane bird car cat deer dog horse monkey ship truck".split(),
    "imagenette": [
        *("tench", "English springer", "cassette player", "chain saw", "church"),
        *("French horn", "garbage truck", "gas pump", "golf ball", "parachute"),
    ],
    "cifar100": (
        "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
        "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
        "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard "
        "lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear "
        "pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark "
        "shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone "
        "television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
    ).split(),
}
VAL_EVERY = 10  # of the training images, each tenth is kept for choosing


def array_file(name: str, split: str) -> Path:
    """Where the download script leaves the arrays of a split as published."""
    return data_folder() / name / f"{split}.npz"


def load_downloaded(name: str, split: str = "train") -> ImageSet:
    """CIFAR-10/100, STL-10 or Imagenette.

    Args:
        name: a key of CLASSES.
        split: "train" (nine tenths of the published training set), "val" (each tenth image of it), "train+val" (all of
            it), "test" (the published test or validation set); stl10 also "unlabeled".

    Raises:
        FileNotFoundError: not downloaded; names the command. DataFileError: damaged.
    """
    known = ["train", "val", "train+val", "test"] + (["unlabeled"] if name == "stl10" else [])
    if split not in known:
        unknown(f"split of {name}", split, known)
    command = f"python data_scripts/download.py {name}"
    path = array_file(name, split if split in ("test", "unlabeled") else "train")
    arrays = read_npz(path, made_by=command, names=["images"] if split == "unlabeled" else ["images", "labels"])
    images, labels = arrays["images"], arrays.get("labels")
    if images.ndim != 4 or (labels is not None and len(labels) != len(images)):
        raise DataFileError(f"{path}: expected (N, 3, H, W) images with N labels, got {images.shape}. Run: {command}")
    held_out = torch.arange(len(images)) % VAL_EVERY == VAL_EVERY - 1
    chosen = {"train": ~held_out, "val": held_out}.get(split, torch.ones_like(held_out))
    return ImageSet(
        name=name,
        split=split,
        images=torch.from_numpy(images)[chosen],
        labels=None if labels is None else torch.from_numpy(labels).long()[chosen],
        classes=list(CLASSES[name]),
    )


def load_fashion_mnist_full(split: str = "train") -> ImageSet:
    """All 60 000 training images of Fashion-MNIST: train 58 000, and the same val and test as "fashion_mnist"."""
    if split not in ("train", "val", "test"):
        unknown("split of fashion_mnist_full", split, ("train", "val", "test"))
    wanted = [f"{split}_images", f"{split}_labels"]
    arrays = read_npz(data_folder() / "fashion_mnist_full.npz", made_by=f"{FASHION_COMMAND} --full", names=wanted)
    images, labels = (torch.from_numpy(arrays[name]) for name in wanted)
    return ImageSet("fashion_mnist_full", split, images[:, None], labels.long(), list(FASHION_CLASSES))
