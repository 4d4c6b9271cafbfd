"""A queue of earlier embeddings: a ring buffer that travels with the checkpoint."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcore.distributed import gather_with_grad, rank, world_size
from sslcore.validate import check_positive, require


class EmbeddingQueue(nn.Module):
    """The newest `size` embeddings, rows (size, D), the same on every rank.

    fill: "random" starts with random unit rows that serve as embeddings from the first step (MoCo); "zeros" starts
    empty: ask `full` before use (SwAV).
    """

    def __init__(self, size: int, dim: int, fill: str = "random") -> None:
        super().__init__()
        require(size >= 1, f"queue_size: expected at least 1, got {size}")
        check_positive("dim", dim)
        require(fill in ("random", "zeros"), f"fill: expected 'random' or 'zeros', got {fill!r}")
        rows = F.normalize(torch.randn(size, dim), dim=1) if fill == "random" else torch.zeros(size, dim)
        self.register_buffer("rows", rows)
        self.register_buffer("cursor", torch.zeros((), dtype=torch.long))  # where the oldest row lies
        self.register_buffer("pushed", torch.full((), 0 if fill == "zeros" else size, dtype=torch.long))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def full(self) -> bool:
        """Whether every row is a real embedding. Reads a number from the device: ask once a step at most."""
        return bool(self.pushed >= len(self))

    @torch.no_grad()
    def push(self, embeddings: Tensor, group: object = None) -> None:
        """Write the embeddings (n, D) of all ranks over the oldest rows, in order.

        Raises ValueError if they do not fit in the queue.
        """
        embeddings, size = gather_with_grad(embeddings.detach(), group), len(self)
        require(
            len(embeddings) <= size, f"queue_size: expected at least the {len(embeddings)} keys of a batch, got {size}"
        )
        places = (self.cursor + torch.arange(len(embeddings), device=embeddings.device)) % size
        self.rows.index_copy_(0, places, embeddings.to(self.rows.dtype))
        self.cursor.add_(len(embeddings)).remainder_(size)
        self.pushed.add_(len(embeddings)).clamp_(max=size)

    def share(self, group: object = None) -> Tensor:
        """A copy of this rank's equal part of the rows, all of them for group=None.

        Raises ValueError if the ranks do not divide the rows.
        """
        ranks = world_size(group)
        require(len(self) % ranks == 0, f"queue_size: expected a multiple of {ranks} ranks, got {len(self)}")
        return self.rows.chunk(ranks)[rank(group)].clone()
