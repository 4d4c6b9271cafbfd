"""Claims about nt_xent and info_nce, one test each.

- They equal a double loop in NumPy, lightly, and torch's cross entropy.
- Collapsed embeddings give ln(2N - 1), ln N, ln(K + 1); orthogonal negatives give ln(1 + K exp(-1/temperature)).
- Row lengths, the order of the batch, the order of the views and the axes of the embedding do not matter.
- Gradients are those of finite differences, stay finite at zero rows, and reach both views.
- float16, bfloat16 and autocast change the numbers no more than rounding the input does.
- The tiled twin is chosen for large batches and agrees.
- Wrong rank, shape, size, type, NaN and temperature are refused.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from lightly.loss import NTXentLoss
from torch import Tensor

from sslcore.objectives import contrastive, info_nce, nt_xent

SIZES = [(2, 3), (5, 2), (8, 16)]
TEMPERATURES = [0.01, 0.1, 0.5, 10.0]


def slow_nt_xent(z0: Tensor, z1: Tensor, temperature: float) -> float:
    z = [row / np.sqrt((row**2).sum()) for row in np.concatenate([z0.double().numpy(), z1.double().numpy()])]
    num, losses = len(z) // 2, []
    for i in range(2 * num):
        similar = [np.dot(z[i], z[j]) / temperature for j in range(2 * num) if j != i]
        peak = max(similar)
        losses.append(
            peak + np.log(sum(np.exp(s - peak) for s in similar)) - np.dot(z[i], z[(i + num) % (2 * num)]) / temperature
        )
    return float(np.mean(losses))


def slow_info_nce(query: Tensor, key: Tensor, negatives: Tensor | None, temperature: float) -> float:
    unit = lambda x: [row / np.sqrt((row**2).sum()) for row in x.double().numpy()]  # noqa: E731
    query, key = unit(query), unit(key)
    losses = []
    for i in range(len(query)):
        wrong = [key[j] for j in range(len(key)) if j != i] if negatives is None else unit(negatives)
        similar = [np.dot(query[i], k) / temperature for k in [key[i], *wrong]]
        peak = max(similar)
        losses.append(peak + np.log(sum(np.exp(s - peak) for s in similar)) - similar[0])
    return float(np.mean(losses))


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("num", "dim"), SIZES)
def test_nt_xent_equals_the_loop_and_lightly(num, dim, temperature):
    z0, z1 = torch.randn(2, num, dim) * 3
    loss = nt_xent(z0, z1, temperature)
    assert loss.item() == pytest.approx(slow_nt_xent(z0, z1, temperature), rel=1e-5, abs=1e-5)
    assert loss.item() == pytest.approx(NTXentLoss(temperature)(z0, z1).item(), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("queue", [None, 1, 7])
@pytest.mark.parametrize(("num", "dim"), SIZES)
def test_info_nce_equals_the_loop_and_cross_entropy(num, dim, queue, temperature):
    query, key = torch.randn(2, num, dim)
    negatives = None if queue is None else torch.randn(queue, dim)
    loss = info_nce(query, key, negatives, temperature).item()
    assert loss == pytest.approx(slow_info_nce(query, key, negatives, temperature), rel=1e-5, abs=1e-5)
    q, k = F.normalize(query), F.normalize(key)
    if negatives is None:
        reference = F.cross_entropy(q @ k.T / temperature, torch.arange(num))
    else:
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ F.normalize(negatives).T], dim=1)
        reference = F.cross_entropy(logits / temperature, torch.zeros(num, dtype=torch.long))
    assert loss == pytest.approx(reference.item(), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("queue_size", [4, 16])
def test_info_nce_equals_lightly_with_a_queue(queue_size):
    reference = NTXentLoss(temperature=0.2, memory_bank_size=(queue_size, 6))
    query, key = torch.randn(2, 4, 6)
    reference(query, torch.randn(4, 6))  # fills a part of the bank
    negatives = reference.memory_bank.bank.clone()
    negatives = negatives if negatives.shape[1] == 6 else negatives.T
    expected = reference(query, key).item()
    assert info_nce(query, key, negatives, 0.2).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("num", [2, 3, 64])
def test_collapsed_values(num):
    same = torch.full((num, 5), 0.3)
    assert nt_xent(same, same, 0.1).item() == pytest.approx(math.log(2 * num - 1), rel=1e-5)
    assert info_nce(same, same, temperature=0.1).item() == pytest.approx(math.log(num), rel=1e-5)
    assert info_nce(same, same, same[:2], 0.1).item() == pytest.approx(math.log(3), rel=1e-5)


def test_two_orthogonal_images():
    eye = torch.eye(2)
    assert nt_xent(eye, eye, 0.5).item() == pytest.approx(math.log(1 + 2 * math.exp(-2)), rel=1e-5)
    assert nt_xent(eye, eye, 0.5).item() == pytest.approx(0.23954, abs=1e-5)


@pytest.mark.parametrize(("queue", "temperature", "value"), [(4096, 0.1, 0.17055), (65536, 0.07, 0.04014)])
def test_orthogonal_queue(queue, temperature, value):
    query, negatives = torch.eye(2)[:1], torch.eye(2)[1:].expand(queue, 2)
    loss = info_nce(query, query, negatives, temperature).item()
    assert loss == pytest.approx(math.log1p(queue * math.exp(-1 / temperature)), rel=1e-5)
    assert loss == pytest.approx(value, abs=1e-5)


def test_one_query_is_enough_with_a_queue():
    assert torch.isfinite(info_nce(torch.randn(1, 3), torch.randn(1, 3), torch.randn(1, 3)))


@given(num=st.integers(2, 9), dim=st.integers(2, 8), seed=st.integers(0, 999))
def test_invariances(num, dim, seed):
    generator = torch.Generator().manual_seed(seed)
    z0, z1 = torch.randn(2, num, dim, generator=generator, dtype=torch.float64)
    order = torch.randperm(num, generator=generator)
    lengths = torch.rand(2, num, 1, generator=generator, dtype=torch.float64) * 100 + 1e-3
    rotation = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))[0]
    for loss in (nt_xent, info_nce):
        value = loss(z0, z1)
        for other in (
            loss(z0[order], z1[order]),
            loss(z0 * lengths[0], z1 * lengths[1]),
            loss(z0 @ rotation, z1 @ rotation),
        ):
            torch.testing.assert_close(other, value)
    torch.testing.assert_close(nt_xent(z1, z0), nt_xent(z0, z1))
    assert not torch.isclose(nt_xent(z0.roll(1, 0), z1), nt_xent(z0, z1))  # the pairing does matter


def test_a_harder_negative_costs_more():
    query = key = torch.tensor([[1.0, 0.0]])
    losses = [info_nce(query, key, torch.tensor([[math.cos(a), math.sin(a)]])) for a in (3.0, 2.0, 1.0, 0.1)]
    assert losses == sorted(losses)


def test_gradients_equal_finite_differences():
    z0, z1, queue = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (4, 4, 5))
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.3), (z0, z1))
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, None, 0.3), (z0, z1))
    assert torch.autograd.gradcheck(lambda a, b, c: info_nce(a, b, c, 0.3), (z0, z1, queue))
    assert torch.autograd.gradgradcheck(lambda a, b: nt_xent(a, b, 0.3), (z0, z1))


def test_gradient_reaches_what_is_not_detached():
    query, key, queue = (torch.randn(3, 4, requires_grad=True) for _ in range(3))
    info_nce(query, key.detach(), queue.detach()).backward()
    assert query.grad.abs().sum() > 0 and key.grad is None and queue.grad is None
    info_nce(query, key, queue).backward()
    assert key.grad.abs().sum() > 0 and queue.grad.abs().sum() > 0


@pytest.mark.parametrize("loss", [nt_xent, info_nce])
def test_zero_rows_and_extreme_lengths_stay_finite(loss):
    for size in (0.0, 1e-30, 1e-20, 1.0, 1e20, 1e30):
        z0, z1 = torch.randn(2, 4, 5)
        z0[1] *= size
        z0.requires_grad_()
        value = loss(z0, z1, temperature=0.01)
        value.backward()
        assert torch.isfinite(value) and torch.isfinite(z0.grad).all()
        if size == 0.0:
            assert z0.grad[1].norm() < 1e4  # of ordinary size: 1 / temperature, not 1 / epsilon
        if size == 1e20:
            assert value.item() == pytest.approx(loss(F.normalize(z0.double()), z1, temperature=0.01).item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_upcast(dtype):
    z0, z1 = (torch.randn(2, 6, 8) * 50).to(dtype)
    for loss in (nt_xent, info_nce):
        value = loss(z0.requires_grad_(), z1)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, loss(z0.detach().float(), z1.float()))
    value.backward()
    assert z0.grad.dtype == dtype and torch.isfinite(z0.grad).all()


def test_autocast_does_not_touch_the_statistics():
    z0, z1 = torch.randn(2, 6, 8)
    expected = nt_xent(z0, z1, 0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.is_autocast_enabled("cpu")
        torch.testing.assert_close(nt_xent(z0, z1, 0.05), expected, rtol=0, atol=0)
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("queue", [False, True])
def test_large_batches_take_the_tiled_twin_and_agree(monkeypatch, queue):
    z0, z1, negatives = (torch.randn(n, 7) for n in (10, 10, 12))
    losses, grads = [], []
    for threshold in (2**40, 1):
        monkeypatch.setattr(contrastive, "TILED_SIMILARITIES", threshold)
        inputs = [x.clone().requires_grad_() for x in (z0, z1, negatives)]
        loss = info_nce(*inputs) + nt_xent(inputs[0], inputs[1]) + info_nce(inputs[0], inputs[1])
        loss.backward()
        losses.append(loss)
        grads.append([x.grad for x in inputs])
    assert "MeanLogSumExp" in repr(
        contrastive._denominator(inputs[0], inputs[1], 1.0, None, None, torch.float32).grad_fn
    )
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize("loss", [nt_xent, info_nce])
@pytest.mark.parametrize(
    ("z0", "z1", "error"),
    [
        (torch.randn(4), torch.randn(4), ValueError),
        (torch.randn(4, 3, 2), torch.randn(4, 3, 2), ValueError),
        (torch.randn(4, 3), torch.randn(5, 3), ValueError),
        (torch.randn(4, 3), torch.randn(4, 2), ValueError),
        (torch.randn(0, 3), torch.randn(0, 3), ValueError),
        (torch.randn(1, 3), torch.randn(1, 3), ValueError),
        (torch.randn(4, 0), torch.randn(4, 0), ValueError),
        (torch.randn(4, 3), torch.full((4, 3), math.nan), ValueError),
        (torch.full((4, 3), math.inf), torch.randn(4, 3), ValueError),
        (torch.ones(4, 3, dtype=torch.long), torch.ones(4, 3, dtype=torch.long), TypeError),
        ([[1.0]], torch.randn(4, 3), TypeError),
    ],
)
def test_bad_embeddings_are_refused(loss, z0, z1, error):
    with pytest.raises(error, match="expected"):
        loss(z0, z1)


@pytest.fixture(params=["plain", "tiled"])
def form(request, monkeypatch):
    monkeypatch.setattr(contrastive, "TILED_SIMILARITIES", 2**60 if request.param == "plain" else 1)
    return request.param


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1e-5, 1e-3])
def test_half_precision_does_not_overflow_at_small_temperatures(form, temperature, dtype):
    z0, z1, queue = (torch.randn(n, 6).mul(100).to(dtype) for n in (5, 5, 9))
    for loss, exact in (
        (nt_xent(z0, z1, temperature), nt_xent(z0.double(), z1.double(), temperature)),
        (info_nce(z0, z1, queue, temperature), info_nce(z0.double(), z1.double(), queue.double(), temperature)),
    ):
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss.double(), exact, rtol=1e-4, atol=1e-4 / temperature * 1e-3)


def test_layout_zero_rows_and_sides_without_gradient(form):
    z0, z1 = torch.randn(6, 5).T, torch.randn(10, 6)[::2]  # neither is contiguous
    queue = torch.randn(6, 7).T
    expected = [nt_xent(z0.clone(), z1.clone()), info_nce(z0.contiguous(), z1.contiguous(), queue.contiguous())]
    assert not (z0.is_contiguous() or z1.is_contiguous() or queue.is_contiguous())
    torch.testing.assert_close([nt_xent(z0, z1), info_nce(z0, z1, queue)], expected)
    z0 = z0.clone()
    z0[0] = 0
    z0.requires_grad_()
    loss = nt_xent(z0, z1) + info_nce(z0, z1) + info_nce(z0, z1, queue)
    (grad,) = torch.autograd.grad(loss, z0)
    assert torch.isfinite(loss) and torch.isfinite(grad).all() and not z1.requires_grad
    assert not nt_xent(z0.detach(), z1).requires_grad


def test_second_derivatives_are_right_or_refused(form):
    z0, z1 = torch.randn(2, 5, 3, dtype=torch.float64)
    z0.requires_grad_()
    for loss in (lambda z: nt_xent(z, z1), lambda z: nt_xent(z, z1, 0.02), lambda z: info_nce(z, z1)):
        if form == "plain":
            assert torch.autograd.gradgradcheck(loss, z0)
        else:
            (grad,) = torch.autograd.grad(loss(z0), z0, create_graph=True)
            with pytest.raises(RuntimeError, match="no second derivative"):
                grad.sum().backward()


def test_two_devices_are_refused(form):
    z, elsewhere = torch.randn(4, 3), torch.randn(4, 3, device="meta")
    for call in (
        lambda: nt_xent(z, elsewhere),
        lambda: info_nce(z, elsewhere),
        lambda: info_nce(z, z, elsewhere),
        lambda: info_nce(z, z, elsewhere.double()),
    ):
        with pytest.raises(ValueError, match="expected one device, got cpu and meta"):
            call()


def test_errors_do_not_depend_on_the_form(form):
    z = torch.randn(4, 3)
    for call, message in (
        (lambda: nt_xent(z, z[:3]), r"z0 and z1: expected equal shapes, got \(4, 3\) and \(3, 3\)"),
        (lambda: nt_xent(z[:1], z[:1]), "z0, z1: expected at least two images"),
        (lambda: nt_xent(z, z * math.nan), "z1: expected finite values, got 12"),
        (lambda: info_nce(z, z, z[:0]), r"negatives: expected \(K >= 1, 3\), got \(0, 3\)"),
        (lambda: info_nce(z, z, temperature=0), "temperature: expected a finite number above 0, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@given(temperature=st.one_of(st.floats(max_value=0.0), st.just(math.nan), st.just(math.inf)))
def test_bad_temperature_is_refused(temperature):
    for loss in (nt_xent, info_nce):
        with pytest.raises(ValueError, match="temperature"):
            loss(torch.randn(3, 2), torch.randn(3, 2), temperature=temperature)


@given(shape=st.lists(st.integers(0, 4), min_size=0, max_size=4))
def test_bad_queue_is_refused(shape):
    negatives = torch.randn(shape)
    z = torch.randn(3, 2)
    if len(shape) == 2 and shape[0] >= 1 and shape[1] == 2:
        assert torch.isfinite(info_nce(z, z, negatives))
    else:
        with pytest.raises(ValueError, match="negatives"):
            info_nce(z, z, negatives)


def test_group_needs_torch_distributed():
    with pytest.raises(ValueError, match="init_process_group"):
        nt_xent(torch.randn(3, 2), torch.randn(3, 2), group=object())
