"""A queue of labelled embeddings that a checkpoint carries."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcore.validate import require

NOBODY = -1  # label and image number of rows that no image has written yet


class LabelledQueue(nn.Module):
    """The last `size` embeddings with their labels and image numbers.

    rows (size, dim) start as random directions; labels and ids (size,) start at -1, so that no image takes an unwritten
    row for one of its class. cursor: where the next row goes. All four are buffers. Raises ValueError for size < 1.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        require(size >= 1 and dim >= 1, f"queue: expected size and dim of at least 1, got {size} and {dim}")
        self.register_buffer("rows", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("labels", torch.full((size,), NOBODY))
        self.register_buffer("ids", torch.full((size,), NOBODY))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def write(self, rows: Tensor, labels: Tensor, ids: Tensor) -> None:
        """rows (n, dim), labels (n,), ids (n,) over the oldest ones, in order. ValueError if n is above the size."""
        size = len(self.rows)
        require(len(rows) <= size, f"queue: expected at least the {len(rows)} rows of a batch, got a size of {size}")
        places = (self.cursor + torch.arange(len(rows), device=rows.device)) % size
        for buffer, values in ((self.rows, rows), (self.labels, labels), (self.ids, ids)):
            buffer.index_copy_(0, places, values.to(buffer.dtype))
        self.cursor.add_(len(rows)).remainder_(size)
