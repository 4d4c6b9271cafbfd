"""`load(name, split)`: one door to every set."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from sslcore.data.canvas import load_fashion_canvas
from sslcore.data.downloaded import CLASSES, load_downloaded, load_fashion_mnist_full
from sslcore.data.embedded import load_fashion_mnist, load_stamps
from sslcore.data.imageset import ImageSet
from sslcore.data.scenes import Scenes, compose_scenes
from sslcore.validate import unknown

SCENE_SPLITS = {"train": (4096, 0, "train"), "val": (512, 1, "train"), "test": (1024, 2, "test")}


def load_scenes(split: str = "train", num: int | None = None, **settings: Any) -> Scenes:
    """The default composed set: four objects a scene, two of them twins.

    train 4096, val 512 (the same 190 photos in other scenes), test 1024 (the 68 photos held out). settings go to
    `compose_scenes`.
    """
    if split not in SCENE_SPLITS:
        unknown("split of scenes", split, SCENE_SPLITS)
    count, seed, stamps = SCENE_SPLITS[split]
    scenes = compose_scenes(num or count, **{"twin_pairs": 1, "seed": seed, "split": stamps, **settings})
    scenes.split = split
    return scenes


READERS: dict[str, Callable[..., ImageSet]] = {
    "fashion_mnist": load_fashion_mnist,
    "fashion_canvas": load_fashion_canvas,
    "stamps": load_stamps,
    "scenes": load_scenes,
    "fashion_mnist_full": load_fashion_mnist_full,
    **{name: functools.partial(load_downloaded, name) for name in CLASSES},
}


def load(name: str, split: str = "train", **settings: Any) -> ImageSet:
    """A data set by name.

    Args:
        name: a key of READERS. split: depends on the set; an unknown one lists those there are.
        settings: passed to the set's reader.

    Raises:
        ValueError: unknown name or split. FileNotFoundError: not on this machine; says which command brings it.
        DataFileError: there, but damaged.
    """
    if name not in READERS:
        unknown("data set", name, READERS)
    return READERS[name](split, **settings)
