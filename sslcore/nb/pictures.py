"""Pictures of many images at once: rows, neighbours with right and wrong ones, views and what pulls or pushes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sslcore.nb.figures import show_image
from sslcore.nb.style import INK, PALETTE
from sslcore.validate import check_images, check_rank, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RIGHT, WRONG = PALETTE[2], PALETTE[5]


def plot_rows(rows: Sequence[Tensor], names: Sequence[str] = ()) -> Figure:
    """One row of pictures for each tensor (N, C, H, W), all of the same N, uint8 or float in [0, 1].

    names: one a row, written at its left. Raises ValueError for no rows or rows of different length.
    """
    import matplotlib.pyplot as plt

    require(len(rows) >= 1, "rows: expected at least one, got none")
    for images in rows:
        check_images("rows", images)
    count = len(rows[0])
    require(all(len(row) == count for row in rows), f"rows: expected {count} images each, got {[*map(len, rows)]}")
    require(len(names) in (0, len(rows)), f"names: expected {len(rows)}, one a row, got {len(names)}")
    side = min(1.0, 7.2 / count)
    figure, axes = plt.subplots(len(rows), count, figsize=(side * count, side * len(rows)), squeeze=False)
    for row, images in zip(axes, rows, strict=True):
        for ax, image in zip(row, images, strict=True):
            show_image(ax, image)
    for row, name in zip(axes, names, strict=False):
        row[0].set_axis_on()
        row[0].set(xticks=[], yticks=[], ylabel=name)
        row[0].spines[:].set_visible(False)
    return figure


def plot_neighbours(queries: Tensor, neighbours: Tensor, right: Tensor, names: Sequence[str] = ()) -> Figure:
    """Each query beside its neighbours; a green solid frame where a neighbour is right, a dotted red one where not.

    queries: (M, C, H, W). neighbours: (M, K, C, H, W). right: (M, K) bool. names: M titles for the queries.
    Raises ValueError for shapes that do not fit together.
    """
    import matplotlib.pyplot as plt

    check_images("queries", queries)
    check_rank("neighbours", neighbours, 5)
    count, width = neighbours.shape[:2]
    require(len(queries) == count, f"queries: expected {count}, as many as rows of neighbours, got {len(queries)}")
    require(right.shape == (count, width), f"right: expected {(count, width)}, got {tuple(right.shape)}")
    require(len(names) in (0, count), f"names: expected {count}, one a query, got {len(names)}")
    figure, axes = plt.subplots(count, width + 1, figsize=(1.05 * (width + 1), 1.0 * count + 0.3), squeeze=False)
    for m, row in enumerate(axes):
        show_image(row[0], queries[m])
        if names:
            row[0].set_title(names[m], fontsize=9, pad=3)
        for ax, image, good in zip(row[1:], neighbours[m], right[m].tolist(), strict=True):
            show_image(ax, image)
            look = {"edgecolor": RIGHT, "linestyle": "-"} if good else {"edgecolor": WRONG, "linestyle": ":"}
            ax.add_patch(plt.Rectangle((0, 0), 1, 1, transform=ax.transAxes, fill=False, linewidth=4, **look))
    return figure


def plot_views(images: Tensor, views: Sequence[Tensor]) -> Figure:
    """Images (up to 6), two views of each, and a sketch of the sphere: a pair is pulled together, pairs apart.

    images: (N, C, H, W). views: two tensors (N, C, h, w), uint8 or float in [0, 1]. The sketch shows no measurement.
    Raises ValueError for another number of views, of images, or views that do not fit.
    """
    import matplotlib.pyplot as plt

    require(len(views) == 2, f"views: expected 2, got {len(views)}")
    count = len(images)
    require(1 <= count <= len(PALETTE), f"images: expected 1 to {len(PALETTE)}, got {count}")
    require(all(len(view) == count for view in views), f"views: expected {count} images each")
    figure = plt.figure(figsize=(1.05 * count + 3.6, 3.1))
    grid = figure.add_gridspec(3, count + 1, width_ratios=[*[1] * count, 3.2])
    for r, (name, row) in enumerate(zip(("image", "view 0", "view 1"), (images, *views), strict=True)):
        for c, image in enumerate(row):
            ax = figure.add_subplot(grid[r, c])
            show_image(ax, image)
            ax.set_title(name, fontsize=9, pad=2, color=PALETTE[c])
    ax = figure.add_subplot(grid[:, count], aspect="equal")
    ax.add_patch(plt.Circle((0, 0), 1, fill=False, color=INK))
    for c in range(count):
        middle, apart = 2 * math.pi * (c + 0.2) / count, min(0.35, 1.2 / count)
        ends = [(math.cos(middle + side), math.sin(middle + side)) for side in (-apart, apart)]
        ax.scatter(*zip(*ends, strict=True), s=60, color=PALETTE[c], zorder=3)
        arrow = {"arrowstyle": "<|-|>", "color": PALETTE[c], "shrinkA": 6, "shrinkB": 6}
        ax.annotate("", *ends, arrowprops={**arrow, "connectionstyle": "arc3,rad=-0.5"})
    ax.text(0, 0.06, "pull: two views\nof one image", ha="center", va="bottom", fontsize=9)
    ax.text(0, -0.06, "push: views of\ndifferent images", ha="center", va="top", fontsize=9)
    ax.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25))
    ax.set_axis_off()
    return figure


def mosaic(images: Tensor, columns: int) -> Tensor:
    """(N, C, H, W) -> one picture (C, rows * H, columns * W), row by row. N must be a multiple of columns."""
    check_images("images", images)
    fits = columns >= 1 and len(images) % columns == 0
    require(fits, f"columns: expected a divisor of {len(images)} images, got {columns}")
    rows = images.unflatten(0, (-1, columns))
    return torch.cat(list(torch.cat(rows.unbind(1), dim=-1)), dim=-2)
