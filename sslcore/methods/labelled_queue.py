"""A queue of embeddings that know their label and their image."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcore.distributed import gather_with_grad
from sslcore.methods.queue import EmbeddingQueue

NOBODY = -1  # label and image number of rows that no image has written yet


class LabelledQueue(EmbeddingQueue):
    """An EmbeddingQueue whose rows (size, D) carry labels and ids (size,): numbers of a class and of an image.

    Both start at -1, so that no image takes one of the random first rows for one of its class.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__(size, dim)
        self.register_buffer("labels", torch.full((size,), NOBODY))
        self.register_buffer("ids", torch.full((size,), NOBODY))

    @torch.no_grad()
    def push_labelled(self, embeddings: Tensor, labels: Tensor, ids: Tensor, group: object = None) -> None:
        """Write the embeddings (n, D), labels (n,) and ids (n,) of all ranks over the oldest rows, in order.

        Raises ValueError if they do not fit in the queue.
        """
        start = self.cursor.clone()
        self.push(embeddings, group)
        for buffer, values in ((self.labels, labels), (self.ids, ids)):
            values = gather_with_grad(values, group)
            places = (start + torch.arange(len(values), device=values.device)) % len(self)
            buffer.index_copy_(0, places, values)
