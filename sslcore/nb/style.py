"""One figure style: transparent background, mid-grey text, colours that colour-blind readers can tell apart."""

from __future__ import annotations

# Okabe and Ito's palette, reordered so that neighbours differ in lightness too; black is left out because
# it vanishes on a dark page, yellow because it vanishes on a light one.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
INK = "#808080"  # at least 3.9:1 against white and 5.3:1 against black

FULL, HALF, SQUARE = (7.2, 2.8), (3.5, 2.6), (3.2, 3.2)  # inches; a notebook column is about 7.2 wide


def use_style() -> None:
    """Apply the course's matplotlib settings to every figure drawn from now on."""
    import matplotlib
    from cycler import cycler

    matplotlib.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=PALETTE),
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "savefig.facecolor": "none",
            "legend.facecolor": "none",
            "figure.figsize": FULL,
            "figure.dpi": 96,
            "savefig.dpi": 96,
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 10,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "axes.edgecolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": INK,
            "grid.alpha": 0.25,
            "image.cmap": "viridis",
            "image.interpolation": "nearest",
            "lines.linewidth": 1.6,
        }
    )
