"""Pixel scales: normalize and denormalize undo each other and refuse bad input."""

from __future__ import annotations

import pytest
import torch

from sslcore.views import denormalize, normalize


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.25), ((0.5, 0.4, 0.3), (0.2, 0.3, 0.1)), (0.45, (0.2, 0.2, 0.3))])
def test_round_trip_and_definition(mean, std):
    images = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8)
    normal = normalize(images, mean, std)
    expected = (images.double() / 255 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    torch.testing.assert_close(normal, expected.float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(normalize(images / 255, mean, std), normal, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(denormalize(normal, mean, std) * 255, images.float(), atol=1e-3, rtol=0)


def test_input_is_left_alone():
    images = torch.rand(2, 1, 3, 3)
    before = images.clone()
    normalize(images)
    denormalize(images)
    assert torch.equal(images, before)


def test_bad_input_raises():
    images = torch.rand(2, 3, 4, 4)
    for bad in (images[0], images[:, :2], images[:0], images * float("nan")):
        with pytest.raises(ValueError):
            normalize(bad)
    with pytest.raises(TypeError):
        normalize(images.long())
    with pytest.raises(ValueError, match="std"):
        normalize(images, 0.5, 0.0)
    with pytest.raises(ValueError, match="mean"):
        normalize(images, (0.5, 0.5), 0.25)
    with pytest.raises(TypeError):
        denormalize(images.to(torch.uint8))
