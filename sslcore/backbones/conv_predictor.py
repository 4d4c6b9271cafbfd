"""A convolutional predictor: fills the holes of a feature map, then looks around them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcore.validate import check_float, check_mask, check_positive, check_rank, require


class ConvPredictor(nn.Module):
    """One learned vector in every hidden cell, then `depth` times: depthwise 3 x 3, pointwise 1 x 1, batch norm, ReLU.

    All layers keep the width embed_dim and run over the whole map, so a hidden cell reads what lies up to `depth` cells
    away; where the nearest visible cell is further, it can only answer with what is common. A depthwise layer costs 9
    multiplications a channel and cell, a pointwise one embed_dim.
    Raises ValueError for widths, depths or kernels below 1, or an even kernel.
    Source: CNN-JEPA (arXiv 2408.07514), section on the predictor.
    """

    def __init__(self, embed_dim: int, depth: int = 3, kernel_size: int = 3) -> None:
        super().__init__()
        check_positive("embed_dim", embed_dim)
        require(depth >= 1, f"depth: expected at least 1, got {depth}")
        require(kernel_size >= 1 and kernel_size % 2 == 1, f"kernel_size: expected an odd number, got {kernel_size}")
        self.mask_token = nn.Parameter(torch.empty(embed_dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [
                nn.Conv2d(embed_dim, embed_dim, kernel_size, padding=kernel_size // 2, groups=embed_dim, bias=False),
                nn.Conv2d(embed_dim, embed_dim, 1, bias=False),
                nn.BatchNorm2d(embed_dim),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, tokens: Tensor, mask: Tensor, grid: tuple[int, int]) -> Tensor:
        """tokens (B, N, D), row by row over grid = (h, w); mask (B, N) bool, True = hidden -> predictions (B, N, D).

        What tokens hold at hidden cells is never read. Raises ValueError for shapes that do not fit or nothing hidden.
        """
        check_rank("tokens", tokens, 3)
        check_float("tokens", tokens)
        batch, cells, width = tokens.shape
        require(
            width == len(self.mask_token) and cells == grid[0] * grid[1],
            f"tokens: expected (B, {grid[0] * grid[1]}, {len(self.mask_token)}), got {tuple(tokens.shape)}",
        )
        check_mask("mask", mask, (batch, cells))
        filled = torch.where(mask[..., None], self.mask_token.to(tokens.dtype), tokens)
        # (B, D, h, w) laid out channels last, as the tokens already are
        maps = filled.transpose(1, 2).unflatten(2, grid).contiguous(memory_format=torch.channels_last)
        return self.layers(maps).flatten(2).transpose(1, 2)
