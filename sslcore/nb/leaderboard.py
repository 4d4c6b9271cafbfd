"""Pictures of a board: a table to sort, columns against each other, binding by layer, how alike networks are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sslcore.bench.columns import COLUMNS, GROUPS
from sslcore.bench.relations import Relation
from sslcore.nb.style import INK
from sslcore.nb.widgets import knob
from sslcore.validate import require, unknown

if TYPE_CHECKING:
    from sslcore.bench.board import Leaderboard

MARKERS = "osD^vP*X<>hp"


@dataclass(frozen=True)
class BoardTable:
    """A table that shows itself in a notebook, and as aligned text elsewhere."""

    text: str
    markdown: str

    def __repr__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return self.markdown


def board_table(board: Leaderboard, group: str = "all", by: str = "binding", descending: bool = True) -> BoardTable:
    """The columns of one group ("all" for every one), rows sorted by any column."""
    if group not in (*GROUPS, "all"):
        unknown("group of columns", group, (*GROUPS, "all"))
    chosen = [key for key, column in COLUMNS.items() if group in ("all", column.group)]
    chosen = chosen if by in chosen else [by, *chosen]
    return BoardTable(*(board.table(by, descending, chosen, style) for style in ("text", "markdown")))


def sortable_table(board: Leaderboard, by: str = "binding") -> Any:
    """board_table with a choice of columns and of the one to sort by; without live widgets sorted by `by`."""
    have = [key for key in COLUMNS if any(key in row for row in board.rows.values())]
    return knob(
        lambda group, by, descending: board_table(board, group, by, descending),
        start={"group": "all", "by": by, "descending": True},
        group=["all", *GROUPS],
        by=have,
        descending=True,
    )


def markers(board: Leaderboard) -> dict[str, tuple[str, str]]:
    """A marker and a colour for each row, the same in every picture."""
    trained = {name: (MARKERS[i % len(MARKERS)], f"C{i % 6}") for i, name in enumerate(board.networks)}
    return trained | dict.fromkeys(board.controls, ("o", INK)) | {"pixels": ("s", INK)}


def scatter(board: Leaderboard, x: str = "binding", y: str = "knn_photos") -> Any:
    """One column against another, one mark a network; grey and hollow: untrained. The title is the rank correlation."""
    import matplotlib.pyplot as plt

    names = [*board.networks, *board.controls]
    first, second = board.column(x, names), board.column(y, names)
    figure, ax = plt.subplots(figsize=(6.4, 3.4))
    for name, (marker, colour) in markers(board).items():
        if name in first and name in second:
            hollow = name in board.controls
            style = {"marker": marker, "color": colour, "linestyle": "none", "label": name, "markersize": 7}
            ax.plot(first[name], second[name], **style, fillstyle="none" if hollow else "full")
            row = board.rows[name]
            if x == "binding" and "binding_low" in row:
                ax.plot([row["binding_low"], row["binding_high"]], [second[name]] * 2, color=colour, linewidth=0.8)
    ax.set(xlabel=label(x), ylabel=label(y))
    if x != y and board.comparable(x, y):
        ax.set_title(f"{board.relation(x, y)}", fontsize=9)
    figure.legend(loc="outside right center", fontsize=8)
    return figure


def label(key: str) -> str:
    """A column's title for an axis."""
    return {"binding": "binding (same-object AUROC)"}.get(key, COLUMNS[key].title if key in COLUMNS else key)


def scatter_explorer(board: Leaderboard, x: str = "binding", y: str = "knn_photos") -> Any:
    """scatter with a choice of both columns; without live widgets one figure."""
    have = [key for key in COLUMNS if len(board.column(key)) > 1] if board.networks else []
    return knob(lambda x, y: scatter(board, x, y), start={"x": x, "y": y}, x=have, y=have)


def relations_figure(relations: dict[str, Relation], title: str) -> Any:
    """Rank correlations with their intervals, one a line; filled where p < 0.05."""
    import matplotlib.pyplot as plt

    require(len(relations) > 0, "relations: expected at least one, got none")
    figure, ax = plt.subplots(figsize=(6.4, 0.9 + 0.32 * len(relations)))
    for place, (_name, relation) in enumerate(reversed(relations.items())):
        ax.plot([relation.low, relation.high], [place, place], color="C0", linewidth=1.2)
        ax.plot(relation.rho, place, "o", color="C0", fillstyle="full" if relation.p < 0.05 else "none")
        ax.annotate(f"p = {relation.p:.2f}", (1.05, place), va="center", fontsize=8, annotation_clip=False)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(range(len(relations)), list(reversed(relations)))
    ax.set(xlim=(-1, 1), ylim=(-0.5, len(relations) - 0.5), xlabel="Spearman's rho over networks", title=title)
    return figure


def ranks_figure(board: Leaderboard, keys: Sequence[str]) -> Any:
    """Place of every trained network in every column, 1 = best; rows ordered by their mean place."""
    import matplotlib.pyplot as plt

    require(len(keys) > 0, "keys: expected at least one column, got none")
    places: dict[str, list[float]] = {name: [] for name in board.networks}
    for key in keys:
        column = board.column(key)
        require(len(column) == len(places), f"{key}: expected a number for every network, got {sorted(column)}")
        sign = -1 if COLUMNS[key].better < 0 else 1
        for name in places:
            better = sum(sign * other > sign * column[name] for other in column.values())
            equal = sum(other == column[name] for other in column.values())
            places[name].append(1 + better + (equal - 1) / 2)
    names = sorted(places, key=lambda name: sum(places[name]))
    figure, ax = plt.subplots(figsize=(7.2, 1.3 + 0.3 * len(names)))
    middle = (len(names) + 1) / 2
    ax.imshow([places[name] for name in names], cmap="viridis_r", aspect="auto", vmin=1, vmax=len(names))
    for y, name in enumerate(names):
        for x, place in enumerate(places[name]):
            ink = "black" if place < middle else "white"
            ax.text(x, y, f"{place:g}", ha="center", va="center", fontsize=9, color=ink)
    ax.set_yticks(range(len(names)), names)
    ax.set_xticks(range(len(keys)), [COLUMNS[key].title for key in keys], rotation=35, ha="right", fontsize=8)
    ax.tick_params(length=0)
    return figure


def _heat(ax: Any, values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], low: float) -> None:
    picture = ax.imshow(values, vmin=low, vmax=max(max(row) for row in values), aspect="auto")
    middle = (picture.norm.vmin + picture.norm.vmax) / 2
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            ink = "black" if value > middle else "white"
            ax.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=8, color=ink)
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.set_xticks(range(len(columns)), columns, fontsize=8)
    ax.tick_params(length=0)


def binding_by_layer(board: Leaderboard) -> Any:
    """Same-object AUROC of every network at each relative depth that all of one depth share; 0 = embedding."""
    import matplotlib.pyplot as plt

    groups: dict[tuple, list[str]] = {}
    for name in board.sorted_names("binding"):
        if name in board.curves:
            groups.setdefault(tuple(board.curves[name].layers), []).append(name)
    require(len(groups) > 0, "board: expected a network with a binding curve, got none")
    heights = [len(names) for names in groups.values()]
    size = (6.4, 0.5 + 0.3 * sum(heights) + 0.5 * len(groups))
    figure, axes = plt.subplots(len(groups), 1, figsize=size, squeeze=False, height_ratios=heights)
    for ax, (layers, names) in zip(axes[:, 0], groups.items(), strict=True):
        values = [[score.auroc for score in board.curves[name].layers.values()] for name in names]
        _heat(ax, values, names, [str(layer) for layer in layers], 0.5)
    ax.set_xlabel("layer (0 = embedding)")
    return figure


def cka_figure(board: Leaderboard) -> Any:
    """How alike the networks' features of the same photos are: unbiased CKA, 1 = the same up to rotation and scale."""
    import matplotlib.pyplot as plt
    import torch

    # Neighbours should be alike: order along the leading direction of the matrix once its mean is gone.
    centred = board.cka - board.cka.mean(0) - board.cka.mean(1, keepdim=True) + board.cka.mean()
    order = torch.linalg.eigh((centred + centred.T) / 2)[1][:, -1].argsort().tolist()
    names = [board.cka_names[index] for index in order]
    values = board.cka[order][:, order].clamp_min(0).tolist()
    side = 1.4 + 0.42 * len(names)
    figure, ax = plt.subplots(figsize=(min(side + 0.6, 7.2), min(side, 6.6)))
    _heat(ax, values, names, names, 0.0)
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    return figure
