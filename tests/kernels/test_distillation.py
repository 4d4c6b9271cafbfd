"""Claims about the distillation twins: equal to the plain objectives in value and gradient, in either form.

Without a GPU the Triton kernels run in its interpreter, in a process that test_interpreter.py starts; with one, on it.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys

import pytest
import torch

from sslcore.kernels import distillation, distillation_gpu
from sslcore.objectives import dino_loss, ibot_patch_loss, self_distillation

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICES = ["cpu"] if INTERPRETED else [pytest.param("cuda", marks=pytest.mark.gpu)]
on_device = pytest.mark.parametrize("device", DEVICES)
# student crops, teacher crops, images, prototypes
SHAPES = [(2, 1, 1, 2), (2, 2, 3, 37), (5, 2, 2, 1), (10, 2, 1, 130)]


@pytest.fixture
def through(monkeypatch):
    """Value and student gradient of an objective, through a twin or through the plain form (None)."""

    def run(twin, objective, student, *others, **options):
        monkeypatch.setattr(self_distillation, "_twin", lambda *_: twin)
        student = student.clone().requires_grad_()
        loss = objective(student, *others, **options)
        (3 * loss).backward()
        return loss.detach(), student.grad

    return run


def assert_relative(results, expected, tolerance):
    for result, reference in zip(results, expected, strict=True):
        assert result.dtype == reference.dtype and torch.isfinite(result).all()
        gap = (result.double() - reference.double()).abs().max()
        assert gap <= tolerance * reference.abs().max().clamp_min(1e-6)


def crops(shape, dtype=torch.float32, spread=1.0, device="cpu"):
    num_student, num_teacher, batch, classes = shape
    student = torch.randn(num_student, batch, classes, dtype=torch.float64) * spread
    teacher = torch.randn(num_teacher, batch, classes, dtype=torch.float64) * spread
    center = torch.randn(classes, dtype=torch.float64) * spread / 3
    center = center.to(torch.promote_types(dtype, torch.float32))
    return student.to(device, dtype), teacher.to(device, dtype), center.to(device)


def patches(dtype=torch.float32, device="cpu"):
    student, teacher = (torch.randn(2, 3, 5, 37) * 0.5).to(device, dtype)
    mask = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool, device=device)
    return student, teacher, mask, torch.randn(37).to(device) * 0.2


@pytest.mark.parametrize("strip_values", [1, 300, 10**6])
@pytest.mark.parametrize("temps", [(0.1, 0.04), (1.0, 1.0), (1e-3, 1e-3)])
@pytest.mark.parametrize("shape", SHAPES)
def test_strips_equal_the_plain_form(through, shape, temps, strip_values):
    strips = functools.partial(distillation.summed_cross_entropy, strip_values=strip_values)
    student, teacher, center = crops(shape, torch.float64)
    arguments = (dino_loss, student, teacher, center, *temps)
    torch.testing.assert_close(through(strips, *arguments), through(None, *arguments), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("strip_values", [1, 200, 10**6])
def test_strips_of_patches_equal_the_plain_form(through, strip_values):
    strips = functools.partial(distillation.summed_cross_entropy, strip_values=strip_values)
    arguments = (ibot_patch_loss, *patches())
    results = through(strips, *arguments)
    assert_relative(results, through(None, *arguments), 1e-5)
    assert (results[1][~arguments[3]] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("spread", [1e-3, 1.0, 1e4])
def test_precision_and_large_logits(through, spread, dtype):
    arguments = (dino_loss, *crops((4, 2, 3, 50), dtype, spread))
    tolerance = 2e-5 if dtype == torch.float32 else 1e-2
    assert_relative(through(distillation.summed_cross_entropy, *arguments), through(None, *arguments), tolerance)


def test_gradient_equals_finite_differences():
    student, teacher, center = crops((3, 2, 2, 4), torch.float64)
    weight = torch.tensor([0.5, 2.0], dtype=torch.float64)
    for skip_own in (False, True):
        total = lambda s: distillation.summed_cross_entropy(s, teacher, center, weight, 0.5, 0.3, skip_own, 8)  # noqa: B023, E731
        assert torch.autograd.gradcheck(total, student.requires_grad_())
    (grad,) = torch.autograd.grad(total(student), student, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()
    assert not total(student.detach()).requires_grad


def test_only_the_gradient_is_as_large_as_the_logits():
    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.sizes = []

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and function is not torch.ops.aten.detach.default:
                self.sizes.append(result.numel())
            return result

    student, teacher, center = crops((6, 2, 64, 32))
    weight = torch.full((64,), 0.1)
    student.requires_grad_()
    with Largest() as seen:
        loss = distillation.summed_cross_entropy(student, teacher, center, weight, 0.1, 0.04, True, 2048)
    assert max(seen.sizes) <= 2048
    loss.backward()
    assert student.grad.shape == student.shape


def test_large_logits_take_the_strips(monkeypatch):
    calls = []
    monkeypatch.setattr(self_distillation, "TWIN_LOGITS", 100)
    monkeypatch.setattr(distillation, "summed_cross_entropy", lambda *a, **k: calls.append(k) or a[0].sum())
    student, teacher, center = crops((2, 2, 4, 16))
    dino_loss(student, teacher, center)
    ibot_patch_loss(student, teacher, torch.ones(2, 4, dtype=torch.bool), center)
    dino_loss(student[:, :1], teacher[:, :1], center)
    assert calls == [{"skip_own": True}, {"skip_own": False}]
    meta = student.to("meta")
    assert self_distillation._twin(meta, meta, center) is None


def test_not_contiguous(through):
    student, teacher, center = crops((4, 2, 3, 50))
    swapped = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (student, teacher)]
    results = through(distillation.summed_cross_entropy, dino_loss, *swapped, center)
    assert_relative(results, through(None, dino_loss, student, teacher, center), 1e-5)


@on_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_equal_the_plain_form(monkeypatch, through, shape, dtype, device):
    monkeypatch.setattr(distillation_gpu, "TILE", 256)  # several tiles and splits even at these sizes
    arguments = (dino_loss, *crops(shape, dtype, device=device))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    expected = through(None, *arguments)
    for programs in (1, 1000):
        monkeypatch.setattr(distillation_gpu, "PROGRAMS", programs)
        assert_relative(through(distillation_gpu.summed_cross_entropy, *arguments), expected, tolerance)


@on_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_kernels_on_patches_equal_the_plain_form(through, dtype, device):
    arguments = (ibot_patch_loss, *patches(dtype, device))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    results = through(distillation_gpu.summed_cross_entropy, *arguments)
    assert_relative(results, through(None, *arguments), tolerance)
    assert (results[1][~arguments[3]] == 0).all()


@on_device
@pytest.mark.parametrize(("spread", "temps"), [(1e4, (0.1, 0.04)), (1.0, (1e-3, 1e-3)), (1.0, (10.0, 10.0))])
def test_kernels_with_extreme_logits(monkeypatch, through, spread, temps, device):
    monkeypatch.setattr(distillation_gpu, "TILE", 64)
    arguments = (dino_loss, *crops((3, 2, 2, 50), torch.float32, spread, device), *temps)
    assert_relative(through(distillation_gpu.summed_cross_entropy, *arguments), through(None, *arguments), 2e-5)


@pytest.mark.gpu
def test_the_public_function_takes_the_kernels_on_a_gpu():
    student, teacher, center = crops((4, 2, 16, 8192), device="cuda")
    assert self_distillation._twin(student, teacher, center) is distillation_gpu.summed_cross_entropy
    assert not distillation_gpu.supports(student.double(), teacher, center)
    student.requires_grad_()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    dino_loss(student, teacher, center).backward()
    assert torch.cuda.max_memory_allocated() - before < 1.1 * student.numel() * 4


def test_imports_without_triton():
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, sslcore.kernels.distillation_gpu as gpu\n"
        "from sslcore.kernels.optional_triton import HAS_TRITON\n"
        "assert not HAS_TRITON and not gpu.supports(*torch.randn(3, 2, 4, 8))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
