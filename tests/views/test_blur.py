"""Blur: torchvision's kernel for each image's own width, constants kept."""

from __future__ import annotations

import pytest
import torch
import torchvision.transforms.v2.functional as tvf

from sslcore.views import gaussian_blur


@pytest.mark.parametrize(("height", "width", "kernel"), [(16, 16, 3), (33, 20, 7), (5, 9, 9), (64, 64, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_matches_torchvision_image_by_image(channels, height, width, kernel):
    images = torch.rand(4, channels, height, width, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 0.7, 1.3, 5.0])
    expected = [tvf.gaussian_blur(x, [kernel, kernel], [float(s)] * 2) for x, s in zip(images, sigma, strict=True)]
    torch.testing.assert_close(gaussian_blur(images, sigma, kernel), torch.stack(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("side", "kernel"), [(20, 3), (28, 3), (64, 7), (96, 9), (224, 23)])
def test_default_kernel_is_a_tenth_of_the_side(side, kernel):
    image, sigma = torch.rand(1, 1, side, side), torch.tensor([2.0])
    assert torch.equal(gaussian_blur(image, sigma), gaussian_blur(image, sigma, kernel))


def test_constants_are_kept_and_tiny_sigma_is_identity():
    flat = torch.full((2, 3, 12, 12), 0.3)
    torch.testing.assert_close(gaussian_blur(flat, torch.tensor([0.5, 2.0]), 5), flat, atol=1e-6, rtol=0)
    images = torch.rand(2, 3, 12, 12)
    torch.testing.assert_close(gaussian_blur(images, torch.full((2,), 1e-3), 5), images)


def test_bad_input_raises():
    images, sigma = torch.rand(2, 3, 8, 8), torch.ones(2)
    for bad in (images[0], images[:, :2], images[:0], images * float("nan"), images + 1):
        with pytest.raises(ValueError):
            gaussian_blur(bad, sigma)
    for bad in (sigma[:1], sigma * 0, -sigma, sigma * float("nan"), torch.ones(2, 1)):
        with pytest.raises(ValueError, match="sigma"):
            gaussian_blur(images, bad)
    for kernel in (0, 2, 17):
        with pytest.raises(ValueError, match="kernel_size"):
            gaussian_blur(images, sigma, kernel)
    with pytest.raises(TypeError):
        gaussian_blur((images * 255).to(torch.uint8), sigma)
