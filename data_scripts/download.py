"""Bring the real sets to this machine: CIFAR-10, CIFAR-100, STL-10, Imagenette.

    python data_scripts/download.py cifar10 [--archive FILE] [--keep]
    python data_scripts/download.py imagenette --size 128

Archives come from the addresses torchvision names. torchvision's own downloads neither go on after a break nor check
SHA-256, so both are done here; then its data sets read the files, and plain arrays of them are left in the data folder
($SSLCORE_DATA, else ./data if there is one, else ~/.cache/sslcore), from where `sslcore.data.load` reads them. Sizes to
download: 170 MB, 169 MB, 2.6 GB, 99 MB; unpacking needs up to twice as much for a while.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fetching import download, members
from PIL import Image, ImageOps
from torchvision import datasets

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


def unpack(archive: Path, folder: Path) -> None:
    """Write the files of an archive below `folder`; `members` has refused whatever would land elsewhere."""
    for path, content in members(archive):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def cifar(name: str, folder: Path) -> Arrays:
    """torchvision compares the MD5 of every batch before it unpickles one."""
    reader = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    made = {}
    for split in ("train", "test"):
        found = reader(folder, train=split == "train")
        made[split] = {"images": found.data.transpose(0, 3, 1, 2), "labels": np.array(found.targets, np.uint8)}
    return made


def stl10(folder: Path) -> Arrays:
    """100 000 of its images have no label."""
    made: Arrays = {}
    for split in ("train", "test", "unlabeled"):
        found = datasets.STL10(folder, split)
        made[split] = {"images": found.data} | ({} if split == "unlabeled" else {"labels": found.labels})
    return made


def imagenette(folder: Path, size: int) -> Arrays:
    """JPEG files, shorter side to `size`, middle square; the published val is our test."""

    def square(picture: Image.Image) -> np.ndarray:
        return np.asarray(ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1)

    made: Arrays = {}
    for split, published in (("train", "train"), ("test", "val")):
        found = datasets.Imagenette(folder, published, "160px", transform=square)
        if tuple(found.wnids) != IMAGENETTE_FOLDERS:
            raise SystemExit(f"{published}: expected the folders {IMAGENETTE_FOLDERS}, got {found.wnids}")
        images, labels = zip(*found, strict=True)
        made[split] = {"images": np.stack(images), "labels": np.array(labels, np.uint8)}
    return made


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
        "cifar10": lambda folder: cifar("cifar10", folder),
        "cifar100": lambda folder: cifar("cifar100", folder),
        "stl10": stl10,
        "imagenette": lambda folder: imagenette(folder, arguments.size),
    }
    data_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data_folder()) as folder:
        unpack(archive, Path(folder))
        try:
            arrays = readers[arguments.name](Path(folder))
        except (RuntimeError, OSError) as error:  # torchvision: a file is missing or its MD5 differs
            raise SystemExit(f"{archive}: not the files torchvision expects ({error})") from error
        save(arguments.name, arrays)
    if arguments.archive is None and not arguments.keep:
        archive.unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
