"""Where each image of a large set lies: folders as torchvision reads them, tar shards as webdataset lays them out.

The webdataset package itself is not used. It deals whole shards to ranks and workers and cannot start at a given step,
while training here promises the same batches on any number of ranks, from any step. Plain tar files allow that: a shard
is read through once, headers only, and every image is then found by its place. Nothing is ever unpacked to disk.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from sslcore.data.storage import DataFileError
from sslcore.validate import require

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "ppm")
LARGEST_FILE = 1 << 28  # bytes of one encoded image; more is no photo
END_OF_ARCHIVE = bytes(512)


@dataclass
class ImageIndex:
    """One row an image. Arrays rather than lists, so that worker processes share them.

    files: (F,) bytes, the paths of shards or images. file: (N,) row of `files`. start, size: (N,) place of the image's
    bytes in its file. labels: (N,) int64 or None. classes: names or None. sharded: whether files hold many images.
    """

    files: np.ndarray
    file: np.ndarray
    start: np.ndarray
    size: np.ndarray
    labels: np.ndarray | None
    classes: list[str] | None
    sharded: bool

    def __len__(self) -> int:
        return len(self.file)

    def name(self, row: int) -> str:
        """What an error calls this image."""
        path = os.fsdecode(self.files[self.file[row]])
        return f"{path} at byte {self.start[row]}" if self.sharded else path

    def read(self, row: int) -> bytes:
        """The encoded image. Raises DataFileError when the file has gone or is shorter than when it was indexed."""
        try:
            with open(os.fsdecode(self.files[self.file[row]]), "rb") as file:
                size = int(self.size[row]) if self.sharded else os.fstat(file.fileno()).st_size
                if size > LARGEST_FILE:
                    raise DataFileError(f"{self.name(row)}: expected at most {LARGEST_FILE:,} bytes, got {size:,}")
                file.seek(int(self.start[row]))
                content = file.read(size)
        except OSError as error:
            raise DataFileError(f"{self.name(row)}: cannot be read ({error})") from error
        if len(content) < size:
            raise DataFileError(f"{self.name(row)}: expected {size} bytes, got {len(content)}; the shard has changed")
        return content


def index_folder(root: Path) -> ImageIndex:
    """Images below `root`: one class a subfolder (as torchvision's ImageFolder), or images without labels."""
    from torchvision.datasets.folder import find_classes, make_dataset

    endings = tuple(f".{ending}" for ending in IMAGE_ENDINGS)
    if any(entry.is_dir() for entry in root.iterdir()):
        classes, numbers = find_classes(root)
        samples = make_dataset(root, numbers, endings, allow_empty=True)
        paths, labels = [path for path, _ in samples], np.array([label for _, label in samples], np.int64)
    else:
        paths = sorted(str(path) for path in root.iterdir() if path.name.lower().endswith(endings))
        classes, labels = None, None
    require(len(paths) > 0, f"{root}: expected images ({', '.join(IMAGE_ENDINGS)}) or folders of images, found none")
    files, zeros = np.array([os.fsencode(path) for path in paths]), np.zeros(len(paths), np.int64)
    return ImageIndex(files, np.arange(len(paths)), zeros, zeros, labels, classes, False)


def index_shards(paths: Sequence[Path], skip: Callable[[str], None] | None = None) -> ImageIndex:
    """Images in tar shards, in order. A sample is a run of members with one key (the name up to its first dot).

    The image is the member with an image ending; a label is the whole number in `.cls`, or "label" in `.json`.
    skip: told of a shard that is cut short, of which the samples before the last are used; None raises for it.
    Raises DataFileError for a damaged or compressed shard, members that leave the archive, links, a sample without an
    image or with two, and labels that only some samples have.
    """
    table: list[tuple[int, int, int]] = []
    labels: list[int | None] = []
    for number, path in enumerate(paths):
        for start, size, label in _samples(path, skip):
            table.append((number, start, size))
            labels.append(label)
    require(len(table) > 0, f"expected samples in {len(paths)} shards, found none")
    known = sum(label is not None for label in labels)
    if known not in (0, len(labels)):
        raise DataFileError(f"{paths[0].parent}: expected labels for all samples or none, got {known} of {len(labels)}")
    file, start, size = np.array(table, np.int64).T
    names = np.array([os.fsencode(path) for path in paths])
    return ImageIndex(names, file, start, size, np.array(labels, np.int64) if known else None, None, True)


def _samples(path: Path, skip: Callable[[str], None] | None) -> Iterator[tuple[int, int, int | None]]:
    """(start, size, label) of each sample of one shard."""
    key, image, label = None, None, None
    with open(path, "rb") as file:
        try:
            for member in _members(path, file):
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                if (folder, stem) != key:
                    if key is not None:
                        yield (*_whole(path, key, image), label)
                    key, image, label = (folder, stem), None, None
                ending = ending.lower()
                if ending.rpartition(".")[2] in IMAGE_ENDINGS:
                    if image is not None:
                        raise DataFileError(f"{path}: expected one image a sample, got two for {folder}/{stem}")
                    image = (member.offset_data, member.size)
                elif ending in ("cls", "json"):
                    label = _label(path, member, _content(file, member), label)
        except tarfile.TarError as error:
            told = f"{path}: expected a whole uncompressed tar archive, got one that is cut short or damaged ({error})"
            if skip is None:
                raise DataFileError(told) from error
            skip(told)
            return  # without the last sample: nobody knows whether it is whole
        if key is not None:
            yield (*_whole(path, key, image), label)


def _members(path: Path, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Plain files of a tar archive that stay inside it. Raises TarError where it is cut short."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # millions of headers are not kept
            if refused := _refusal(member):
                raise DataFileError(f"{path}: refused member {member.name!r}: {refused}")
            if member.isreg():
                yield member
        file.seek(archive.offset)
        if file.read(512) != END_OF_ARCHIVE:
            raise tarfile.ReadError("no end-of-archive mark")


def _refusal(member: tarfile.TarInfo) -> str | None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\\" in member.name or ":" in member.name:
        return "its path leaves the archive"
    if not (member.isreg() or member.isdir()) or member.issparse():
        return "neither a plain file nor a folder"
    return f"{member.size:,} bytes" if member.size > LARGEST_FILE else None


def _content(file: BinaryIO, member: tarfile.TarInfo) -> bytes:
    file.seek(member.offset_data)  # tarfile seeks on its own before the next header
    return file.read(member.size)


def _whole(path: Path, key: tuple[str, str], image: tuple[int, int] | None) -> tuple[int, int]:
    if image is None:
        name = "/".join(part for part in key if part)
        raise DataFileError(f"{path}: expected an image ({', '.join(IMAGE_ENDINGS)}) in sample {name!r}, found none")
    return image


def _label(path: Path, member: tarfile.TarInfo, content: bytes, before: int | None) -> int | None:
    try:
        if member.name.endswith(".cls"):
            return int(content)
        value = json.loads(content)
        return int(value["label"]) if isinstance(value, dict) and "label" in value else before
    except (ValueError, TypeError) as error:
        raise DataFileError(f"{path}: {member.name}: expected a whole number as label ({error})") from error
