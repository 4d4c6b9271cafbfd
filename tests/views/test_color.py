"""Colour: each operation equals torchvision's for the same factor, alone and in any order."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
import torchvision.transforms.v2.functional as tvf
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcore.views import color_jitter, grayscale, solarize
from sslcore.views.color import ORDERS, apply_mixed_jitter

THEIRS = (tvf.adjust_brightness, tvf.adjust_contrast, tvf.adjust_saturation, tvf.adjust_hue)
NEUTRAL = (1.0, 1.0, 1.0, 0.0)


def pictures(channels=3, seed=0):
    """Noise, plus the cases where hue is awkward: grey, black, white, and ties between channels."""
    images = torch.rand(8, channels, 9, 11, generator=torch.Generator().manual_seed(seed))
    images[1] = images[1, :1]
    images[2], images[3] = 0, 1
    images[4, 0] = images[4, -1]
    images[5] = images[5].round()
    return images


def reference(images, factors, order):
    views = []
    for image, factor in zip(images, factors, strict=True):
        for operation in order:
            image = THEIRS[operation](image, float(factor[operation]))
        views.append(image)
    return torch.stack(views)


def drawn_factors(count, seed=0):
    draws = torch.rand(count, 4, generator=torch.Generator().manual_seed(seed))
    return torch.cat([draws[:, :3] * 1.8, draws[:, 3:] - 0.5], dim=1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("operation", range(4))
def test_each_operation_matches_torchvision(operation, channels):
    images = pictures(channels)
    factors = torch.tensor(NEUTRAL).repeat(8, 1)
    factors[:, operation] = drawn_factors(8)[:, operation]
    expected = reference(images, factors, (operation,)) if channels == 3 or operation < 2 else images
    torch.testing.assert_close(color_jitter(images, *factors.T), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("order", list(permutations(range(4)))[::5])
def test_every_order_matches_torchvision(order):
    images, factors = pictures(), drawn_factors(8, 1)
    # rounding can move hue by a sector only where chroma is nearly nil, so values stay close
    views = color_jitter(images, *factors.T, order=order)
    torch.testing.assert_close(views, reference(images, factors, order), atol=1e-4, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_mixed_orders_equal_one_order_at_a_time(channels):
    images = torch.rand(48, channels, 6, 7, generator=torch.Generator().manual_seed(2))
    factors = drawn_factors(48, 2)
    order = torch.arange(48) % len(ORDERS)
    mixed = apply_mixed_jitter(images.clone(), factors, order)
    singly = torch.cat(
        [color_jitter(images[i : i + 1], *factors[i : i + 1].T, order=ORDERS[order[i]]) for i in range(len(images))]
    )
    torch.testing.assert_close(mixed, singly, atol=1e-4, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_neutral_factors_change_nothing_and_input_is_kept(channels):
    images = pictures(channels)
    before = images.clone()
    torch.testing.assert_close(color_jitter(images, *torch.tensor(NEUTRAL).repeat(8, 1).T), before, atol=1e-6, rtol=0)
    color_jitter(images, *drawn_factors(8).T)
    assert torch.equal(images, before)


def test_grayscale_and_solarize_match_torchvision_where_applied():
    images = pictures()
    apply = torch.arange(8) % 2 == 0
    for ours, theirs in (
        (grayscale, lambda x: tvf.rgb_to_grayscale(x, num_output_channels=3)),
        (solarize, lambda x: tvf.solarize(x, 0.5)),
    ):
        torch.testing.assert_close(ours(images), theirs(images), atol=1e-6, rtol=0)
        picked = ours(images, apply=apply)
        torch.testing.assert_close(picked[apply], theirs(images[apply]), atol=1e-6, rtol=0)
        assert torch.equal(picked[~apply], images[~apply])


@given(st.floats(-0.5, 0.5), st.floats(0, 3), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_output_stays_in_unit_range_and_full_turns_meet(hue, strength, seed):
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    one = torch.ones(2)
    views = color_jitter(images, one * strength, one * strength, one * strength, one * hue)
    assert views.min() >= 0 and views.max() <= 1
    ends = [color_jitter(images, one, one, one, one * end) for end in (-0.5, 0.5)]
    torch.testing.assert_close(*ends, atol=1e-4, rtol=0)


def test_bad_input_raises():
    images, one, zero = torch.rand(2, 3, 4, 4), torch.ones(2), torch.zeros(2)
    for bad in (images[0], images[:, :2], images[:0], images * float("nan"), images * 255):
        with pytest.raises(ValueError):
            color_jitter(bad, one, one, one, zero)
        with pytest.raises(ValueError):
            grayscale(bad)
        with pytest.raises(ValueError):
            solarize(bad)
    with pytest.raises(TypeError):
        color_jitter((images * 255).to(torch.uint8), one, one, one, zero)
    for arguments in (
        (one[:1], one, one, zero),
        (-one, one, one, zero),
        (one, one, one, one),
        (one * float("nan"),) * 4,
    ):
        with pytest.raises(ValueError, match="brightness|hue"):
            color_jitter(images, *arguments)
    with pytest.raises(ValueError, match="order"):
        color_jitter(images, one, one, one, zero, order=(0, 1, 2, 2))
    with pytest.raises(ValueError, match="apply"):
        grayscale(images, apply=one)
    with pytest.raises(ValueError, match="threshold"):
        solarize(images, threshold=1.5)
