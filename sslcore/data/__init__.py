"""Images as tensors: embedded sets, composed scenes, readers for downloaded sets and for streams."""

from sslcore.data.canvas import place_on_canvas
from sslcore.data.composites import compose_composites
from sslcore.data.imageset import ImageSet
from sslcore.data.label_budget import few_labels
from sslcore.data.registry import load
from sslcore.data.scenes import Scenes, compose_scenes
from sslcore.data.storage import DataFileError, data_folder
from sslcore.data.streaming import ImageStream, stream_images

__all__ = [
    "DataFileError",
    "ImageSet",
    "ImageStream",
    "Scenes",
    "compose_composites",
    "compose_scenes",
    "data_folder",
    "few_labels",
    "load",
    "place_on_canvas",
    "stream_images",
]
