"""Bring the real sets to this machine: CIFAR-10, CIFAR-100, STL-10, Imagenette.

    python data_scripts/download.py cifar10 [--archive FILE] [--keep]
    python data_scripts/download.py imagenette --size 128

Archives come from the addresses torchvision uses, are checked by SHA-256, read in memory and turned into plain arrays
in the data folder ($SSLCORE_DATA, else ./data if there is one, else ~/.cache/sslcore), from where `sslcore.data.load`
reads them. Sizes to download: 170 MB, 169 MB, 2.6 GB, 99 MB.
"""

from __future__ import annotations

import argparse
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fetching import download, members
from restricted_pickle import load_arrays

from sslcore.data.downloaded import IMAGENETTE_FOLDERS, array_file
from sslcore.data.storage import data_folder
from sslcore.files import sha256, written_aside


@dataclass(frozen=True)
class Source:
    """Where a set comes from."""

    url: str
    sha256: str


SOURCES = {
    "cifar10": Source(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    ),
    "cifar100": Source(
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    ),
    "stl10": Source(
        "https://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
        "f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866",
    ),
    "imagenette": Source(
        "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",
        "64d0c4859f35a461889e0147755a999a48b49bf38a7e0f9bd27003f10db02fe5",
    ),
}
Arrays = dict[str, dict[str, np.ndarray]]


def cifar(archive: Path, key: str) -> Arrays:
    """CIFAR's pickled batches: data (n, 3072) in planes, labels under `key`."""
    parts: dict[str, list[tuple[str, dict]]] = {"train": [], "test": []}
    for path, content in members(archive):
        name = path.rpartition("/")[2]
        if name.startswith(("data_batch", "train", "test")):
            parts["test" if name.startswith("test") else "train"].append((name, load_arrays(content, "latin1")))
    made = {}
    for split, batches in parts.items():
        ordered = [batch for _, batch in sorted(batches, key=lambda pair: pair[0])]
        images = np.concatenate([np.asarray(batch["data"], np.uint8) for batch in ordered]).reshape(-1, 3, 32, 32)
        made[split] = {"images": images, "labels": np.concatenate([np.asarray(b[key], np.uint8) for b in ordered])}
    return made


def stl10(archive: Path) -> Arrays:
    """STL-10's raw files: images column by column, labels from 1."""
    made: Arrays = {"train": {}, "test": {}, "unlabeled": {}}
    for path, content in members(archive):
        split, _, kind = path.rpartition("/")[2].removesuffix(".bin").partition("_")
        if kind == "X" and split in made:
            made[split]["images"] = np.frombuffer(content, np.uint8).reshape(-1, 3, 96, 96).swapaxes(2, 3)
        elif kind == "y" and split in made:
            made[split]["labels"] = np.frombuffer(content, np.uint8) - 1
    return made


def imagenette(archive: Path, size: int) -> Arrays:
    """Imagenette's JPEG files: shorter side to `size`, middle square."""
    from PIL import Image, ImageOps

    made: dict[str, tuple[list, list]] = {"train": ([], []), "test": ([], [])}
    for path, content in members(archive):
        parts = path.split("/")
        if len(parts) != 4 or parts[2] not in IMAGENETTE_FOLDERS or not path.endswith(".JPEG"):
            continue
        picture = ImageOps.fit(Image.open(io.BytesIO(content)).convert("RGB"), (size, size), Image.Resampling.BICUBIC)
        images, labels = made["test" if parts[1] == "val" else "train"]
        images.append(np.asarray(picture).transpose(2, 0, 1))
        labels.append(IMAGENETTE_FOLDERS.index(parts[2]))
    return {
        split: {"images": np.stack(images), "labels": np.array(labels, np.uint8)}
        for split, (images, labels) in made.items()
    }


def save(name: str, arrays: Arrays) -> None:
    """One uncompressed .npz a split, written aside and renamed. zip keeps a CRC of each array."""
    for split, values in arrays.items():
        path = array_file(name, split)
        with written_aside(path) as aside, open(aside, "wb") as file:
            np.savez(file, **values)
        print(f"wrote {path}: {values['images'].shape}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(SOURCES))
    parser.add_argument("--archive", type=Path, help="the archive, already downloaded")
    parser.add_argument("--keep", action="store_true", help="keep the archive afterwards")
    parser.add_argument("--size", type=int, default=128, help="side of Imagenette images (default 128)")
    arguments = parser.parse_args()
    source = SOURCES[arguments.name]
    if arguments.archive is None:
        archive = download(source.url, data_folder() / "archives" / source.url.rpartition("/")[2], source.sha256)
    else:
        archive = arguments.archive
        if not archive.is_file():
            raise SystemExit(f"{archive} is missing")
        if (found := sha256(archive)) != source.sha256:
            raise SystemExit(f"{archive}: expected SHA-256 {source.sha256}, got {found}")
    readers = {
        "cifar10": lambda: cifar(archive, "labels"),
        "cifar100": lambda: cifar(archive, "fine_labels"),
        "stl10": lambda: stl10(archive),
        "imagenette": lambda: imagenette(archive, arguments.size),
    }
    save(arguments.name, readers[arguments.name]())
    if arguments.archive is None and not arguments.keep:
        archive.unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
