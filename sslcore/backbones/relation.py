"""A feature in the company of its neighbours: retrieval from a memory and one transformer block over the group."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcore.backbones.attention import Block
from sslcore.validate import check_rank, require


@torch.no_grad()
def nearest_rows(queries: Tensor, memory: Tensor, num: int) -> Tensor:
    """The `num` rows of the memory with the highest cosine to each query: (B, D), (K, D) -> (B, num, D).

    Rows come as they are stored, not normalised, nearest first, without gradient. num = 0 gives (B, 0, D).
    Raises ValueError for wrong rank, differing widths, or num outside 0..K.
    """
    check_rank("queries", queries, 2)
    check_rank("memory", memory, 2)
    require(
        queries.shape[1] == memory.shape[1],
        f"memory: expected rows of width {queries.shape[1]}, got {tuple(memory.shape)}",
    )
    require(0 <= num <= len(memory), f"num: expected 0 to {len(memory)} rows, got {num}")
    cosine = F.normalize(queries.float(), dim=1) @ F.normalize(memory.float(), dim=1).T
    return memory[cosine.topk(num, dim=1).indices]


class RelationBlock(nn.Module):
    """One transformer block over [feature, neighbours], without positions; reads out the feature's own place.

    (B, D), (B, n, D) -> (B, D). The order of the neighbours does not matter. Source: local-group supervision of Mugs
    (arXiv 2203.14415). There the final norm is the backbone's; here the block has its own and fits any net.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        require(dim % num_heads == 0, f"num_heads: expected a divisor of {dim}, got {num_heads}")
        self.block, self.norm = Block(dim, num_heads), nn.LayerNorm(dim, eps=1e-6)

    def forward(self, feature: Tensor, neighbours: Tensor) -> Tensor:
        sequence, _ = self.block(torch.cat([feature[:, None], neighbours.to(feature.dtype)], dim=1))
        return self.norm(sequence[:, 0])
