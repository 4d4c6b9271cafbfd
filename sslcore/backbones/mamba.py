"""A vision Mamba: patches read one after the other, in one direction or in four."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcore.backbones.mamba_block import MambaBlock
from sslcore.backbones.positions import sincos_positions
from sslcore.backbones.tokens import Tokens, can_read, refuse_attention
from sslcore.validate import check_float, check_positive, check_rank, require


def cluster_order(grid: tuple[int, int], cluster: int) -> Tensor:
    """Reading order (N,) of patches: squares of cluster x cluster patches row by row, inside each row by row.

    cluster=1 is the raster order. Raises ValueError unless cluster divides both sides of the grid.
    """
    fits = cluster >= 1 and grid[0] % cluster == 0 and grid[1] % cluster == 0
    require(fits, f"cluster: expected a divisor of both sides of the grid {grid}, got {cluster}")
    places = torch.arange(grid[0] * grid[1]).view(grid[0] // cluster, cluster, grid[1] // cluster, cluster)
    return places.transpose(1, 2).flatten()


def four_orders(grid: tuple[int, int]) -> list[Tensor]:
    """Rows, rows reversed, columns, columns reversed: permutations (N,) of the raster order."""
    rows = torch.arange(grid[0] * grid[1])
    columns = rows.view(grid).T.flatten()
    return [rows, rows.flip(0), columns, columns.flip(0)]


class VisionMamba(nn.Module):
    """Patches + fixed sin-cos positions -> Mamba blocks -> Tokens. No class token: cls_token is the patches' mean.

    directions: 1 reads once, cluster by cluster (cluster=1: row by row), and is causal in that order. 4 reads rows,
        rows reversed, columns, columns reversed in every block, and sees everything everywhere.
    state_dim: numbers of state a channel. img_size (int or (height, width)) fixes the grid that positions refer to;
    other sizes divisible by patch_size are accepted. forward gives tokens in raster order whatever was read when.
    Departures from ARM's fine-tuned network: no class token in the middle of the sequence.
    Raises ValueError where sizes do not fit. Source: arXiv 2406.07537, sections 3 and 4.
    """

    num_prefix_tokens = 0

    def __init__(
        self,
        img_size: int | tuple[int, int] = 32,
        patch_size: int = 4,
        in_chans: int = 3,
        embed_dim: int = 192,
        depth: int = 6,
        state_dim: int = 16,
        conv_width: int = 4,
        directions: int = 1,
        cluster: int = 1,
    ):
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        for name, number in dict(patch_size=patch_size, in_chans=in_chans, depth=depth).items():
            check_positive(name, number)
        fits = height >= patch_size and width >= patch_size and height % patch_size == width % patch_size == 0
        require(fits, f"img_size: expected multiples of patch_size {patch_size}, got {(height, width)}")
        require(directions in (1, 4), f"directions: expected 1 or 4, got {directions}")
        self.patch_size, self.in_chans, self.embed_dim = patch_size, in_chans, embed_dim
        self.reference_grid = (height // patch_size, width // patch_size)
        self.directions, self.cluster = directions, cluster
        cluster_order(self.reference_grid, cluster)  # a cluster that does not fit is refused here
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)})
        self.register_buffer("positions", sincos_positions(self.reference_grid, embed_dim), persistent=False)
        self.blocks = nn.ModuleList(MambaBlock(embed_dim, state_dim, conv_width, directions) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew, as at the start: torch's own, biases 0, the last layer of each branch smaller by
        sqrt(2 depth). Step sizes and decays keep Mamba's own start."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not name.endswith("dt_proj"):
                module.reset_parameters()
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
                if name.endswith(("out_proj", "fc2")):
                    module.weight.data.div_((2 * len(self.blocks)) ** 0.5)

    def forward(
        self,
        x: Tensor,
        *,
        ids_keep: Tensor | None = None,
        return_layers: bool = False,
        return_attention: bool | Sequence[int] = False,
    ) -> Tokens:
        """(B, C, H, W) float images -> Tokens.

        ids_keep (B, M) or (M,) int64: patches to read, in this order; tokens and layers then come in that order. One
        direction only. Attention is refused: see hidden_attention.
        """
        refuse_attention(return_attention, "VisionMamba")
        sequence, grid, orders = self._embed(x, ids_keep)
        layers = [sequence]
        for block in self.blocks:
            sequence = block(sequence, orders)
            layers.append(sequence)
        patch_tokens = self.norm(sequence)
        return Tokens(patch_tokens.mean(dim=1), patch_tokens, grid, layers=layers if return_layers else None)

    def hidden_attention(self, x: Tensor, layer: int = -1) -> Tensor:
        """(B, D, N, N) of one block: how much of patch s is in what the scan says at patch t, for each channel, signed.

        Exact for the scan; the convolution of four patches before it and the gate behind it are left out.
        """
        depth = len(self.blocks)
        require(-depth <= layer < depth, f"layer: expected one of {depth} layers, got {layer}")
        sequence, _, orders = self._embed(x, None)
        for block in self.blocks[: layer % depth]:
            sequence = block(sequence, orders)
        block = self.blocks[layer]
        return block.mixer.hidden_attention(block.norm1(sequence), orders)

    def _embed(self, x: Tensor, ids_keep: Tensor | None) -> tuple[Tensor, tuple[int, int], list[Tensor | None]]:
        """Tokens at their places, the grid, and the order (or orders) to read them in; None as they come."""
        check_rank("x", x, 4)
        check_float("x", x)
        batch, channels, height, width = x.shape
        side = self.patch_size
        fits = batch >= 1 and channels == self.in_chans and min(height, width) >= side
        require(
            fits and height % side == width % side == 0,
            f"x: expected (B >= 1, {self.in_chans}, H, W) with multiples of {side}, got shape {tuple(x.shape)}",
        )
        grid = (height // side, width // side)
        positions = self.positions
        if grid != self.reference_grid:
            positions = sincos_positions(grid, self.embed_dim, self.reference_grid, x.device)
        pixels = x.reshape(batch, channels, grid[0], side, grid[1], side).permute(0, 2, 4, 1, 3, 5)
        pixels = pixels.reshape(batch, grid[0] * grid[1], channels * side * side)
        if ids_keep is not None:
            require(self.directions == 1, "ids_keep: a network of four directions reads whole grids only")
            ids_keep = _check_ids(ids_keep, batch, len(positions))
            pixels = pixels.gather(1, ids_keep[..., None].expand(-1, -1, pixels.shape[-1]))
            positions = positions[ids_keep]
        projection = self.patch_embed["proj"]
        sequence = F.linear(pixels, projection.weight.flatten(1), projection.bias) + positions
        if ids_keep is not None or (self.directions == 1 and self.cluster == 1):
            return sequence, grid, [None]
        orders = [cluster_order(grid, self.cluster)] if self.directions == 1 else four_orders(grid)
        return sequence, grid, [order.to(x.device) for order in orders]


def four_directions(backbone: VisionMamba) -> VisionMamba:
    """A copy that reads in four directions, each started from the one that was trained; ARM's step to fine-tuning.

    Raises ValueError for a network that has four already.
    """
    require(getattr(backbone, "directions", None) == 1, "backbone: expected a VisionMamba of one direction")
    wide = copy.deepcopy(backbone)
    wide.directions, wide.cluster = 4, 1
    for block in wide.blocks:
        block.mixer.scans = nn.ModuleList(copy.deepcopy(block.mixer.scans[0]) for _ in range(4))
    return wide


def _check_ids(ids_keep: Tensor, batch: int, num_patches: int) -> Tensor:
    if ids_keep.dtype != torch.int64:
        raise TypeError(f"ids_keep: expected int64 indices, got {ids_keep.dtype}")
    ids_keep = ids_keep.expand(batch, -1) if ids_keep.ndim == 1 else ids_keep
    fits = ids_keep.ndim == 2 and len(ids_keep) == batch and ids_keep.shape[1] >= 1
    require(fits, f"ids_keep: expected shape ({batch}, M >= 1), got {tuple(ids_keep.shape)}")
    if can_read(ids_keep):
        low, high = int(ids_keep.min()), int(ids_keep.max())
        require(0 <= low and high < num_patches, f"ids_keep: expected [0, {num_patches}), got {low} to {high}")
    return ids_keep
