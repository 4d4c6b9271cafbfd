"""Sliders and clicks on top of functions that work without them.

Where there are no live widgets (plain Python, stored notebooks, no ipywidgets) each function draws its picture once,
with the given starting values. A patch is chosen by a click on the picture, or with a row and a column slider, which
arrow keys move.
"""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from sslcore.nb.click import axes_at, clickable_picture
from sslcore.nb.figures import attention_of, draw_attention, plot_same_object
from sslcore.validate import require


def widgets_available() -> bool:
    """True inside a Jupyter kernel with ipywidgets, unless SSLCORE_WIDGETS=0."""
    if os.environ.get("SSLCORE_WIDGETS") == "0" or importlib.util.find_spec("ipywidgets") is None:
        return False
    from IPython import get_ipython

    shell = get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def _start(spec: Any) -> Any:
    """The starting value of a slider specification."""
    if isinstance(spec, list):
        require(bool(spec), "slider: expected at least one choice, got an empty list")
        return spec[0]
    if isinstance(spec, tuple):
        require(len(spec) in (2, 3), f"slider: expected (low, high) or (low, high, step), got {spec}")
        low, high = spec[:2]
        return (low + high) // 2 if all(isinstance(number, int) for number in spec) else (low + high) / 2
    return spec


def _slider(name: str, spec: Any, start: Any):
    import ipywidgets

    common = {"description": name, "continuous_update": False}
    if isinstance(spec, list):
        return ipywidgets.Dropdown(options=spec, value=start, description=name)
    if isinstance(spec, bool):
        return ipywidgets.Checkbox(value=start, description=name)
    if isinstance(spec, tuple):
        whole = all(isinstance(number, int) for number in spec)
        step = spec[2] if len(spec) == 3 else (1 if whole else (spec[1] - spec[0]) / 50)
        kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
        return kind(value=start, min=spec[0], max=spec[1], step=step, **common)
    return ipywidgets.fixed(spec)


def png(figure) -> bytes:
    """A figure as PNG bytes; the figure is closed."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return buffer.getvalue()


def knob(
    function: Callable[..., Any],
    *,
    start: dict[str, Any] | None = None,
    click: Callable[[float, float], dict[str, Any]] | None = None,
    **sliders: Any,
) -> Any:
    """Call `function` with a slider for each keyword: (low, high[, step]), a list, True/False, or a constant.

    A returned figure is shown as an image that the sliders replace; printed text and other results go below.
    click: turns the (x, y) that was clicked, in the units of the axes there, into new values of sliders.
    Without live widgets the function is called once, with `start` (default: middle of a range, first choice), and its
    result is returned. Raises ValueError for a malformed slider.
    """
    values = {name: (start or {}).get(name, _start(spec)) for name, spec in sliders.items()}
    if not widgets_available():
        return function(**values)
    import ipywidgets
    from IPython.display import display
    from matplotlib.figure import Figure

    controls = {name: _slider(name, spec, values[name]) for name, spec in sliders.items()}
    picture, text = clickable_picture(), ipywidgets.Output()
    shown: list[Figure] = []
    moving: list[bool] = []

    def redraw(_change: Any = None) -> None:
        if moving:
            return
        text.clear_output(wait=True)
        with text:
            result = function(**{name: control.value for name, control in controls.items()})
            if isinstance(result, Figure):
                picture.value = png(result)
                shown[:] = [result]
            elif result is not None:
                display(result)

    def clicked(change: Any) -> None:
        place = axes_at(shown[0], *change["new"][:2]) if shown else None
        if place is None:
            return
        moving.append(True)  # several sliders move, one picture is drawn
        try:
            for name, value in click(*place).items():
                controls[name].value = value
        finally:
            moving.clear()
        redraw()

    visible = [control for control in controls.values() if isinstance(control, ipywidgets.DOMWidget)]
    for control in visible:
        control.observe(redraw, names="value")
    if click is not None and picture.has_trait("clicked"):
        picture.observe(clicked, names="clicked")
    redraw()
    display(ipywidgets.VBox([ipywidgets.HBox(visible), picture, text]))
    return None


def _patch_under(grid: tuple[int, int], images: Tensor) -> Callable[[float, float], dict[str, int]]:
    """Pixel (x, y) of an image -> {"row", "column"} of the patch there."""
    height, width = images.shape[-2] / grid[0], images.shape[-1] / grid[1]

    def patch(x: float, y: float) -> dict[str, int]:
        return {"row": min(int(y / height), grid[0] - 1), "column": min(int(x / width), grid[1] - 1)}

    return patch


def attention_explorer(backbone: nn.Module, images: Tensor, layer: int | None = None) -> Any:
    """Look through layers, heads and query patches of a backbone's attention on a few images (B, C, H, W).

    A click on a patch makes it the query; row -1 stands for the class token. Without live widgets: one figure, the
    class token's (or first patch's) mean attention in `layer` (default: the last). The network runs once; sliders and
    clicks only redraw.
    """
    attention = attention_of(backbone, images)
    depth, heads = len(attention.layers), attention.layers[0].shape[1]
    top = -1 if attention.num_prefix_tokens else 0

    def draw(layer: int, head: int | str, row: int, column: int):
        return draw_attention(images, attention, layer, head, "cls" if row < 0 else (row, column))

    return knob(
        draw,
        start={"layer": depth - 1 if layer is None else layer, "row": top, "column": 0},
        click=_patch_under(attention.grid, images),
        layer=(0, depth - 1),
        head=["mean", *range(heads)],
        row=(top, attention.grid[0] - 1),
        column=(0, attention.grid[1] - 1),
    )


def same_object_explorer(
    images: Tensor,
    scores: Tensor | Sequence[Tensor],
    grid: tuple[int, int],
    masks: Tensor | None = None,
    query: tuple[int, int] | None = None,
) -> Any:
    """Choose an image and click on a patch; see which patches a probe assigns to the same object.

    images: (B, C, H, W). scores: (B, N, N) same-object logits of a probe. masks: (B, H, W) instance ids, optional.
    Without live widgets: the first image with `query` (default: the middle patch).
    """
    require(len(scores) == len(images), f"scores: expected one (N, N) per image, got {len(scores)} for {len(images)}")
    row, column = query or (grid[0] // 2, grid[1] // 2)

    def draw(image: int, row: int, column: int):
        mask = None if masks is None else masks[image]
        return plot_same_object(images[image], scores[image], (row, column), grid, mask)

    return knob(
        draw,
        start={"image": 0, "row": row, "column": column},
        click=_patch_under(grid, images),
        image=(0, len(images) - 1),
        row=(0, grid[0] - 1),
        column=(0, grid[1] - 1),
    )
