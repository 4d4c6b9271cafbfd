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


TWIN_SPLITS = {"train": (600, 901, "train"), "val": (150, 902, "train"), "test": (300, 903, "test")}


def load_twins(split: str = "train", num: int | None = None, **settings: Any) -> Scenes:
    """The course's one set for object-binding read-outs: two pairs of twins a scene, 64 px.

    Twins look the same and lie apart, so recognising an object does not tell a pair of tokens on one of them from a
    pair across the two. One trace of looks stays: only a pair across twins can show the same part of the photo twice,
    so unlike colours point to one object; `binding_report` prints this control as "colour gap".
    train 600, val 150 (the same 190 photos), test 300 (the 68 held out). settings: `compose_scenes`.
    """
    if split not in TWIN_SPLITS:
        unknown("split of twins", split, TWIN_SPLITS)
    count, seed, stamps = TWIN_SPLITS[split]
    look = {"twin_pairs": 2, "size_range": (0.3, 0.5), "max_overlap": 0.2, "captions": False}
    scenes = compose_scenes(num or count, **{**look, "seed": seed, "split": stamps, **settings})
    scenes.name, scenes.split = "twins", split
    return scenes


READERS: dict[str, Callable[..., ImageSet]] = {
    "fashion_mnist": load_fashion_mnist,
    "fashion_canvas": load_fashion_canvas,
    "stamps": load_stamps,
    "scenes": load_scenes,
    "twins": load_twins,
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
