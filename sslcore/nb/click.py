"""A picture that says where it was clicked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCRIPT = """
export default {
  render({ model, el }) {
    const image = document.createElement("img");
    image.style.cursor = "crosshair";
    image.style.maxWidth = "100%";
    let address = null;
    const show = () => {
      if (address) URL.revokeObjectURL(address);
      address = URL.createObjectURL(new Blob([model.get("value")], { type: "image/png" }));
      image.src = address;
    };
    model.on("change:value", show);
    let number = 0;  // two clicks at one place are two changes
    image.addEventListener("click", (event) => {
      const box = image.getBoundingClientRect();
      const place = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      model.set("clicked", [...place, ++number]);
      model.save_changes();
    });
    show();
    el.appendChild(image);
    return () => { if (address) URL.revokeObjectURL(address); };
  },
};
"""


def clickable_picture() -> Any:
    """A widget with `value`, PNG bytes, and `clicked`, [x, y, count]: parts of its width and height from the top left.

    Without anywidget it is a plain ipywidgets.Image, which has no `clicked`.
    """
    try:
        import anywidget
        import traitlets
    except ImportError:
        import ipywidgets

        return ipywidgets.Image(format="png")

    class Picture(anywidget.AnyWidget):
        _esm = SCRIPT
        value = traitlets.Bytes(b"").tag(sync=True)
        clicked = traitlets.List([]).tag(sync=True)

    return Picture()


def axes_at(figure: Figure, x: float, y: float) -> tuple[float, float] | None:
    """Data coordinates under a point of a drawn figure, or None between its axes.

    x, y: parts of the figure's width and height from the top left, as a browser counts.
    """
    point = figure.transFigure.transform((x, 1 - y))
    for axes in figure.axes:
        if axes.bbox.contains(*point):
            across, down = axes.transData.inverted().transform(point)
            return float(across), float(down)
    return None
