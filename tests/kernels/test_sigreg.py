"""Claims about SIGReg's twins: equal to the plain form in value and gradient for every strip, knot and odd shape.

Without a GPU the Triton kernels run in its interpreter, in a process that test_interpreter.py starts; with one, on it.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from sslcore.kernels import sigreg as twin
from sslcore.objectives import random_slices
from sslcore.objectives.sigreg import characteristic_sums

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICES = ["cpu"] if INTERPRETED else [pytest.param("cuda", marks=pytest.mark.gpu)]


def run(form, z, slices, num_knots, t_max, **options):
    z = z.clone().requires_grad_()
    sums = form(z, slices, num_knots, t_max, **options)
    weights = torch.randn(sums.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(sums)
    (sums * weights).sum().backward()
    return sums.detach(), z.grad


@pytest.mark.parametrize("strip_values", [1, 40, 10**6])
@pytest.mark.parametrize(("num_knots", "t_max"), [(2, 0.5), (3, 5.0), (17, 3.0), (64, 10.0)])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 7, 3, 5), (3, 1, 4, 2)])
def test_equals_the_plain_form(shape, num_knots, t_max, strip_values):
    views, rows, dim, num_slices = shape
    z, slices = torch.randn(views, rows, dim, dtype=torch.float64), random_slices(dim, num_slices).double()
    expected = run(characteristic_sums, z, slices, num_knots, t_max)
    result = run(twin.characteristic_sums, z, slices, num_knots, t_max, strip_values=strip_values)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 100.0])
def test_float32_is_as_good_as_the_plain_form(scale):
    z, slices = torch.randn(2, 40, 6) * scale, random_slices(6, 30)
    exact = run(characteristic_sums, z.double(), slices.double(), 17, 3.0)
    plain = run(characteristic_sums, z, slices, 17, 3.0)
    result = run(twin.characteristic_sums, z, slices, 17, 3.0)
    for mine, theirs, true in zip(result, plain, exact, strict=True):
        assert (mine - true).abs().max() <= max(4 * (theirs - true).abs().max(), 1e-5 * true.abs().max())


def test_gradient_equals_finite_differences_and_slices_take_none():
    z = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    slices = random_slices(3, 5).double().requires_grad_()
    sums = lambda x: twin.characteristic_sums(x, slices, 4, 3.0, strip_values=16)  # noqa: E731
    assert torch.autograd.gradcheck(sums, z)
    sums(z).sum().backward()
    assert slices.grad is None
    (grad,) = torch.autograd.grad(sums(z).sum(), z, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()
    assert not sums(z.detach()).requires_grad


def test_not_contiguous():
    z, slices = torch.randn(5, 3, 2).permute(2, 0, 1), random_slices(6, 3).T
    expected = characteristic_sums(z, slices[:, :6], 5, 3.0)
    torch.testing.assert_close(twin.characteristic_sums(z, slices[:, :6], 5, 3.0), expected)


def test_never_holds_more_than_a_strip():
    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        values = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                self.values = max(self.values, result.numel())
            return result

    z, slices = torch.randn(2, 64, 4, requires_grad=True), random_slices(4, 32)
    with Largest() as seen:
        twin.characteristic_sums(z, slices, 9, 3.0, strip_values=1024).sum().backward()
    assert seen.values <= 2 * 1024  # complex numbers, seen as pairs
    with Largest() as seen:
        characteristic_sums(z, slices, 9, 3.0).sum().backward()
    assert seen.values == 2 * 64 * 32 * 8


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("num_knots", "t_max"), [(2, 3.0), (17, 3.0)])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 130, 3, 33), (1, 256, 2, 32)])
def test_kernels_equal_the_plain_form(monkeypatch, shape, num_knots, t_max, device):
    views, rows, dim, num_slices = shape
    z = (torch.randn(views, rows, dim) * 3).to(device)
    slices = random_slices(dim, num_slices).to(device)
    expected = run(characteristic_sums, z, slices, num_knots, t_max)
    monkeypatch.setattr(twin, "supports", lambda z: True)
    for strip_values in (None, 20 * views * rows):
        result = run(twin.characteristic_sums, z, slices, num_knots, t_max, strip_values=strip_values)
        for mine, theirs in zip(result, expected, strict=True):
            assert (mine - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.gpu
def test_the_public_function_takes_the_kernels_on_a_gpu():
    from sslcore.objectives import sigreg

    z = torch.randn(2, 256, 64, device="cuda", requires_grad=True)
    assert twin.supports(z) and not twin.supports(z.double())
    slices = random_slices(64, 512, device="cuda")
    loss = sigreg(z, slices=slices)
    exact = sigreg(z.detach().cpu().double(), slices=slices.cpu())
    assert loss.item() == pytest.approx(exact.item(), rel=1e-4)


def test_imports_without_triton():
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, sslcore.objectives, sslcore.kernels.sigreg as s\n"
        "assert not s.HAS_TRITON and not s.supports(torch.randn(1, 4, 8))\n"
        "sslcore.objectives.sigreg(torch.randn(64, 3))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
