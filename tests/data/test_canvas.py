"""The canvas keeps each garment whole, puts it where it says, and gives the same picture for the same seed."""

import pytest
import torch

from sslcore.data import ImageSet, load, place_on_canvas


def square(count=6, side=4, value=200, channels=1):
    return ImageSet("square", "train", torch.full((count, channels, side, side), value, dtype=torch.uint8))


def test_garment_lies_whole_at_its_offset():
    made = place_on_canvas(square(50), size=9, noise=0.0, seed=3)
    for image, (top, left) in zip(made.images[:, 0], made.extras["offset"].tolist(), strict=True):
        inside = image[top : top + 4, left : left + 4]
        assert (inside > 0).all() and (image > 0).sum() == 16
        assert inside.unique().numel() == 1 and 99 <= int(inside[0, 0]) <= 240


def test_offsets_reach_every_place_and_differ_within_a_batch():
    offsets = place_on_canvas(square(400), size=7, seed=0).extras["offset"]
    assert offsets.unique().tolist() == [0, 1, 2, 3] and offsets.unique(dim=0).shape[0] == 16


def test_same_seed_same_canvas_other_seed_other():
    first, again, other = (place_on_canvas(square(), 9, seed=seed).images for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_loader_keeps_labels_and_splits():
    made, plain = load("fashion_canvas", "test"), load("fashion_mnist", "test")
    assert made.images.shape == (1000, 1, 40, 40) and torch.equal(made.labels, plain.labels)


@pytest.mark.parametrize("arguments", [{"size": 3}, {"noise": -0.1}])
def test_bad_settings(arguments):
    with pytest.raises(ValueError, match="expected"):
        place_on_canvas(square(), **arguments)


def test_colour_is_refused():
    with pytest.raises(ValueError, match="1 channel"):
        place_on_canvas(square(channels=3), size=9)
