"""ARM's decoder: questions about the next cluster of patches, answered from what was read before."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcore.backbones.attention import Mlp
from sslcore.backbones.positions import sincos_positions
from sslcore.validate import check_positive, check_rank, require


def cluster_mask(num_clusters: int, size: int) -> Tensor:
    """(num_clusters * size)^2 bool, True = may look: all of one's own segment of `size` places and of those before.

    Rows are questions about clusters 2, 3, ..., columns what was read in clusters 1, 2, ...: the question about a
    cluster may look at every cluster before it. size=1 is the ordinary causal mask.
    """
    check_positive("num_clusters", num_clusters)
    check_positive("size", size)
    return torch.ones(num_clusters, num_clusters, dtype=torch.bool).tril().repeat_interleave(size, 0).repeat_interleave(
        size, 1
    )


class CrossBlock(nn.Module):
    """query + CrossAttention(query, memory), then query + MLP(query); queries never look at each other."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0):
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm_memory, self.norm2 = (nn.LayerNorm(dim, eps=1e-6) for _ in range(3))
        self.query, self.key_value, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        def heads(each: Tensor) -> Tensor:
            return each.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

        key, value = self.key_value(self.norm_memory(memory)).chunk(2, dim=-1)
        query = heads(self.query(self.norm1(x)))
        found = F.scaled_dot_product_attention(query, heads(key), heads(value), attn_mask=mask)
        x = x + self.proj(found.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class CrossDecoder(nn.Module):
    """One learned vector plus a position asks for each patch; cross-attention to the encoder answers in pixels.

    encoder_dim: D. taps: how many layers of the encoder are handed over, each normed, joined, and mapped to one memory
    for each of the `depth` blocks. grid: (rows, columns) of patches. patch_dim: p * p * C.
    forward: layers, list of (B, M, D); places (Q,) int64, patches asked for; mask (Q, M) bool, True = may look, or
    None. Returns (B, Q, patch_dim). Raises ValueError for sizes that do not fit. Source: arXiv 2406.07537, section 3.
    """

    def __init__(
        self, encoder_dim: int, taps: int, grid: tuple[int, int], patch_dim: int, embed_dim: int = 96, depth: int = 2,
        num_heads: int = 3,
    ):  # fmt: skip
        super().__init__()
        for name, number in dict(encoder_dim=encoder_dim, taps=taps, patch_dim=patch_dim, depth=depth).items():
            check_positive(name, number)
        require(embed_dim % num_heads == 0, f"embed_dim: expected a multiple of {num_heads} heads, got {embed_dim}")
        self.norms = nn.ModuleList(nn.LayerNorm(encoder_dim, eps=1e-6) for _ in range(taps))
        self.embed = nn.Linear(taps * encoder_dim, depth * embed_dim)
        self.question = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.register_buffer("positions", sincos_positions(grid, embed_dim), persistent=False)
        self.blocks = nn.ModuleList(CrossBlock(embed_dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.predict = nn.Linear(embed_dim, patch_dim)
        nn.init.normal_(self.question, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, layers: Sequence[Tensor], places: Tensor, mask: Tensor | None = None) -> Tensor:
        require(len(layers) == len(self.norms), f"layers: expected {len(self.norms)}, got {len(layers)}")
        check_rank("places", places, 1)
        shape = (len(places), layers[0].shape[1])
        fits = mask is None or tuple(mask.shape) == shape
        require(fits, f"mask: expected {shape}, got {None if mask is None else tuple(mask.shape)}")
        joined = torch.cat([norm(layer) for norm, layer in zip(self.norms, layers, strict=True)], dim=-1)
        # The split is of the last axis into (block, channel): block j owns one contiguous slice.
        memories = self.embed(joined).unflatten(-1, (len(self.blocks), -1)).unbind(2)
        x = (self.question + self.positions[places]).expand(len(joined), -1, -1)
        for block, memory in zip(self.blocks, memories, strict=True):
            x = block(x, memory, mask)
        return self.predict(self.norm(x))
