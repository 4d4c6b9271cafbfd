"""Trees over images: one line an edge, and what is on the wrong side of an object looks different."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from sslcore.nb.tree_pictures import INSIDE, OUTSIDE, draw_tree, plot_trees


def _lines(ax, colour):
    return [line for line in ax.lines if line.get_color() == colour and len(line.get_xdata()) == 2]


def test_every_edge_is_drawn_in_its_colour():
    figure, ax = plt.subplots()
    labels = torch.tensor([0, 1, 1, 1, 0, 2])
    draw_tree(ax, torch.rand(3, 8, 12), torch.tensor([-1, 2, 0, 2, 0, 1]), (2, 3), labels)
    assert len(_lines(ax, INSIDE)) == 2 and len(_lines(ax, OUTSIDE)) == 2 and len(_lines(ax, "white")) == 1
    (edge,) = [line for line in _lines(ax, OUTSIDE) if line.get_xdata()[1] < 4]  # 2 -> 0, from right to left
    assert list(edge.get_xdata()) == [9.5, 1.5] and list(edge.get_ydata()) == [1.5, 1.5]
    assert _lines(ax, OUTSIDE)[0].get_linestyle() != _lines(ax, INSIDE)[0].get_linestyle()
    roots = [line for line in ax.lines if line.get_marker() == "s"]
    assert len(roots) == 1
    plt.close(figure)


def test_rows_carry_names():
    images, parents = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8), torch.tensor([[-1, 0, 0, 1]] * 2)
    figure = plot_trees(images, {"one": parents, "other": parents}, (2, 2))
    assert [ax.get_ylabel() for ax in figure.axes] == ["one", "", "other", ""]
    plt.close(figure)


def test_bad_input():
    images = torch.rand(2, 3, 8, 8)
    with pytest.raises(ValueError, match="at least one row"):
        plot_trees(images, {}, (2, 2))
    with pytest.raises(ValueError, match="trees"):
        plot_trees(images, {"a": torch.zeros(1, 4).long()}, (2, 2))
    with pytest.raises(ValueError, match="parents"):
        draw_tree(None, images[0], torch.zeros(3).long(), (2, 2))
