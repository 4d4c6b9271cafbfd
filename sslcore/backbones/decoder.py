"""The light decoders of masked models: a small transformer (MAE) and a stack of convolutions (data2vec 2.0)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcore.backbones.attention import Block
from sslcore.backbones.positions import sincos_positions
from sslcore.backbones.tokens import can_read
from sslcore.validate import check_float, check_positive, check_rank, require


class MAEDecoder(nn.Module):
    """Fills hidden places with one learned token and regresses every patch's pixels.

    grid: (rows, columns) of patches, or their number on a square grid. patch_dim: p * p * C, the layout is that of
    the targets. Positions are a fixed sin-cos table. The visible tokens are scattered to their places, run through
    `depth` transformer blocks, normed and mapped to pixels. Linear layers start from Xavier's uniform.
    Raises ValueError where grid, embed_dim and num_heads do not fit. Source: arXiv 2111.06377, section 3.
    """

    def __init__(
        self,
        encoder_dim: int,
        grid: int | tuple[int, int],
        patch_dim: int,
        embed_dim: int = 96,
        depth: int = 2,
        num_heads: int = 3,
        mlp_ratio: float = 4.0,
    ):
        super().__init__()
        if isinstance(grid, int):
            side = round(grid**0.5)
            require(side * side == grid, f"grid: expected (rows, columns) or a square number of patches, got {grid}")
            grid = (side, side)
        for name, number in dict(encoder_dim=encoder_dim, patch_dim=patch_dim, rows=grid[0], columns=grid[1]).items():
            check_positive(name, number)
        require(embed_dim % num_heads == 0, f"embed_dim: expected a multiple of {num_heads} heads, got {embed_dim}")
        self.num_patches, self.encoder_dim = grid[0] * grid[1], encoder_dim
        self.embed = nn.Linear(encoder_dim, embed_dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.register_buffer("positions", sincos_positions(grid, embed_dim)[None], persistent=False)
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.predict = nn.Linear(embed_dim, patch_dim)
        nn.init.normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(
        self, patch_tokens: Tensor, ids_restore: Tensor, cls_token: Tensor | None = None, masked_only: bool = False
    ) -> Tensor:
        """Visible tokens (B, M, encoder_dim) and ids_restore (B, N) int64 -> predictions (B, N, patch_dim).

        ids_restore[b, i] is the place of patch i in the sequence [visible, hidden]; patch i is hidden if that place
        is M or later. cls_token (B, encoder_dim), if given, joins the sequence without a position.
        masked_only=True maps just the hidden patches to pixels: (B, N - M, patch_dim), in rising order of patch, so
        that they line up with patchify(images, p)[mask].reshape(B, N - M, patch_dim).
        Raises TypeError for ids that are not int64, ValueError for shapes that do not fit or ids that are
        no permutation (read on the CPU only).
        """
        batch, visible = self._check(patch_tokens, ids_restore)
        tokens = self.embed(patch_tokens)
        # Places M and later all read the same extra row: the mask token.
        tokens = torch.cat([tokens, self.mask_token.to(tokens.dtype).expand(batch, -1, -1)], dim=1)
        places = ids_restore.clamp(max=visible)[..., None].expand(-1, -1, tokens.shape[-1])
        x = tokens.gather(1, places) + self.positions
        prefix = 0
        if cls_token is not None:
            require(
                cls_token.shape == (batch, self.encoder_dim),
                f"cls_token: expected ({batch}, {self.encoder_dim}), got {tuple(cls_token.shape)}",
            )
            x, prefix = torch.cat([self.embed(cls_token)[:, None], x], dim=1), 1
        for block in self.blocks:
            x = block(x)[0]
        x = x[:, prefix:]
        if masked_only:
            hidden = ids_restore.argsort(dim=1)[:, visible:].sort(dim=1).values
            x = x.gather(1, hidden[..., None].expand(-1, -1, x.shape[-1]))
        return self.predict(self.norm(x))

    def _check(self, patch_tokens: Tensor, ids_restore: Tensor) -> tuple[int, int]:
        check_rank("patch_tokens", patch_tokens, 3)
        check_float("patch_tokens", patch_tokens)
        check_rank("ids_restore", ids_restore, 2)
        if ids_restore.dtype != torch.int64:
            raise TypeError(f"ids_restore: expected int64, got {ids_restore.dtype}")
        batch, visible, dim = patch_tokens.shape
        require(dim == self.encoder_dim, f"patch_tokens: expected {self.encoder_dim} channels, got {dim}")
        require(
            tuple(ids_restore.shape) == (batch, self.num_patches),
            f"ids_restore: expected ({batch}, {self.num_patches}), got {tuple(ids_restore.shape)}",
        )
        require(visible <= self.num_patches, f"patch_tokens: expected at most {self.num_patches}, got {visible}")
        if can_read(ids_restore):
            whole = torch.arange(self.num_patches).expand(batch, -1)
            require(torch.equal(ids_restore.sort(dim=1).values, whole), "ids_restore: every row must be a permutation")
        return batch, visible


class ConvDecoder(nn.Module):
    """Fills hidden places with noise and spreads what is visible over the grid by grouped convolutions.

        x = the visible tokens at their places, rows of `holes` elsewhere
        for layer in 1..depth: x = x + gelu(norm(conv(x)))     # norm over channels, without weights
        return linear(x)

    No positions are added: a visible token knows its own. Everything is local: after `depth` layers a place has seen
    depth * (kernel_size // 2) patches around it. embed_dim: of encoder and layers, a multiple of groups.
    kernel_size: odd. Paper: 6 layers of 3 x 3, 768 wide, 16 groups (ViT-B).
    Raises ValueError where these do not fit. Source: arXiv 2212.07525, section 3.2, and its public code.
    """

    def __init__(self, embed_dim: int, out_dim: int, depth: int = 3, kernel_size: int = 3, groups: int = 4):
        super().__init__()
        for name, number in dict(embed_dim=embed_dim, out_dim=out_dim, kernel_size=kernel_size, groups=groups).items():
            check_positive(name, number)
        require(depth >= 1, f"depth: expected at least 1, got {depth}")
        require(kernel_size % 2 == 1, f"kernel_size: expected an odd number, got {kernel_size}")
        require(embed_dim % groups == 0, f"embed_dim: expected a multiple of {groups} groups, got {embed_dim}")
        self.embed_dim = embed_dim
        around = {"padding": kernel_size // 2, "groups": groups}
        self.layers = nn.ModuleList(nn.Conv2d(embed_dim, embed_dim, kernel_size, **around) for _ in range(depth))
        self.predict = nn.Linear(embed_dim, out_dim)

    def forward(
        self, patch_tokens: Tensor, ids_restore: Tensor, grid: tuple[int, int], holes: Tensor, masked_only: bool = False
    ) -> Tensor:
        """patch_tokens (B, M, D), ids_restore (B, N) int64, holes (B, N - M, D) -> predictions (B, N, out_dim).

        ids_restore as in MAEDecoder; grid: (rows, columns), N = rows * columns; holes: what hidden places start from,
        in the order of ids_restore. masked_only=True predicts just the hidden patches, (B, N - M, out_dim), in rising
        order of patch. Raises TypeError for ids that are not int64, ValueError for shapes that do not fit.
        """
        check_rank("patch_tokens", patch_tokens, 3)
        check_float("patch_tokens", patch_tokens)
        check_rank("ids_restore", ids_restore, 2)
        if ids_restore.dtype != torch.int64:
            raise TypeError(f"ids_restore: expected int64, got {ids_restore.dtype}")
        (batch, visible, dim), places = patch_tokens.shape, grid[0] * grid[1]
        require(dim == self.embed_dim, f"patch_tokens: expected {self.embed_dim} channels, got {dim}")
        fits = tuple(ids_restore.shape) == (batch, places)
        require(fits, f"ids_restore: expected ({batch}, {places}), got {tuple(ids_restore.shape)}")
        fits = tuple(holes.shape) == (batch, places - visible, dim)
        require(fits, f"holes: expected ({batch}, {places - visible}, {dim}), got {tuple(holes.shape)}")
        queue = torch.cat([patch_tokens, holes.to(patch_tokens.dtype)], dim=1)
        x = queue.gather(1, ids_restore[..., None].expand(-1, -1, dim)).unflatten(1, grid)  # (B, h, w, D)
        for layer in self.layers:
            mixed = layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            x = x + F.gelu(F.layer_norm(mixed, (dim,)))
        x = x.flatten(1, 2)
        if masked_only:
            # A stable sort lists the hidden patches in rising order.
            hidden = (ids_restore < visible).int().argsort(dim=1, stable=True)[:, : places - visible]
            x = x.gather(1, hidden[..., None].expand(-1, -1, dim))
        return self.predict(x)
