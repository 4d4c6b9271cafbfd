"""Which patches to hide: at random (MAE), blocks (BEiT, I-JEPA), all but blocks (data2vec 2.0), boxes of a clip."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sslcore.validate import require
from sslcore.views.draws import check_range, uniform


class MaskIndices(NamedTuple):
    """A random mask in the three forms a masked autoencoder uses.

    ids_keep (B, M) long: visible patches, in random order. ids_restore (B, N) long: where patch i sits in the
    sequence [visible, hidden]. mask (B, N) bool: True = hidden.
    """

    ids_keep: Tensor
    ids_restore: Tensor
    mask: Tensor


def _kept(num_patches: int, ratio: float) -> int:
    require(num_patches >= 2, f"num_patches: expected at least 2, got {num_patches}")
    require(0.0 < ratio < 1.0, f"ratio: expected a fraction strictly between 0 and 1, got {ratio}")
    # 1e-9 undoes float error: 10 * (1 - 0.9) must keep one patch
    kept = int(num_patches * (1 - ratio) + 1e-9)
    require(0 < kept < num_patches, f"ratio: {ratio} of {num_patches} patches leaves {kept} visible")
    return kept


def random_mask(
    batch: int,
    num_patches: int,
    ratio: float = 0.75,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> MaskIndices:
    """Hide a uniformly random subset of patches, a different one for each image.

    Keeps int(num_patches * (1 - ratio)) patches: sort uniform noise, keep the first. Raises ValueError when batch
    < 1, ratio is not inside (0, 1), or no patch would stay visible or hidden. Source: MAE, arXiv 2111.06377, sec. 3.
    """
    require(batch >= 1, f"batch: expected at least 1, got {batch}")
    kept = _kept(num_patches, ratio)
    order = uniform((batch, num_patches), generator, device).argsort(1)
    ids_restore = order.argsort(1)
    return MaskIndices(order[:, :kept].contiguous(), ids_restore, ids_restore >= kept)


def block_mask(
    batch: int,
    grid: tuple[int, int],
    ratio: float = 0.4,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    min_patches: int | None = None,
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    max_blocks: int = 24,
) -> Tensor:
    """Hide rectangular blocks until exactly the asked share of patches is hidden, in each image.

    for block in 1..max_blocks: area ~ U(min_patches, patches still to hide), aspect log-uniform, place uniform.
    Patches are hidden in the order in which blocks reach them; the block that would overshoot is cut by rows. Patches
    no block reached come last, in random order. Returns (B, h*w) bool, True = hidden, with
    h*w - int(h*w * (1 - ratio)) True in every row. min_patches defaults to 16 of a 14x14 grid, in proportion.
    Raises ValueError on an empty grid, ratio outside (0, 1) or aspect out of order. Source: BEiT, arXiv 2106.08254,
    algorithm 1, which lets the count vary slightly; a fixed count keeps batches rectangular. As there, blocks lie
    wholly inside the grid, so corners are hidden far less often than the centre.
    """
    require(batch >= 1, f"batch: expected at least 1, got {batch}")
    height, width = grid
    require(height >= 1 and width >= 1, f"grid: expected positive sides, got {grid}")
    check_range("aspect", aspect)
    require(max_blocks >= 1, f"max_blocks: expected at least 1, got {max_blocks}")
    num_patches = height * width
    hidden = num_patches - _kept(num_patches, ratio)
    smallest = max(1, round(num_patches * 16 / 196)) if min_patches is None else min_patches
    require(smallest >= 1, f"min_patches: expected at least 1, got {min_patches}")
    draws = uniform((max_blocks, 4, batch, 1, 1), generator, device)
    tie = uniform((batch, num_patches), generator, device)
    device = draws.device
    row = torch.arange(height, device=device).view(1, -1, 1)
    column = torch.arange(width, device=device).view(1, 1, -1)
    reached = torch.full((batch, height, width), max_blocks, device=device, dtype=torch.float32)
    low, high = math.log(aspect[0]), math.log(aspect[1])
    for step in range(max_blocks):
        size, shape, y, x = draws[step]
        left = hidden - (reached < max_blocks).sum((1, 2), keepdim=True)
        if device.type == "cpu" and int(left.max()) <= 0:
            break  # more blocks would change nothing; elsewhere the question costs more than they do
        area = smallest + size * (left - smallest).clamp(min=0)
        tall = torch.exp(0.5 * (low + (high - low) * shape))
        block_height = (area.sqrt() * tall).round().clamp(1, height)
        block_width = (area.sqrt() / tall).round().clamp(1, width)
        top = (y * (height - block_height + 1)).floor()
        first = (x * (width - block_width + 1)).floor()
        inside = (row >= top) & (row < top + block_height) & (column >= first) & (column < first + block_width)
        reached = torch.where(inside & (reached == max_blocks), float(step), reached)
    # within a block, row by row, from above or below so that no border is favoured; beyond all blocks, random order
    place = torch.arange(num_patches, device=device) / num_patches
    place = torch.where(tie[:, :1] < 0.5, place, 1 - 1 / num_patches - place)
    reached = reached.flatten(1)
    rank = reached + torch.where(reached == max_blocks, tie, place)
    chosen = rank.argsort(dim=1, stable=True)[:, :hidden]
    return torch.zeros(batch, num_patches, dtype=torch.bool, device=device).scatter_(1, chosen, True)


def inverse_block_mask(
    batch: int,
    grid: tuple[int, int],
    ratio: float = 0.8,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    adjust: float = 0.07,
    block: int = 3,
) -> MaskIndices:
    """Keep a few square blocks visible and hide the rest, another choice for each image.

        centres = int(h * w * (1 - ratio + adjust) / block ** 2), at least one, drawn with replacement
        near[i, j] = some centre's block x block square covers (i, j)       # cut off at the border
        add or take away single patches at random until int(h * w * (1 - ratio)) are visible

    ratio: share hidden; adjust: drawn in excess, because squares overlap. Returns MaskIndices with visible patches in
    random order. Raises ValueError on an empty grid, ratio outside (0, 1), block < 1, or adjust that leaves nothing.
    Source: data2vec 2.0, arXiv 2212.07525, section 3.3, and its public code.
    """
    require(batch >= 1, f"batch: expected at least 1, got {batch}")
    height, width = grid
    require(height >= 1 and width >= 1, f"grid: expected positive sides, got {grid}")
    require(block >= 1, f"block: expected at least 1, got {block}")
    kept = _kept(height * width, ratio)
    require(-1 < ratio - 1 < adjust < 1, f"adjust: expected a share between {ratio - 1} and 1, got {adjust}")
    centres = max(1, int(height * width * (1 - ratio + adjust) / block**2 + 1e-9))
    place = uniform((2, batch, centres, 1, 1), generator, device)
    row = torch.arange(height, device=place.device).view(-1, 1) - (place[0] * height).floor()
    column = torch.arange(width, device=place.device) - (place[1] * width).floor()
    low, high = -((block - 1) // 2), block // 2
    near = ((row >= low) & (row <= high) & (column >= low) & (column <= high)).any(1).flatten(1)
    # Squares first, and at random among themselves: cutting the order at `kept` adds or takes away at random.
    order = (uniform((batch, height * width), generator, device) + ~near).argsort(1)
    ids_restore = order.argsort(1)
    return MaskIndices(order[:, :kept].contiguous(), ids_restore, ids_restore >= kept)


def multi_block_mask(
    batch: int,
    grid: tuple[int, int],
    num_blocks: int = 4,
    area: tuple[float, float] = (0.15, 0.2),
    aspect: tuple[float, float] = (0.75, 1.5),
    min_keep: int = 6,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Hide a few large rectangles of one shape: what I-JEPA predicts. Everything else stays visible.

    for each image: share ~ U(area), ratio ~ log-uniform(aspect); height = round(sqrt(share * h * w * ratio)) and
    width = round(sqrt(share * h * w / ratio)), within the grid; num_blocks corners, uniform over all that fit.
    Hidden is the union of the blocks, so its size varies; blocks overlap. Where fewer than min_keep cells would stay
    visible, the last cells reached are shown again, block by block from behind.
    Returns (B, h*w) bool, True = hidden, at least one True and min_keep False in every row. Raises ValueError on an
    empty grid, no blocks, ranges out of order, or min_keep outside 1..h*w - 1.
    Source: I-JEPA (arXiv 2301.08243), section 3, as CNN-JEPA (arXiv 2408.07514) uses it on feature maps. In the public
    code of both, one random number gives share and ratio of a whole batch and blocks never reach the last row or
    column; here shapes are drawn for each image, share and ratio apart, and every place is reached.
    """
    require(batch >= 1, f"batch: expected at least 1, got {batch}")
    height, width = grid
    require(height >= 1 and width >= 1, f"grid: expected positive sides, got {grid}")
    require(num_blocks >= 1, f"num_blocks: expected at least 1, got {num_blocks}")
    check_range("area", area, high=1.0)
    check_range("aspect", aspect)
    cells = height * width
    require(1 <= min_keep < cells, f"min_keep: expected 1 to {cells - 1} of {cells} cells, got {min_keep}")
    shapes = uniform((2, batch, 1, 1), generator, device)
    corners = uniform((num_blocks, 2, batch, 1, 1), generator, device)
    device = shapes.device
    row = torch.arange(height, device=device).view(1, -1, 1)
    column = torch.arange(width, device=device).view(1, 1, -1)
    size = cells * (area[0] + (area[1] - area[0]) * shapes[0])
    tall = torch.exp(0.5 * (math.log(aspect[0]) + math.log(aspect[1] / aspect[0]) * shapes[1]))
    block_height = (size.sqrt() * tall).round().clamp(1, height)
    block_width = (size.sqrt() / tall).round().clamp(1, width)
    reached = torch.full((batch, height, width), num_blocks, device=device)
    for number, (y, x) in enumerate(corners):
        top, left = (y * (height - block_height + 1)).floor(), (x * (width - block_width + 1)).floor()
        inside = (row >= top) & (row < top + block_height) & (column >= left) & (column < left + block_width)
        reached = torch.where(inside & (reached == num_blocks), number, reached)
    reached = reached.flatten(1)
    rank = reached.argsort(dim=1, stable=True).argsort(dim=1)
    return (reached < num_blocks) & (rank < cells - min_keep)


def cube_mask(
    batch: int,
    grid: tuple[int, int, int],
    ratio: float = 0.4,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    min_area: int | None = None,
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    max_cubes: int = 100,
) -> Tensor:
    """Hide boxes of space and time of a clip until the asked share of its cells is hidden, in each clip.

    for cube in 1..max_cubes: area ~ U(min_area, h*w), aspect log-uniform, duration ~ U{1..t}, place uniform; the cube
    is taken if it hides something new and no more than is still to hide. What is left after the last cube is hidden at
    random cells. grid: (t, h, w). Returns (B, t*h*w) bool, time first, True = hidden, with
    t*h*w - int(t*h*w * (1 - ratio)) True in every row. min_area defaults to a fifth of h*w.
    Raises ValueError on an empty grid, ratio outside (0, 1), aspect out of order or min_area outside 1..h*w.
    Source: MaskFeat, arXiv 2112.09133, and its public code, where the count may fall short; a fixed count keeps batches
    comparable.
    """
    require(batch >= 1, f"batch: expected at least 1, got {batch}")
    time, height, width = grid
    require(min(grid) >= 1, f"grid: expected positive sides, got {grid}")
    check_range("aspect", aspect)
    require(max_cubes >= 1, f"max_cubes: expected at least 1, got {max_cubes}")
    cells = time * height * width
    wanted = cells - _kept(cells, ratio)
    smallest = max(1, height * width // 5) if min_area is None else min_area
    require(1 <= smallest <= height * width, f"min_area: expected 1 to {height * width}, got {min_area}")
    draws = uniform((max_cubes, 6, batch, 1, 1, 1), generator, device)
    tie = uniform((batch, cells), generator, device)
    axes = [torch.arange(side, device=draws.device) for side in grid]
    frame, row, column = axes[0].view(1, -1, 1, 1), axes[1].view(1, 1, -1, 1), axes[2].view(1, 1, 1, -1)
    hidden = torch.zeros(batch, time, height, width, dtype=torch.bool, device=draws.device)
    low, high = math.log(aspect[0]), math.log(aspect[1])
    for size, shape, length, z, y, x in draws:
        area = smallest + size * (height * width - smallest)
        tall = torch.exp(0.5 * (low + (high - low) * shape))
        cube_height = (area.sqrt() * tall).round().clamp(1, height)
        cube_width = (area.sqrt() / tall).round().clamp(1, width)
        duration = (length * time).floor() + 1
        first = (z * (time - duration + 1)).floor()
        top = (y * (height - cube_height + 1)).floor()
        left = (x * (width - cube_width + 1)).floor()
        inside = (frame >= first) & (frame < first + duration) & (row >= top) & (row < top + cube_height)
        inside = inside & (column >= left) & (column < left + cube_width) & ~hidden
        fits = inside.sum((1, 2, 3)) <= wanted - hidden.sum((1, 2, 3))
        hidden = hidden | (inside & fits.view(-1, 1, 1, 1))
    chosen = torch.where(hidden.flatten(1), -1.0, tie).argsort(dim=1, stable=True)[:, :wanted]
    return torch.zeros(batch, cells, dtype=torch.bool, device=draws.device).scatter_(1, chosen, True)
