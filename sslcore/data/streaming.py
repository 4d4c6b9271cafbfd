"""Sets larger than memory: read and decoded image by image when a step asks for them."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sslcore.data.decoding import decode_image
from sslcore.data.image_index import ImageIndex, index_folder, index_shards
from sslcore.data.imageset import ImageSet
from sslcore.data.storage import DataFileError
from sslcore.validate import require, unknown

TRIES = 64  # unreadable images in a row after which a set is given up


class Row(NamedTuple):
    """One decoded image: pixels (C, S, S) uint8, the row it came from, what could not be read in its place."""

    image: Tensor
    index: int
    errors: list[str]


class Rows(NamedTuple):
    """What a worker hands over: images (n, C, S, S) uint8, their rows (n,), errors skipped, and the one that stops."""

    images: Tensor | None
    index: Tensor | None
    errors: list[str]
    failure: str | None


class ImageStream(Dataset):
    """Images that stay on disk, for `fit` and for a DataLoader.

    index: where they lie. img_size: side of the stored square; take about 1/7 more than the views need (256 for views
    of 224), since views are cut from it on the device. channels: 3 or 1. crop: "center", or "random" for a square
    whose place along the longer side changes from epoch to epoch. workers: decoding processes (of each rank).
    on_error: "raise" stops at the first image that cannot be read; "skip" takes the next one instead and counts it in
    `skipped` (this process's counts: message -> times). window: shards mixed with each other at a time.

    stream[row] is a Row. Raises ValueError on settings out of range.
    """

    def __init__(
        self,
        index: ImageIndex,
        *,
        name: str = "stream",
        img_size: int = 256,
        channels: int = 3,
        crop: str = "center",
        workers: int = 2,
        on_error: str = "raise",
        window: int = 16,
    ) -> None:
        require(isinstance(img_size, int) and img_size >= 1, f"img_size: expected a side above 0, got {img_size!r}")
        require(channels in (1, 3), f"channels: expected 1 or 3, got {channels}")
        require(workers >= 0 and window >= 1, f"workers >= 0 and window >= 1 expected, got {workers} and {window}")
        if crop not in ("center", "random"):
            unknown("crop", crop, ("center", "random"))
        if on_error not in ("raise", "skip"):
            unknown("on_error", on_error, ("raise", "skip"))
        self.index, self.name, self.img_size, self.channels = index, name, img_size, channels
        self.crop, self.workers, self.on_error, self.window = crop, workers, on_error, window
        self.labels = None if index.labels is None else torch.from_numpy(index.labels)
        self.classes = index.classes
        self.skipped: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        kind = f"{len(self.index.files)} shards" if self.index.sharded else "folder"
        labelled = "labels" if self.labels is not None else "no labels"
        return f"ImageStream({self.name}: {len(self)} images of {self.img_size} px, {kind}, {labelled})"

    def order(self, seed: int) -> np.ndarray:
        """A permutation of the rows. In shards: shards shuffled, then the images of each `window` of them, so that a
        stretch of steps reads few files."""
        drawn = np.random.default_rng(seed)
        if not self.index.sharded:
            return drawn.permutation(len(self))
        place = drawn.permutation(len(self.index.files))[self.index.file] // self.window
        return np.lexsort((drawn.random(len(self)), place))

    def places(self, seed: int) -> np.ndarray:
        """(N,) where along its longer side each image is cut in the epoch of this seed."""
        if self.crop == "center":
            return np.full(len(self), 0.5)
        return np.random.default_rng([1, seed]).random(len(self))

    def __getitem__(self, wanted: int | tuple[int, float]) -> Row:
        row, place = wanted if isinstance(wanted, tuple) else (wanted, 0.5)
        errors: list[str] = []
        for attempt in range(TRIES):
            here = (row + attempt) % len(self)
            try:
                name = self.index.name(here)
                return Row(decode_image(self.index.read(here), self.img_size, self.channels, place, name), here, errors)
            except DataFileError as error:
                if self.on_error == "raise":
                    raise
                errors.append(str(error))
        raise DataFileError(f"{errors[0]}; so are the {TRIES - 1} after it")

    def __getitems__(self, wanted: list[tuple[int, float]]) -> Rows:
        """A list of rows at once: what a DataLoader's worker calls. A failure is handed over in words, not raised, so
        that the training process can raise it without the worker's traceback."""
        try:
            rows = [self[one] for one in wanted]
        except DataFileError as error:
            return Rows(None, None, [], str(error))
        errors = [error for row in rows for error in row.errors]
        return Rows(torch.stack([row.image for row in rows]), torch.tensor([row.index for row in rows]), errors, None)

    def in_memory(self, rows: Sequence[int] | slice = slice(None)) -> ImageSet:
        """These rows as an ImageSet, for probes."""
        chosen = np.arange(len(self))[rows]
        require(len(chosen) > 0, "rows: expected at least one")
        rows = self.received(self.__getitems__([(int(row), 0.5) for row in chosen]))
        labels = None if self.labels is None else self.labels[rows.index]
        return ImageSet(self.name, "stream", rows.images, labels, self.classes)

    def received(self, rows: Rows) -> Rows:
        """The rows a worker handed over, after counting what it skipped. Raises DataFileError where it failed."""
        if rows.failure is not None:
            raise DataFileError(rows.failure)
        self.skipped.update(rows.errors)
        return rows


def stream_images(source: str | Path | Sequence[str | Path], *, split: str | None = None, **settings) -> ImageStream:
    """Open a set that stays on disk.

    source: a folder with one subfolder a class (ImageNet's layout with split="train" or "val"), a folder of images, a
        folder of .tar shards, a pattern such as "shards/train-*.tar", or a list of shards.
    settings: see ImageStream.

    Raises FileNotFoundError when nothing is there, DataFileError for shards that cannot be trusted.
    """
    on_error = settings.get("on_error", "raise")
    told: list[str] = []
    skip = told.append if on_error == "skip" else None
    if isinstance(source, str | Path):
        root = Path(source).expanduser()
        root = root if split is None else root / split
        if root.is_dir():
            shards = sorted(root.glob("*.tar"))
        else:
            shards = sorted(Path(path) for path in glob.glob(str(root)))
            if not shards:
                raise FileNotFoundError(f"{root}: expected a folder, a shard or a pattern of shards; nothing is there")
        index = index_shards(shards, skip) if shards else index_folder(root)
        name = root.name if root.is_dir() else root.parent.name
    else:
        shards = [Path(path) for path in source]
        missing = [str(path) for path in shards if not path.is_file()]
        if missing:
            raise FileNotFoundError(f"expected shards, not there: {', '.join(missing[:5])}")
        index, name = index_shards(shards, skip), "shards"
    stream = ImageStream(index, name=name, **settings)
    stream.skipped.update(told)
    return stream
