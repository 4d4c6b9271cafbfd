"""Policies: the parameters follow their law, the pixels follow the parameters."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcore.views import (
    ViewPolicy,
    byol_policies,
    color_jitter,
    crop_masks,
    crop_resize,
    dino_policies,
    gaussian_blur,
    gentle_policy,
    grayscale,
    mae_policy,
    multicrop,
    normalize,
    simclr_policy,
    solarize,
    swav_policies,
)
from sslcore.views.blur import default_kernel_size
from sslcore.views.color import ORDERS

IDENTITY = ViewPolicy(
    16, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=(0.0,) * 4, jitter_probability=0.0, grayscale=0.0
)
EVERYTHING = ViewPolicy(16, scale=(0.1, 1.0), jitter=(0.8, 0.8, 0.8, 0.2), blur=0.5, solarize=0.3)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(count=40, channels=3, side=20):
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=seeded(9))


@pytest.mark.parametrize("channels", [1, 3])
def test_identity_policy_returns_the_normalised_image(channels):
    images = batch(channels=channels, side=16)
    torch.testing.assert_close(IDENTITY(images, seeded()), normalize(images), atol=1e-5, rtol=0)


def test_zero_strength_jitter_changes_nothing():
    images = batch(side=16)
    policy = dataclasses.replace(IDENTITY, jitter=(0.0, 0.0, 0.0, 1e-7), jitter_probability=1.0)
    torch.testing.assert_close(policy(images, seeded()), normalize(images), atol=1e-4, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_render_is_the_public_operations_in_order(channels):
    images = batch(channels=channels)
    drawn = EVERYTHING.sample(40, 20, 20, seeded())
    expected = []
    for i in range(40):
        view = crop_resize(images[i : i + 1], drawn.crops[i : i + 1], 16, drawn.flip[i : i + 1])
        if drawn.jitter[i]:
            view = color_jitter(view.clamp(0, 1), *drawn.factors[i : i + 1].T, order=ORDERS[drawn.order[i]])
        if drawn.grayscale[i] and channels == 3:
            view = grayscale(view)
        if drawn.blur[i]:
            view = gaussian_blur(view, drawn.sigma[i : i + 1], default_kernel_size(16))
        if drawn.solarize[i]:
            view = solarize(view)
        expected.append(normalize(view))
    expected = torch.cat(expected)
    views = EVERYTHING.render(images, drawn)
    # a value within rounding of the solarize threshold may fall on either side of it
    close = (views - expected).abs() < 1e-3
    assert close.float().mean() > 0.9999
    assert views.is_contiguous() and views.dtype == torch.float32


@pytest.mark.parametrize("channels", [1, 3])
def test_the_path_without_host_decisions_gives_the_same_views(channels):
    """Accelerators take the whole-batch path; run it here, on the CPU."""
    images = batch(channels=channels)
    drawn = EVERYTHING.sample(40, 20, 20, seeded())
    close = (EVERYTHING._render_whole(images, drawn) - EVERYTHING.render(images, drawn)).abs() < 1e-3
    assert close.float().mean() > 0.9999


def test_an_image_does_not_depend_on_its_neighbours():
    images = batch()
    drawn = EVERYTHING.sample(40, 20, 20, seeded())
    some = torch.tensor([31, 4, 17])
    alone = EVERYTHING.render(images[some], type(drawn)(*(p[some] for p in drawn)))
    torch.testing.assert_close(alone, EVERYTHING.render(images, drawn)[some], atol=1e-5, rtol=0)


def test_seed_decides_and_images_differ():
    images = batch(1).expand(32, -1, -1, -1)
    views = EVERYTHING(images, seeded(1))
    assert torch.equal(views, EVERYTHING(images, seeded(1)))
    assert not torch.equal(views, EVERYTHING(images, seeded(2)))
    assert len(views.flatten(1).unique(dim=0)) == 32
    torch.manual_seed(3)
    first = EVERYTHING(images)
    torch.manual_seed(3)
    assert torch.equal(first, EVERYTHING(images))


def test_parameters_follow_their_law():
    """Shares within five binomial standard errors, factors uniform (Kolmogorov-Smirnov)."""
    count = 6000
    policy = ViewPolicy(16, jitter=(0.4, 0.8, 1.5, 0.1), blur=0.5, solarize=0.1, flip=0.3)
    drawn = policy.sample(count, 32, 32, seeded())
    for flags, share in (
        (drawn.flip, 0.3),
        (drawn.jitter, 0.8),
        (drawn.grayscale, 0.2),
        (drawn.blur, 0.5),
        (drawn.solarize, 0.1),
    ):
        assert abs(float(flags.float().mean()) - share) < 5 * (share * (1 - share) / count) ** 0.5
    ranges = ((0.6, 1.4), (0.2, 1.8), (0.0, 2.5), (-0.1, 0.1))
    columns = [(drawn.factors[drawn.jitter, i], limits) for i, limits in enumerate(ranges)]
    for values, (low, high) in [*columns, (drawn.sigma, (0.1, 2.0))]:
        quantile = (values.sort().values - low) / (high - low)
        assert quantile.min() >= -1e-6 and quantile.max() <= 1 + 1e-6
        assert (quantile - torch.linspace(0, 1, len(values))).abs().max() < 0.03
    assert (drawn.factors[~drawn.jitter] == torch.tensor([1.0, 1.0, 1.0, 0.0])).all()
    orders = Counter(drawn.order.tolist())
    assert set(orders) == set(range(24))
    assert max(abs(n - count / 24) for n in orders.values()) < 5 * (count / 24) ** 0.5
    table = torch.stack([drawn.flip, drawn.jitter, drawn.grayscale, drawn.blur, drawn.solarize]).float()
    assert (torch.corrcoef(table) - torch.eye(5)).abs().max() < 0.07


def test_parameters_carry_masks_along():
    masks = torch.zeros(6, 20, 20, dtype=torch.uint8)
    masks[:, 4:13, 2:9] = 1
    images = (masks * 255).unsqueeze(1)
    policy = dataclasses.replace(IDENTITY, size=40, scale=(0.4, 1.0), flip=0.5, mean=0.0, std=1.0)
    drawn = policy.sample(6, 20, 20, seeded())
    views = policy.render(images, drawn).squeeze(1)
    labels = crop_masks(masks, drawn.crops, policy.size, drawn.flip).bool()
    sure = (views - 0.5).abs() > 0.26
    assert torch.equal(labels[sure], views[sure] > 0.5)


def test_float_images_give_the_same_views_as_uint8():
    images = batch()
    close = (EVERYTHING(images / 255, seeded()) - EVERYTHING(images, seeded())).abs() < 1e-3
    assert close.float().mean() > 0.9999


def test_views_carry_no_gradient_and_keep_their_input():
    images = torch.rand(3, 3, 20, 20, requires_grad=True)
    before = images.detach().clone()
    assert not EVERYTHING(images, seeded()).requires_grad
    assert torch.equal(images, before)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(28, 28), (31, 50), (9, 8)])
def test_presets_render_any_image(channels, height, width):
    images = torch.randint(0, 256, (5, channels, height, width), dtype=torch.uint8)
    policies = [simclr_policy(24), simclr_policy(48), *byol_policies(24), *dino_policies(32, 12)]
    views = multicrop(images, [*policies, *swav_policies(48, 16), mae_policy(24), gentle_policy(24)], seeded())
    assert [v.shape for v in views] == [(5, channels, s, s) for s in (24, 48, 24, 24, 32, 32, 12, 48, 16, 24, 24)]
    for view in views:
        assert view.isfinite().all() and view.min() >= -2 - 1e-3 and view.max() <= 2 + 1e-3


@pytest.mark.parametrize("accelerated", [False, True])
def test_multicrop_gives_what_the_policies_give_one_after_the_other(monkeypatch, accelerated):
    if accelerated:  # the path for devices without a kernel, on the CPU

        def whole(self, images, drawn, dtype):
            return self._render_whole(images.repeat(len(drawn.crops) // len(images), 1, 1, 1), drawn)

        monkeypatch.setattr(ViewPolicy, "_render", whole)
    images, generator = batch(), seeded(5)
    policies = [*byol_policies(16), *dino_policies(16, 8), EVERYTHING, simclr_policy(8)]
    expected = [policy(images, generator) for policy in policies]
    for view, alone in zip(multicrop(images, policies, seeded(5)), expected, strict=True):
        torch.testing.assert_close(view, alone, atol=1e-5, rtol=0)


def test_views_come_in_the_type_asked_for():
    whole = EVERYTHING(batch(), seeded())
    half = EVERYTHING(batch(), seeded(), dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), whole, atol=0.01, rtol=0.01)
    assert multicrop(batch(), [EVERYTHING], seeded(), dtype=torch.float16)[0].dtype == torch.float16


def test_presets_keep_their_published_numbers():
    assert simclr_policy(32).blur == 0 and simclr_policy(96).blur == 0.5
    assert simclr_policy(32, strength=0.5).jitter == (0.4, 0.4, 0.4, 0.1)
    first, second = byol_policies(32)
    assert (first.blur, first.solarize, second.blur, second.solarize) == (1.0, 0.0, 0.1, 0.2)
    *_, local = dino_policies(64, 32)
    assert local.size == 32 and local.scale == (0.05, 0.4)
    large, small = swav_policies(96, 40)
    assert (large.size, large.scale, small.size, small.scale) == (96, (0.14, 1.0), 40, (0.05, 0.14))
    assert large.jitter == small.jitter == simclr_policy(96).jitter and large.blur == 0.5
    assert not mae_policy(32).jitters


@given(
    st.sampled_from(
        [
            {"size": 0},
            {"size": 8.0},
            {"scale": (1.0, 0.2)},
            {"scale": (0.0, 1.0)},
            {"ratio": (0.0, 1.0)},
            {"ratio": (2.0, 1.0)},
            {"flip": 1.5},
            {"blur": -0.1},
            {"grayscale": float("nan")},
            {"blur_sigma": (0.0, 1.0)},
            {"jitter": (0.1, 0.1, 0.1)},
            {"jitter": (-0.1, 0.1, 0.1, 0.1)},
            {"jitter": (0.1, 0.1, 0.1, 0.6)},
            {"std": 0.0},
        ]
    )
)
@settings(deadline=None)
def test_bad_settings_raise(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ViewPolicy(**{"size": 8, **wrong})


def test_bad_images_raise():
    images = torch.rand(2, 3, 8, 8)
    for bad in (images[0], images[:, :2], images[:0], images * float("nan"), images * 255):
        with pytest.raises(ValueError, match="images"):
            EVERYTHING(bad)
    with pytest.raises(TypeError, match="images"):
        EVERYTHING(images.long())
    with pytest.raises(TypeError, match="generator"):
        EVERYTHING(images, 7)
    with pytest.raises(ValueError, match="crops"):
        EVERYTHING.render(images, EVERYTHING.sample(3, 8, 8))
    with pytest.raises(ValueError, match="policies"):
        multicrop(images, [])


@pytest.mark.gpu
def test_cuda_views_equal_cpu_views():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    images = batch()
    there = EVERYTHING(images.cuda(), seeded()).cpu()
    assert ((there - EVERYTHING(images, seeded())).abs() < 1e-2).float().mean() > 0.999
    on_device = torch.Generator("cuda").manual_seed(0)
    assert EVERYTHING(images.cuda(), on_device).is_cuda
