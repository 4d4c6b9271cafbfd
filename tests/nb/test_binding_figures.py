"""Pictures of binding: every panel, curve and interval that was given is drawn."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch

from sslcore.nb.binding_figures import plot_edits, plot_heads, plot_layer_curves, plot_subspace
from sslcore.probes.same_object.report import Score


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_a_panel_for_every_network():
    scores = {name: [Score(0.5 + 0.1 * i, 0.4, 0.9, 0.6) for i in range(3)] for name in "abcdefg"}
    figure = plot_layer_curves(scores, list("abcdef"), "g")
    drawn = [ax for ax in figure.axes if ax.axison]
    assert [ax.get_title() for ax in drawn] == list("abcdef")
    assert list(drawn[0].lines[1].get_ydata()) == pytest.approx([0.5, 0.6, 0.7])
    with pytest.raises(ValueError, match="baseline"):
        plot_layer_curves(scores, ["a"], "z")


def test_heads_subspaces_and_edits():
    figure = plot_heads({"r": {"a": torch.zeros(4, 3), "b": torch.ones(4, 3)}}, {"r": 1.0})
    assert [ax.get_title() for ax in figure.axes[:2]] == ["a", "b"]
    rows = {k: (0.7, (0.6, 0.8)) for k in (2, 4)}
    names = ("keep", "remove", "remove, retrained", "random keep, retrained", "random remove, retrained")
    figure = plot_subspace(torch.tensor([2.0, -1.0]), dict.fromkeys(names, rows), 0.75)
    assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == list(names)
    ax = plt.figure().add_subplot()
    rows = {"probe": {0.0: (0, 0, 0), 1.0: (0.2, 0.1, 0.3)}, "random0": {0.0: (0, 0, 0), 1.0: (0.1, 0, 0.2)}}
    plot_edits(ax, {"shuffle": rows}, "rise")
    assert list(ax.lines[0].get_ydata()) == [0, 0.2] and "random0" in ax.get_xlabel()
