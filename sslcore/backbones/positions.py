"""Where a patch is: learned tables, sin-cos tables and rotary angles, all for any grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcore.validate import require


def grid_coordinates(
    grid: tuple[int, int], reference: tuple[int, int], device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Row and column of every patch, row-major, (N,) each in float32, measured in cells of the `reference` grid.

    On the reference grid these are the integers. A finer or coarser grid covers the same span (cell centres are
    mapped), so a network meets coordinates of the range it was trained on.
    """
    axes = []
    for size, wanted in zip(grid, reference, strict=True):
        axes.append((torch.arange(size, device=device, dtype=torch.float32) + 0.5) * (wanted / size) - 0.5)
    rows, columns = torch.meshgrid(*axes, indexing="ij")
    return rows.flatten(), columns.flatten()


def sincos_positions(
    grid: tuple[int, int],
    embed_dim: int,
    reference: tuple[int, int] | None = None,
    device: torch.device | None = None,
    temperature: float = 10000.0,
) -> Tensor:
    """Fixed 2-D sin-cos table (h * w, embed_dim): first half encodes the column, second half the row.

    Each half is [sin(c * f_k), cos(c * f_k)] with f_k = temperature^(-k / (embed_dim / 4)), as in MAE
    (arXiv 2111.06377). Raises ValueError unless embed_dim is divisible by 4.
    """
    require(embed_dim % 4 == 0, f"embed_dim: sin-cos positions need a multiple of 4, got {embed_dim}")
    rows, columns = grid_coordinates(grid, reference or grid, device)
    quarter = embed_dim // 4
    frequencies = temperature ** (-torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
    column_angles, row_angles = columns[:, None] * frequencies, rows[:, None] * frequencies
    return torch.cat([column_angles.sin(), column_angles.cos(), row_angles.sin(), row_angles.cos()], dim=1)


def resize_positions(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resample a learned table (1, h * w, D) to another grid, bicubic with antialiasing; identity on the same grid."""
    if old == new:
        return table
    image = table.float().reshape(1, *old, -1).permute(0, 3, 1, 2)
    image = F.interpolate(image, size=new, mode="bicubic", antialias=True)
    return image.permute(0, 2, 3, 1).reshape(1, new[0] * new[1], -1).to(table.dtype)


def rope_angles(
    grid: tuple[int, int],
    head_dim: int,
    reference: tuple[int, int] | None = None,
    device: torch.device | None = None,
    temperature: float = 100.0,
) -> Tensor:
    """Axial rotary angles (h * w, head_dim / 2): the first half of the pairs turn with the row, the rest with the
    column.

    f_k = temperature^(-k / (head_dim / 4)); the small temperature suits grids of tens of cells, where 10000 would leave
    most pairs still (Heo et al., arXiv 2403.13298). Raises ValueError unless head_dim is divisible by 4.
    """
    require(head_dim % 4 == 0, f"embed_dim / num_heads: rotary positions need a multiple of 4, got {head_dim}")
    rows, columns = grid_coordinates(grid, reference or grid, device)
    quarter = head_dim // 4
    frequencies = temperature ** (-torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
    return torch.cat([rows[:, None] * frequencies, columns[:, None] * frequencies], dim=1)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn channel pairs (i, i + d/2) of the last tokens of x (B, H, L, d) by angles (N, d/2) or (B, N, d/2), N <= L.

    The first L - N tokens (class and registers) have no place in the image and stay as they are. The score of two
    rotated vectors depends only on the difference of their positions.
    """
    angles = angles.unsqueeze(-3)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    prefix = x.shape[-2] - angles.shape[-2]
    first, second = x[..., prefix:, :].chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
    return torch.cat([x[..., :prefix, :], turned], dim=-2) if prefix else turned
