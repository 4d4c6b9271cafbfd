"""Claims about the kernel that makes views: the plain form's values for the same draws, in every kind of policy.

Without a GPU the kernels run in Triton's interpreter, which has to be switched on before Triton is imported: one test
runs this file again in a process of its own. With a GPU the same tests run on it.
Tolerances, in units of the normalised view: 1e-4 in float32, 2e-2 in bfloat16, whose last place at 2 is 0.016. Values
next to the threshold of solarize may fall on either side of it: at most one in a thousand.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys

import pytest
import torch

from sslcore.kernels import views as fused
from sslcore.views import ViewParameters, ViewPolicy, multicrop
from sslcore.views.blur import default_kernel_size
from sslcore.views.color import ORDERS

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICES = ["cpu"] if INTERPRETED else [pytest.param("cuda", marks=pytest.mark.gpu)]
on_device = pytest.mark.parametrize("device", DEVICES)
STRONG = ViewPolicy(12, scale=(0.1, 1.0), jitter=(0.8, 0.8, 0.8, 0.5))
POLICIES = {
    "colour": STRONG,
    "blur": dataclasses.replace(STRONG, blur=0.5, size=20),
    "solarize": dataclasses.replace(STRONG, solarize=0.5, jitter_probability=0.3),
    "blur and solarize": dataclasses.replace(STRONG, blur=1.0, solarize=0.5, size=7),
    "own statistics": dataclasses.replace(STRONG, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), blur=0.5),
    "no colour": ViewPolicy(9, jitter_probability=0.0, grayscale=0.0),
}


def pictures(count, channels=3, height=19, width=14):
    images = torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8)
    images[0], images[1] = images[0, :1], 255  # grey and white: where hue is not defined
    return images


def through_kernel(policy, images, drawn, **options):
    constants = {"size": policy.size, "jitters": policy.jitters, "mean": policy.mean, "std": policy.std}
    blur_kernel = default_kernel_size(policy.size) if policy.blur > 0 else 0
    return fused.render(images, drawn, ORDERS, blur_kernel=blur_kernel, **constants, **options)


def on(device, drawn):
    return ViewParameters(*(part.to(device) for part in drawn))


def assert_close(result, expected, tolerance=1e-4, flips=0.0):
    assert result.shape == expected.shape and torch.isfinite(result).all()
    apart = (result.float().cpu() - expected.float().cpu()).abs() > tolerance
    assert apart.float().mean() <= flips


@on_device
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", POLICIES)
def test_same_values_as_the_plain_form(name, channels, device):
    count = 25 if name == "colour" else 5
    policy, images = POLICIES[name], pictures(count, channels)
    if channels == 1 and not isinstance(policy.mean, float):
        policy = dataclasses.replace(policy, mean=0.4, std=0.2)
    drawn = policy.sample(count, 19, 14)
    drawn = drawn._replace(order=torch.arange(count) % 24)  # every order there is
    expected = policy._render_whole(images, drawn)
    result = through_kernel(policy, images.to(device), on(device, drawn))
    assert result.dtype == torch.float32
    assert_close(result, expected, flips=1e-3 if policy.solarize else 0.0)


@on_device
@pytest.mark.parametrize("sides", [(23, 11), (5, 30)])
def test_shrinks_with_antialias_and_enlarges(sides, device):
    policy = ViewPolicy(8, scale=(0.05, 1.0), ratio=(0.5, 2.0))
    images = pictures(6, 3, *sides)
    drawn = policy.sample(6, *sides)
    assert_close(through_kernel(policy, images.to(device), on(device, drawn)), policy._render_whole(images, drawn))


@on_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_float_images_and_half_views(dtype, device):
    policy, images = POLICIES["blur"], (pictures(5) / 255).to(dtype)
    drawn = policy.sample(5, 19, 14)
    expected = policy._render_whole(images.float(), drawn)
    result = through_kernel(policy, images.to(device), on(device, drawn), dtype=dtype)
    assert result.dtype == dtype
    assert_close(result, expected, 1e-4 if dtype == torch.float32 else 2e-2)


@on_device
def test_several_draws_of_one_image(device):
    """Row v is a view of image v modulo the number of images; images need not be contiguous."""
    images = pictures(4).transpose(2, 3)
    drawn = STRONG.sample(12, 14, 19)
    expected = STRONG._render_whole(images.repeat(3, 1, 1, 1), drawn)
    assert_close(through_kernel(STRONG, images.to(device), on(device, drawn)), expected)


@on_device
def test_views_larger_than_a_tile(monkeypatch, device):
    monkeypatch.setattr(fused, "TILE", 64)
    policy, images = POLICIES["blur and solarize"], pictures(3)
    policy = dataclasses.replace(policy, size=15)
    drawn = policy.sample(3, 19, 14)
    result = through_kernel(policy, images.to(device), on(device, drawn))
    assert_close(result, policy._render_whole(images, drawn), flips=1e-3)


def test_the_cpu_and_extreme_shrinking_are_left_to_the_plain_form():
    assert not fused.supports(pictures(2), 12)
    assert fused.taps(64, 64) == 2 and fused.taps(64, 32) == 4 and fused.taps(10, 3) == 7
    assert fused.taps(9 * 32, 32) > fused.MAX_TAPS


def test_views_do_not_import_triton_before_it_is_needed():
    code = (
        "import sys, torch; before = 'triton' in sys.modules\n"
        "from sslcore.views import simclr_policy\n"
        "simclr_policy(8)(torch.rand(2, 3, 8, 8))\n"
        "assert before or 'triton' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.skipif(INTERPRETED, reason="this is the process the test starts")
def test_all_of_the_above_in_the_interpreter():
    pytest.importorskip("triton", reason="Triton is not built for this platform")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:randomly", __file__]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    passed = re.search(r"(\d+) passed", result.stdout)
    assert result.returncode == 0 and passed and int(passed[1]) == 21, result.stdout[-5000:] + result.stderr[-2000:]


@pytest.mark.gpu
def test_the_policy_takes_the_kernel_on_a_gpu(monkeypatch):
    images = pictures(8).cuda()
    calls = []
    kernel = fused.render

    def counted(*arguments, **options):
        calls.append(len(arguments[1].crops))
        return kernel(*arguments, **options)

    monkeypatch.setattr(fused, "render", counted)
    views = multicrop(images, [STRONG, STRONG, dataclasses.replace(STRONG, size=6)], torch.Generator("cuda"))
    assert [view.shape[-1] for view in views] == [12, 12, 6] and calls == [16, 8]
    assert STRONG(images, dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.gpu
def test_rendering_does_not_wait_for_the_gpu():
    images, generator = pictures(8).cuda(), torch.Generator("cuda")
    policies = [POLICIES["blur"], POLICIES["solarize"]]
    multicrop(images, policies, generator)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        multicrop(images, policies, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
