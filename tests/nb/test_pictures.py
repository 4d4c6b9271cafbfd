"""Pictures of many images: what is drawn where, and what is refused."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_hex

from sslcore.nb.pictures import RIGHT, WRONG, mosaic, plot_neighbours, plot_rows, plot_views


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def images(count, size=4, channels=1):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, channels, size, size), generator=generator, dtype=torch.uint8)


def test_mosaic_puts_images_row_by_row():
    picture = mosaic(images(6, 4, 3), 3)
    assert picture.shape == (3, 8, 12)
    assert torch.equal(picture[:, 4:8, 4:8], images(6, 4, 3)[4])
    assert torch.equal(picture[:, 0:4, 8:12], images(6, 4, 3)[2])


@pytest.mark.parametrize("columns", [0, 4])
def test_mosaic_refuses_columns_that_do_not_divide(columns):
    with pytest.raises(ValueError, match="columns"):
        mosaic(images(6), columns)


def test_rows_show_every_image_and_name():
    figure = plot_rows([images(3), images(3, 6, 3)], ["first", "second"])
    assert len(figure.axes) == 6 and all(len(ax.images) == 1 for ax in figure.axes)
    assert [figure.axes[0].get_ylabel(), figure.axes[3].get_ylabel()] == ["first", "second"]


@pytest.mark.parametrize("rows, names", [([], ()), ([images(3), images(2)], ()), ([images(3)], ("a", "b"))])
def test_rows_refuse_what_does_not_fit(rows, names):
    with pytest.raises(ValueError, match="expected"):
        plot_rows(rows, names)


def test_frames_tell_right_from_wrong():
    right = torch.tensor([[True, False, True], [False, False, True]])
    figure = plot_neighbours(images(2), torch.stack([images(3), images(3)]), right, ["bag", "coat"])
    frames = [ax.patches for ax in figure.axes]
    assert [len(patches) for patches in frames] == [0, 1, 1, 1] * 2
    drawn = [to_hex(patches[0].get_edgecolor()).upper() == RIGHT for patches in frames if patches]
    assert drawn == right.flatten().tolist() and RIGHT != WRONG
    assert [figure.axes[0].get_title(), figure.axes[4].get_title()] == ["bag", "coat"]


@pytest.mark.parametrize("right, names", [((2, 2), ()), ((3, 3), ()), ((2, 3), ("a",))])
def test_neighbours_refuse_what_does_not_fit(right, names):
    with pytest.raises(ValueError, match="expected"):
        plot_neighbours(images(2), torch.stack([images(3), images(3)]), torch.ones(right, dtype=torch.bool), names)


def test_views_show_image_and_both_views():
    figure = plot_views(images(3), [images(3), images(3)])
    assert sum(len(ax.images) for ax in figure.axes) == 9


@pytest.mark.parametrize("count, views", [(3, [3]), (3, [3, 2]), (7, [7, 7])])
def test_views_refuse_what_does_not_fit(count, views):
    with pytest.raises(ValueError, match="expected"):
        plot_views(images(count), [images(number) for number in views])
