"""A click on a picture finds its axes, moves the sliders, and draws once."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch

from sslcore.nb import knob, plot_same_object, same_object_explorer
from sslcore.nb.click import axes_at, clickable_picture
from sslcore.nb.widgets import png


@pytest.fixture
def displayed(monkeypatch):
    """What was displayed, with live widgets switched on."""
    pytest.importorskip("anywidget")
    shown = []
    monkeypatch.setattr("sslcore.nb.widgets.widgets_available", lambda: True)
    monkeypatch.setattr("IPython.display.display", shown.append)
    return shown


def two_pictures():
    figure, axes = plt.subplots(1, 2, figsize=(4, 2))
    for ax in axes:
        ax.imshow([[0.0]], extent=(0, 8, 8, 0))
    return figure


def test_axes_under_a_point():
    figure = two_pictures()
    png(figure)  # a figure is closed once it is shown; its places are still known
    for ax in figure.axes:
        box = ax.get_position()
        x = box.x0 + 0.25 * box.width
        y = 1 - (box.y1 - 0.75 * box.height)
        assert axes_at(figure, x, y) == pytest.approx((2.0, 6.0), abs=0.05)
    assert axes_at(figure, 0.0, 0.0) is None


def test_a_click_moves_several_sliders_and_draws_once(displayed):
    calls = []

    def draw(row, column):
        calls.append((row, column))
        return two_pictures()

    knob(draw, click=lambda x, y: {"row": int(y), "column": int(x)}, row=(0, 7), column=(0, 7))
    picture = displayed[-1].children[1]
    before, figure = picture.value, two_pictures()
    png(figure)
    box = figure.axes[1].get_position()
    picture.clicked = [box.x0 + box.width * 5.5 / 8, 1 - (box.y1 - box.height * 2.5 / 8), 1]
    assert calls[1:] == [(2, 5)]
    assert before.startswith(b"\x89PNG") and picture.value.startswith(b"\x89PNG")
    picture.clicked = [0.0, 0.0, 2]  # the margin: nothing to choose
    assert len(calls) == 2
    displayed[-1].children[0].children[0].value = 4
    assert calls[2:] == [(4, 5)]


def test_the_explorer_answers_with_the_patch_that_was_clicked(displayed):
    images, scores = torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.eye(16).expand(2, 16, 16)
    same_object_explorer(images, scores, (4, 4))
    sliders, picture, _ = displayed[-1].children
    values = {slider.description: slider for slider in sliders.children}
    drawn = plot_same_object(images[0], scores[0], (0, 0), (4, 4))
    png(drawn)
    for count, ax in enumerate(drawn.axes):
        box = ax.get_position()
        picture.clicked = [box.x0 + box.width * (count + 0.5) / 4, 1 - (box.y1 - box.height * 2.5 / 4), count]
        assert (values["row"].value, values["column"].value) == (2, count)


def test_without_anywidget_the_picture_is_plain(monkeypatch):
    ipywidgets = pytest.importorskip("ipywidgets")
    monkeypatch.setitem(__import__("sys").modules, "anywidget", None)
    assert isinstance(clickable_picture(), ipywidgets.Image)
