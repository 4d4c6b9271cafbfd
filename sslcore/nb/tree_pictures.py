"""Dependency trees drawn over the images they come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from sslcore.nb.figures import show_image
from sslcore.nb.pictures import RIGHT, WRONG
from sslcore.validate import check_images, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INSIDE, OUTSIDE = RIGHT, WRONG


def draw_tree(ax, image: Tensor, parents: Tensor, grid: tuple[int, int], labels: Tensor | None = None) -> None:
    """One tree over one image (C, H, W): a line from every token to its parent, a white square at the root.

    parents: (N,), -1 for the root. labels: (N,) object of each token, 0 = background. Then tokens on objects have bold
    lines, green and solid where the parent lies on the same object, red and dashed where not; those of the background
    are thin. Without labels all lines are alike.
    """
    rows, columns = grid
    require(len(parents) == rows * columns, f"parents: expected {rows * columns}, got {tuple(parents.shape)}")
    show_image(ax, image)
    height, width = image.shape[-2] / rows, image.shape[-1] / columns
    for child, parent in enumerate(parents.tolist()):
        x, y = (child % columns + 0.5) * width - 0.5, (child // columns + 0.5) * height - 0.5
        if parent < 0:
            ax.plot(x, y, marker="s", color="white", markeredgecolor="black", markersize=6, zorder=4)
            continue
        ends = [x, (parent % columns + 0.5) * width - 0.5], [y, (parent // columns + 0.5) * height - 0.5]
        if labels is None or int(labels[child]) == 0:
            ax.plot(*ends, color="white", linewidth=0.5, alpha=0.4, zorder=2)
            continue
        inside = int(labels[child]) == int(labels[parent])
        style = dict(color=INSIDE, linestyle="-") if inside else dict(color=OUTSIDE, linestyle=(0, (2, 1)))
        ax.plot(*ends, color="black", linewidth=2.6, alpha=0.6, zorder=3)
        ax.plot(*ends, linewidth=1.6, zorder=3.5, **style)
        ax.plot(x, y, marker="o", color=style["color"], markersize=2.5, zorder=3.6)


def plot_trees(
    images: Tensor, trees: Mapping[str, Tensor], grid: tuple[int, int], labels: Tensor | None = None
) -> Figure:
    """One row of pictures for each name, trees[name] (B, N) over images (B, C, H, W); see draw_tree for the lines.

    labels: (B, N). Raises ValueError for no trees, or shapes that do not fit.
    """
    import matplotlib.pyplot as plt

    check_images("images", images)
    require(len(trees) >= 1, "trees: expected at least one row, got none")
    for name, parents in trees.items():
        shape = (len(images), grid[0] * grid[1])
        require(tuple(parents.shape) == shape, f"trees[{name!r}]: expected {shape}, got {tuple(parents.shape)}")
    count, side = len(images), min(1.8, 7.2 / len(images))
    figure, axes = plt.subplots(len(trees), count, figsize=(side * count, side * len(trees)), squeeze=False)
    for row, (name, parents) in zip(axes, trees.items(), strict=True):
        for column, ax in enumerate(row):
            draw_tree(ax, images[column], parents[column], grid, None if labels is None else labels[column])
        row[0].set_axis_on()
        row[0].set(xticks=[], yticks=[], ylabel=name)
        row[0].spines[:].set_visible(False)
    return figure
