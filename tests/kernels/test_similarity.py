"""Claims about the Triton kernels: equal to the plain form in value and gradient, at odd sizes and both precisions.

Without a GPU the kernels run in Triton's interpreter, in a process that test_interpreter.py starts; with one, on it.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from sslcore.kernels import similarity
from sslcore.objectives import contrastive, info_nce, nt_xent
from sslcore.objectives.contrastive import mean_logsumexp
from sslcore.objectives.precision import unit_rows

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICES = ["cpu"] if INTERPRETED else [pytest.param("cuda", marks=pytest.mark.gpu)]
on_device = pytest.mark.parametrize("device", DEVICES)


def run(twin, rows, candidates, extra, skip, temperature, **options):
    leaves = [x if x is None else x.clone().requires_grad_() for x in (rows, candidates, extra)]
    if skip == 0:
        leaves[1] = leaves[0]
    loss = twin(leaves[0], leaves[1], 1 / temperature, skip, leaves[2], **options)
    (3 * loss).backward()
    return [loss.detach(), *[x.grad for x in leaves if x is not None]]


def assert_relative(results, expected, tolerance):
    for result, reference in zip(results, expected, strict=True):
        assert result.dtype == reference.dtype and torch.isfinite(result).all()
        assert (result - reference).abs().max() <= tolerance * reference.abs().max().clamp_min(1e-6)


@on_device
@pytest.mark.parametrize("half_inputs", [False, True])
@pytest.mark.parametrize("temperature", [0.05, 0.5, 10.0])
@pytest.mark.parametrize(("num", "dim"), [(2, 3), (3, 65), (33, 128), (70, 3), (66, 65), (5, 200)])
def test_a_batch_with_itself(num, dim, temperature, half_inputs, device):
    rows = unit_rows(torch.randn(num, dim)).to(device)
    expected = run(mean_logsumexp, rows, rows, None, 0, temperature)
    results = run(similarity.mean_logsumexp, rows, rows, None, 0, temperature, half_inputs=half_inputs)
    assert_relative(results, expected, 1e-2 if half_inputs else 1e-5)


@on_device
@pytest.mark.parametrize("half_inputs", [False, True])
@pytest.mark.parametrize(
    ("num", "others", "dim", "skip", "with_extra"),
    [
        (1, 1, 3, None, False),
        (1, 5, 65, None, True),
        (35, 70, 16, None, True),
        (34, 99, 3, 64, False),
        (3, 40, 128, 5, True),
    ],
)
def test_rows_against_others(num, others, dim, skip, with_extra, half_inputs, device):
    rows, candidates = (unit_rows(torch.randn(n, dim)).to(device) for n in (num, others))
    extra = torch.randn(num, device=device) * 5 if with_extra else None
    expected = run(mean_logsumexp, rows, candidates, extra, skip, 0.1)
    results = run(similarity.mean_logsumexp, rows, candidates, extra, skip, 0.1, half_inputs=half_inputs)
    assert_relative(results, expected, 1e-2 if half_inputs else 1e-5)


@on_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0.05, 0.5, 10.0])
@pytest.mark.parametrize(("num", "dim"), [(2, 3), (19, 65), (37, 128)])
def test_objectives_through_the_kernels(monkeypatch, num, dim, temperature, dtype, device):
    z0, z1, queue = (torch.randn(n, dim).to(device, dtype) for n in (num, num, 41))

    def losses_and_gradients():
        leaves = [x.clone().requires_grad_() for x in (z0, z1, queue)]
        losses = [nt_xent(*leaves[:2], temperature), info_nce(*leaves[:2], None, temperature)]
        losses.append(info_nce(*leaves, temperature))
        sum(losses).backward()
        return [*losses, *[x.grad for x in leaves]]

    monkeypatch.setattr(
        contrastive, "_denominator", lambda a, b, scale, skip, extra, _: mean_logsumexp(a, b, scale, skip, extra)
    )
    expected = losses_and_gradients()
    calls = []

    def through_the_kernels(rows, candidates, scale, skip, extra, dtype):
        calls.append(dtype)
        return similarity.mean_logsumexp(rows, candidates, scale, skip, extra, dtype != torch.float32)

    monkeypatch.setattr(contrastive, "_denominator", through_the_kernels)
    assert_relative(losses_and_gradients(), expected, 1e-5 if dtype == torch.float32 else 1e-2)
    assert calls == [dtype] * 3


@on_device
def test_small_temperature_and_far_negatives_do_not_underflow(device):
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0]], device=device)
    value = similarity.mean_logsumexp(rows, -rows, 1 / 0.005)
    assert value.item() == pytest.approx(-200 + torch.log(torch.tensor(2.0)).item(), rel=1e-5)


@on_device
def test_only_wanted_gradients_and_no_second_derivative(device):
    rows, queue = torch.randn(4, 3, device=device, requires_grad=True), torch.randn(6, 3, device=device)
    (grad,) = torch.autograd.grad(similarity.mean_logsumexp(rows, queue, 2.0), rows, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()
    assert not similarity.mean_logsumexp(rows.detach(), queue, 2.0).requires_grad


@pytest.mark.gpu
def test_the_public_function_takes_the_kernels_on_a_gpu():
    z0, z1 = torch.randn(2, 600, 32, device="cuda", requires_grad=True)
    rows = unit_rows(torch.cat([z0, z1]))
    assert similarity.supports(rows, rows) and not similarity.supports(rows[:4], rows[:4])
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    nt_xent(z0, z1).backward()
    assert torch.cuda.max_memory_allocated() - before < 1200 * 1200 * 4


def test_cpu_tensors_and_other_types_are_left_to_the_plain_form():
    rows = torch.randn(2048, 4)
    assert not similarity.supports(rows, rows)
    assert not similarity.supports(rows.double(), rows.double())


@pytest.mark.parametrize("element_size", [2, 4])
def test_tiles_hold_a_whole_row_and_are_large_enough_for_tensor_cores(element_size):
    for dim in range(1, similarity.MAX_DIM + 1):
        options = similarity.tile_options(dim, element_size)
        assert dim <= options["BLOCK_DIM"] < max(2 * dim, 17)
        assert min(options["BLOCK_ROWS"], options["BLOCK_CANDIDATES"], options["BLOCK_DIM"]) >= 16


def test_imports_without_triton():
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, sslcore.objectives, sslcore.kernels.similarity as s\n"
        "assert not s.HAS_TRITON and not s.supports(torch.randn(4096, 8), torch.randn(4096, 8))\n"
        "sslcore.objectives.nt_xent(torch.randn(4, 3), torch.randn(4, 3))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_objectives_do_not_import_triton_before_it_is_needed():
    code = (
        "import sys, torch; before = 'triton' in sys.modules\n"
        "import sslcore.objectives\n"
        "assert before or 'triton' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
