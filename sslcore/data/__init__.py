"""Images as tensors: embedded sets, composed scenes, readers for downloaded sets."""

from sslcore.data.canvas import place_on_canvas
from sslcore.data.imageset import ImageSet
from sslcore.data.registry import load
from sslcore.data.scenes import Scenes, compose_scenes
from sslcore.data.storage import DataFileError, data_folder

__all__ = [
    "DataFileError",
    "ImageSet",
    "Scenes",
    "compose_scenes",
    "data_folder",
    "load",
    "place_on_canvas",
]
