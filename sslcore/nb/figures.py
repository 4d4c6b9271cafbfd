"""The two pictures of the course's read-outs: what a query attends to, and what belongs to its object."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from sslcore.validate import check_images, check_rank, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show_image(ax, image: Tensor) -> None:
    """Draw one (C, H, W) image, uint8 or float in [0, 1], without axes."""
    pixels = image.detach().cpu()
    pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.clamp(0, 1)
    colours = "gray" if pixels.shape[0] == 1 else None
    ax.imshow(pixels.permute(1, 2, 0).squeeze(-1).numpy(), cmap=colours, vmin=0, vmax=1)
    ax.set_axis_off()


def _heat(ax, image: Tensor, values: Tensor, title: str, limits: tuple[float, float] | None = None) -> None:
    height, width = image.shape[-2:]
    low, high = limits or (float(values.min()), float(values.max()))
    ax.imshow(values.cpu().numpy(), extent=(0, width, height, 0), vmin=low, vmax=high)
    ax.set_title(title)
    ax.set_axis_off()


def _mark(ax, query: tuple[int, int], grid: tuple[int, int], image: Tensor) -> None:
    """Outline the query patch."""
    from matplotlib.patches import Rectangle

    height, width = image.shape[-2] / grid[0], image.shape[-1] / grid[1]
    corner = (query[1] * width, query[0] * height)
    ax.add_patch(Rectangle(corner, width, height, fill=False, edgecolor="#D55E00", linewidth=2))


def _check_query(query: tuple[int, int], grid: tuple[int, int]) -> None:
    good = len(query) == 2 and 0 <= query[0] < grid[0] and 0 <= query[1] < grid[1]
    require(good, f"query: expected (row, column) inside the {grid[0]} x {grid[1]} grid of patches, got {query}")


class Attention(NamedTuple):
    """All attention of a backbone on some images: one (B, heads, P + N, P + N) a layer; P prefix tokens, N = h * w."""

    layers: list[Tensor]
    grid: tuple[int, int]
    num_prefix_tokens: int

    def of_query(self, layer: int, query: str | tuple[int, int]) -> Tensor:
        """What one token attends to: (B, heads, h, w). query: "cls", or (row, column) of a patch."""
        depth = len(self.layers)
        require(-depth <= layer < depth, f"layer: expected one of {depth} layers, got {layer}")
        if query == "cls":
            require(self.num_prefix_tokens > 0, "query: this backbone has no class token; choose a patch (row, column)")
            token = 0
        else:
            _check_query(query, self.grid)
            token = self.num_prefix_tokens + query[0] * self.grid[1] + query[1]
        return self.layers[layer][:, :, token, self.num_prefix_tokens :].unflatten(-1, self.grid)


@torch.no_grad()
def attention_of(backbone: nn.Module, images: Tensor) -> Attention:
    """Run a backbone on images (B, C, H, W), uint8, and keep every layer's attention on the CPU.

    Raises ValueError for a backbone without attention.
    """
    from sslcore.probes import frozen
    from sslcore.views import normalize

    check_images("images", images)
    prepare = getattr(backbone, "preprocess", None) or normalize
    device = next(backbone.parameters()).device
    with frozen(backbone):
        tokens = backbone(prepare(images.to(device)), return_attention=True)
    return Attention([layer.cpu() for layer in tokens.attentions], tuple(tokens.grid), tokens.num_prefix_tokens)


def draw_attention(
    images: Tensor, attention: Attention, layer: int, head: int | str, query: str | tuple[int, int]
) -> Figure:
    """The picture of plot_attention, from attention computed before."""
    import matplotlib.pyplot as plt

    maps = attention.of_query(layer, query)
    heads = maps.shape[1]
    require(head == "mean" or head in range(heads), f'head: expected "mean" or 0..{heads - 1}, got {head!r}')
    chosen = maps.mean(dim=1) if head == "mean" else maps[:, head]
    count = len(images)
    figure, axes = plt.subplots(2, count, figsize=(1.8 * count, 3.8), squeeze=False)
    for column in range(count):
        show_image(axes[0, column], images[column])
        if query != "cls":
            _mark(axes[0, column], query, attention.grid, images[column])
        _heat(axes[1, column], images[column], chosen[column], f"peak {float(chosen[column].max()):.2f}")
    figure.suptitle(f"layer {layer}, head {head}, query {query}")
    return figure


def plot_attention(
    backbone: nn.Module,
    images: Tensor,
    layer: int = -1,
    head: int | str = "mean",
    query: str | tuple[int, int] = "cls",
) -> Figure:
    """Each image (B, C, H, W) beside what the query attends to.

    head: a number, or "mean" over the heads. query: "cls", or (row, column) of a patch. Every map has its own colour
    range: attention sums to one, so its peak depends on how it is spread. Raises ValueError for a backbone without
    attention, a layer, head or patch that is not there, or "cls" without a class token.
    """
    return draw_attention(images, attention_of(backbone, images), layer, head, query)


def plot_same_object(
    image: Tensor, scores: Tensor, query: tuple[int, int], grid: tuple[int, int], mask: Tensor | None = None
) -> Figure:
    """An image, the predicted same-object map of one patch, and, if given, the true one.

    image: (C, H, W). scores: (N, N) logits or probabilities that two patches belong to one object, N = rows x columns
    of `grid`; logits (any value outside [0, 1]) go through a sigmoid. mask: (H, W) instance ids.
    """
    import matplotlib.pyplot as plt

    check_rank("scores", scores, 2)
    patches = grid[0] * grid[1]
    require(scores.shape == (patches, patches), f"scores: expected ({patches}, {patches}), got {tuple(scores.shape)}")
    _check_query(query, grid)
    logits = bool((scores < 0).any() or (scores > 1).any())
    probabilities = scores.detach().float().sigmoid() if logits else scores.detach().float()
    row = probabilities[query[0] * grid[1] + query[1]].reshape(grid)
    figure, axes = plt.subplots(1, 2 + (mask is not None), figsize=(2.3 * (2 + (mask is not None)), 2.5))
    show_image(axes[0], image)
    _mark(axes[0], query, grid, image)
    _heat(axes[1], image, row, "predicted: same object", (0.0, 1.0))
    _mark(axes[1], query, grid, image)
    if mask is not None:
        height, width = mask.shape
        centre = mask[int((query[0] + 0.5) * height / grid[0]), int((query[1] + 0.5) * width / grid[1])]
        _heat(axes[2], image, (mask == centre).float(), "true: same object", (0.0, 1.0))
        _mark(axes[2], query, grid, image)
    return figure
