"""Pictures of binding in depth: curves of many networks, heads, subspaces, edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sslcore.validate import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor


def plot_layer_curves(scores: Mapping[str, Sequence], names: Sequence[str], baseline: str, columns: int = 5) -> Figure:
    """One small panel a network: AUROC by layer with its interval, the baseline's curve in grey behind it.

    scores: name -> objects with auroc, low and high, one a layer (such as LayerCurve.scores).
    """
    import matplotlib.pyplot as plt

    require(baseline in scores, f"baseline: expected one of {', '.join(scores)}, got {baseline!r}")
    rows = -(-len(names) // columns)
    size = (7.2, 1.5 * rows + 0.5)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for ax in axes.flat[max(0, len(names) - columns) : len(names)]:
        ax.tick_params(labelbottom=True)  # the lowest panel of a column may not stand in the last row
    for ax, name in zip(axes.flat, names, strict=False):
        for shown, colour in ((baseline, "0.6"), (name, "C0")):
            low, middle, high = zip(*((s.low, s.auroc, s.high) for s in scores[shown]), strict=True)
            ax.plot(middle, color=colour, marker="o", markersize=3)
            ax.fill_between(range(len(middle)), low, high, alpha=0.25, color=colour)
        ax.axhline(0.5, color="0.5", linewidth=0.8)
        ax.set_xticks(range(len(scores[name])))
        ax.set_title(name, fontsize=8)
    figure.supylabel("same-object AUROC", fontsize=8)
    figure.supxlabel("layer (0 = embedding)", fontsize=8)
    return figure


def plot_heads(maps: Mapping[str, Mapping[str, Tensor]], limits: Mapping[str, float]) -> Figure:
    """Values of all heads: maps[label][network] is (blocks, heads); one row a label, one column a network."""
    import matplotlib.pyplot as plt

    networks = list(next(iter(maps.values())))
    figure, axes = plt.subplots(len(maps), len(networks), figsize=(7.2, 1.7 * len(maps)), squeeze=False)
    for row, (label, values) in enumerate(maps.items()):
        for column, name in enumerate(networks):
            ax, limit = axes[row, column], limits[label]
            image = ax.imshow(values[name], cmap="RdBu_r", vmin=-limit, vmax=limit)
            ax.set(xticks=range(values[name].shape[1]), yticks=range(values[name].shape[0]))
            ax.set_title(name if row == 0 else "")
        figure.colorbar(image, ax=axes[row], label=label)
    figure.supylabel("block", fontsize=8)
    axes[-1, 0].set_xlabel("head")
    return figure


def plot_subspace(
    eigenvalues: Tensor, curves: Mapping[str, Mapping[int, tuple[float, tuple[float, float]]]], whole: float
) -> Figure:
    """The spectrum of a probe beside the AUROC on its first k directions, or without them, and on random ones."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.7), width_ratios=(1, 1.8))
    left.plot(eigenvalues, ".", markersize=4)
    left.axhline(0, color="0.5", linewidth=0.8)
    left.set(xlabel="eigenvalue number", ylabel="eigenvalue")
    styles = {"keep": "C0-o", "remove": "C1:o", "remove, retrained": "C1-o", "random keep, retrained": "C2-^",
              "random remove, retrained": "C2--v"}  # fmt: skip
    for name, style in styles.items():
        ks, values = zip(*((k, value) for k, (value, _) in curves[name].items()), strict=True)
        right.plot(ks, values, style, markersize=4, label=name)
    right.axhline(whole, color="0.5", linewidth=0.8)
    right.set_xscale("log")
    right.set_xticks(ks, [str(k) for k in ks])
    right.minorticks_off()
    right.set(xlabel="directions k (grey line: the whole probe)", ylabel="same-object AUROC")
    right.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def plot_edits(ax, rises: Mapping[str, Mapping[str, Mapping[float, tuple[float, float, float]]]], ylabel: str):
    """Outcome of each edit by its share alpha: rises[kind][subspace][alpha] = (mean, low, high); solid lines for the
    first subspace, dotted ones for the second."""
    for number, (kind, spaces) in enumerate(rises.items()):
        for style, rows in zip(("-o", ":^"), spaces.values(), strict=False):
            middle, low, high = zip(*rows.values(), strict=True)
            label = kind if style == "-o" else None
            ax.plot(list(rows), middle, style, color=f"C{number}", markersize=3, label=label)
            ax.fill_between(list(rows), low, high, color=f"C{number}", alpha=0.15)
    ax.axhline(0, color="0.5", linewidth=0.8)
    ax.set(xlabel=f"alpha (dotted: {list(spaces)[1]})", ylabel=ylabel)
    ax.legend(fontsize=7)
    return ax

