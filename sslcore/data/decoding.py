"""From the bytes of an image file to a square uint8 tensor."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import torch
from torch import Tensor

from sslcore.data.storage import DataFileError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM")  # no others are tried: some decoders start programs
LARGEST_IMAGE = 1 << 27  # pixels; a small file can unpack to more
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, struct.error, zlib.error)


def decode_image(content: bytes, side: int, channels: int = 3, place: float = 0.5, name: str = "image") -> Tensor:
    """Decode, cut the largest square, scale it to side x side with antialiasing.

    content: an encoded image. channels: 3 colour, 1 grey. place in [0, 1]: where along the longer side the square lies,
    0.5 the middle. Returns (channels, side, side) uint8. A large JPEG is decoded at 1/2, 1/4 or 1/8 where that still
    has `side` pixels, which saves most of the time.
    Raises DataFileError, naming `name`, for anything that cannot be decoded in full.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > LARGEST_IMAGE:
                raise DataFileError(f"{name}: expected at most {LARGEST_IMAGE} pixels, got {image.size}")
            mode = "RGB" if channels == 3 else "L"
            image.draft(mode, (side, side))
            short = min(image.size)
            left, top = ((length - short) * place for length in image.size)
            box = (left, top, left + short, top + short)
            square = image.convert(mode).resize((side, side), Image.Resampling.BILINEAR, box=box)
    except DataFileError:
        raise
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        # PIL's own words for this one hold a memory address: no two errors would be the same.
        told = f"none of {', '.join(FORMATS)}" if isinstance(error, UnidentifiedImageError) else error
        raise DataFileError(f"{name}: expected an image, could not decode its {len(content)} bytes ({told})") from error
    pixels = torch.from_numpy(np.array(square))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1).contiguous()
