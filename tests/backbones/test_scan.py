"""Claims about the selective scan, one test each.

- It equals a NumPy loop over tokens, channels and states; every back-end gives the same values and gradients, in
  float32 to 1e-5 and on odd sizes, whatever the chunk.
- Decay 0 forgets all, decay 1 adds up; a sequence cut in two and carried on is the whole sequence; nothing later leaks.
- Large steps do not overflow; half precision is computed in float32; second derivatives exist; bad input is refused.
- linear_scan is that recurrence for any a and b.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcore.backbones import linear_scan, selective_scan
from sslcore.backbones.scan import BACKENDS, LINEAR_BACKENDS
from sslcore.backbones.scan_steps import fused_scan
from sslcore.probes import token_influence

FAST = [name for name in BACKENDS if name != "loop"]


def inputs(batch=2, length=7, dim=3, number=4, seed=0, dtype=torch.float32, step=0.5):
    g = torch.Generator().manual_seed(seed)
    x, B, C = (torch.randn(batch, length, size, generator=g, dtype=dtype) for size in (dim, number, number))
    delta = step * torch.rand(batch, length, dim, generator=g, dtype=dtype)
    A = -5 * torch.rand(dim, number, generator=g, dtype=dtype)
    D, state = torch.randn(dim, generator=g, dtype=dtype), torch.randn(batch, dim, number, generator=g, dtype=dtype)
    return [each.requires_grad_() for each in (x, delta, A, B, C, D, state)]


def run(tensors, **how):
    *main, state = tensors
    return selective_scan(*main, state=state, return_state=True, **how)


def in_numpy(x, delta, A, B, C, D, state):
    """Scalar by scalar, in float64, straight from the recurrence."""
    x, delta, A, B, C, D, state = (each.detach().double().numpy() for each in (x, delta, A, B, C, D, state))
    y, h = np.empty_like(x), state.copy()
    for b, t, d in np.ndindex(*x.shape):  # the last index runs fastest: time goes forward
        for n in range(A.shape[1]):
            h[b, d, n] = np.exp(delta[b, t, d] * A[d, n]) * h[b, d, n] + delta[b, t, d] * B[b, t, n] * x[b, t, d]
        y[b, t, d] = C[b, t] @ h[b, d] + D[d] * x[b, t, d]
    return torch.from_numpy(y), torch.from_numpy(h)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=12, deadline=None)
@given(batch=st.integers(1, 3), length=st.integers(1, 19), dim=st.integers(1, 5), number=st.integers(1, 5),
       chunk=st.integers(1, 20), seed=st.integers(0, 99))  # fmt: skip
def test_equals_numpy(backend, batch, length, dim, number, chunk, seed):
    tensors = inputs(batch, length, dim, number, seed, torch.float64)
    for got, expected in zip(run(tensors, backend=backend, chunk_size=chunk), in_numpy(*tensors), strict=True):
        torch.testing.assert_close(got.detach(), expected)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(
    ("length", "dim", "number", "chunk"), [(1, 1, 1, 16), (13, 5, 3, 4), (33, 7, 16, 16), (64, 3, 5, 7)]
)
def test_back_ends_agree_with_the_loop(backend, length, dim, number, chunk):
    tensors = inputs(3, length, dim, number)
    weight, found = torch.randn(3, length, dim), []
    for how in ("loop", backend):
        y, state = run(tensors, backend=how, chunk_size=chunk)
        grads = torch.autograd.grad((y * weight).sum() + state.sin().sum(), tensors)
        found.append([y, state, *grads])
    for got, expected in zip(found[1], found[0], strict=True):
        largest = float(expected.detach().abs().max().clamp_min(1))
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * largest)


@pytest.mark.parametrize("backend", FAST)
def test_gradients_and_second_derivatives(backend):
    tensors = inputs(1, 4, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *t: run(t, backend=backend, chunk_size=3), tensors)
    assert torch.autograd.gradgradcheck(lambda *t: run(t, backend=backend, chunk_size=3), tensors)


def test_gradient_of_some_inputs_only():
    x, delta, A, B, C, _, state = (each.detach() for each in inputs())
    A.requires_grad_()
    grads = [torch.autograd.grad(f(x, delta, A, B, C, state)[0].sum(), A, create_graph=again)[0]
             for f in (fused_scan,) for again in (False, True)]
    torch.testing.assert_close(*grads)
    expected = torch.autograd.grad(selective_scan(x, delta, A, B, C, state=state, backend="loop").sum(), A)[0]
    torch.testing.assert_close(grads[0], expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_forgetting_all_and_nothing(backend):
    x, delta, A, B, C, D, _ = (each.detach() for each in inputs())
    written = torch.einsum("bld,bln->bldn", delta * x, B)
    nothing_kept = selective_scan(x, delta + 1e-3, torch.full_like(A, -1e9), B, C, D, backend=backend)
    alone = torch.einsum("bldn,bln->bld", torch.einsum("bld,bln->bldn", (delta + 1e-3) * x, B), C) + D * x
    torch.testing.assert_close(nothing_kept, alone)
    all_kept = selective_scan(x, delta, torch.zeros_like(A), B, C, backend=backend)
    torch.testing.assert_close(all_kept, torch.einsum("bldn,bln->bld", written.cumsum(1), C), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cut", [1, 5, 12])
def test_a_cut_sequence_carried_on_is_the_whole(backend, cut):
    x, delta, A, B, C, D, state = inputs(length=13)
    whole = selective_scan(x, delta, A, B, C, D, state=state, backend=backend, chunk_size=4)
    parts = []
    for piece in (slice(None, cut), slice(cut, None)):
        y, state = selective_scan(x[:, piece], delta[:, piece], A, B[:, piece], C[:, piece], D, state=state,
                                  return_state=True, backend=backend, chunk_size=4)  # fmt: skip
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_reads_what_came_before_and_nothing_later(backend):
    x, delta, A, B, C, D, _ = (each.detach() for each in inputs(3, 9, step=0.2, dtype=torch.float64))
    seen = token_influence(lambda s: selective_scan(s, delta, A, B, C, D, backend=backend, chunk_size=4), x)
    assert torch.equal(seen > 1e-12, torch.ones(9, 9).bool().tril())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("step", [0.1, 1.0, 5.0, 100.0])
def test_long_steps_do_not_overflow(backend, step):
    tensors = inputs(1, 64, 2, 16, step=step)
    y, state = run(tensors, backend=backend)
    grads = torch.autograd.grad(y.sum(), tensors)
    assert all(bool(torch.isfinite(each).all()) for each in (y, state, *grads))
    torch.testing.assert_close(y.detach().double(), in_numpy(*tensors)[0], rtol=1e-4, atol=1e-4)


def test_float32_inside_autocast_and_half_precision():
    x, delta, A, B, C, D, _ = (each.detach() for each in inputs(length=40))
    plain = selective_scan(x, delta, A, B, C, D)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(selective_scan(x, delta, A, B, C, D), plain)
    half = selective_scan(x.bfloat16(), delta.bfloat16(), A, B.bfloat16(), C.bfloat16(), D)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), plain, rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize("backend", LINEAR_BACKENDS)
@settings(max_examples=12, deadline=None)
@given(length=st.integers(1, 18), chunk=st.integers(1, 20), seed=st.integers(0, 99))
def test_linear_scan_with_any_coefficients(backend, length, chunk, seed):
    a, b = torch.randn(2, 2, length, 3, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    h, rows = torch.ones(2, 3, 2, dtype=torch.float64), []
    for t in range(length):
        h = a[:, t] * h + b[:, t]
        rows.append(h)
    got = linear_scan(a, b, torch.ones(2, 3, 2, dtype=torch.float64), backend, chunk)
    torch.testing.assert_close(got, torch.stack(rows, 1))
    assert torch.equal(linear_scan(torch.ones(1, 4), torch.ones(1, 4), backend=backend)[0], torch.arange(1.0, 5))


def changed(**by):
    names = ("x", "delta", "A", "B", "C", "D", "state")
    tensors = dict(zip(names, (each.detach() for each in inputs()), strict=True))
    return {**tensors, **{name: change(tensors[name]) for name, change in by.items()}}


@pytest.mark.parametrize(
    ("by", "error", "said"),
    [
        ({"x": lambda t: t[0]}, ValueError, "x: expected 3 dimensions"),
        ({"x": lambda t: t[:, :0]}, ValueError, "at least one sequence and token"),
        ({"delta": lambda t: t[:, :3]}, ValueError, r"delta: expected shape \(2, 7, 3\), got \(2, 3, 3\)"),
        ({"A": lambda t: t[:2]}, ValueError, r"A: expected \(3, N >= 1\), got \(2, 4\)"),
        ({"B": lambda t: t[..., :2]}, ValueError, r"B: expected shape \(2, 7, 4\)"),
        ({"C": lambda t: t[:1]}, ValueError, r"C: expected shape \(2, 7, 4\)"),
        ({"D": lambda t: t[:2]}, ValueError, r"D: expected shape \(3,\)"),
        ({"state": lambda t: t[:1]}, ValueError, r"state: expected shape \(2, 3, 4\)"),
        ({"x": lambda t: t.long()}, TypeError, "x: expected a floating-point"),
        ({"delta": lambda t: t / 0}, ValueError, "delta: expected finite"),
    ],
)
def test_bad_input_is_refused(by, error, said):
    with pytest.raises(error, match=said):
        selective_scan(**changed(**by))


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="unknown backend 'cuda'; known: auto, chunked, doubling, fused, loop"):
        selective_scan(**changed(), backend="cuda")
    with pytest.raises(ValueError, match="chunk_size"):
        selective_scan(**changed(), chunk_size=0)
    a = torch.ones(2, 3, 4)
    with pytest.raises(ValueError, match="unknown backend 'fused'"):
        linear_scan(a, a, backend="fused")
    with pytest.raises(ValueError, match=r"b: expected the shape of a \(2, 3, 4\)"):
        linear_scan(a, a[:, :2])
    with pytest.raises(ValueError, match=r"state: expected \(2, 4\), got \(4,\)"):
        linear_scan(a, a, a[0, 0])
    with pytest.raises(ValueError, match="L >= 1"):
        linear_scan(a[:, :0], a[:, :0])
