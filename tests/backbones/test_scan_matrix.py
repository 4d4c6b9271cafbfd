"""Claims: the matrix times the input is the scan; SSD is another layer, equal to the scan where decays are shared."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcore.backbones import scan_matrix, selective_scan, ssd_scan


def inputs(batch=2, length=9, dim=3, number=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, B, C = (torch.randn(batch, length, size, generator=g, dtype=torch.float64) for size in (dim, number, number))
    delta = torch.rand(batch, length, dim, generator=g, dtype=torch.float64)
    return x, delta, -3 * torch.rand(dim, number, generator=g, dtype=torch.float64), B, C


@given(length=st.integers(1, 12), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_matrix_is_the_scan(length, seed):
    x, *rest = inputs(length=length, seed=seed)
    matrix = scan_matrix(*rest)
    expected = selective_scan(x, *rest, backend="loop")
    torch.testing.assert_close(torch.einsum("bdts,bsd->btd", matrix, x), expected)
    assert not matrix.triu(1).any()


def test_matrix_is_the_gradient_of_the_scan_in_x():
    x, *rest = inputs(batch=1)
    jacobian = torch.autograd.functional.jacobian(lambda s: selective_scan(s, *rest, backend="doubling"), x)
    matrix = scan_matrix(*rest)[0]
    for d in range(x.shape[2]):
        torch.testing.assert_close(jacobian[0, :, d, 0, :, d], matrix[d])


def test_long_steps_leave_finite_gradients():
    _, delta, A, B, C = inputs(length=30)
    A.requires_grad_()
    scan_matrix(1000 * delta, A, B, C).sum().backward()
    assert bool(torch.isfinite(A.grad).all())


@given(length=st.integers(1, 20), chunk=st.integers(1, 22), heads=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_ssd_is_the_scan_with_one_decay_a_head(length, chunk, heads, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(2, length, heads, 3, generator=g, dtype=torch.float64)
    delta, A = torch.rand(2, length, heads, generator=g).double(), -torch.rand(heads, generator=g).double()
    B, C = torch.randn(2, 2, length, 5, generator=g, dtype=torch.float64)
    got = ssd_scan(x, delta, A, B, C, chunk_size=chunk)
    wide = delta.repeat_interleave(3, 2), A.repeat_interleave(3)[:, None].expand(-1, 5)
    expected = selective_scan(x.flatten(2), wide[0], wide[1], B, C, backend="loop")
    torch.testing.assert_close(got.flatten(2), expected)


def test_ssd_gradients_do_not_depend_on_the_chunk():
    g = torch.Generator().manual_seed(0)
    x, delta, A = torch.randn(1, 11, 2, 3, generator=g), torch.rand(1, 11, 2, generator=g), -torch.rand(2, generator=g)
    B, C = torch.randn(2, 1, 11, 4, generator=g)
    tensors = [each.requires_grad_() for each in (x, delta, A, B.clone(), C.clone())]
    grads = [torch.autograd.grad(ssd_scan(*tensors, chunk_size=chunk).sin().sum(), tensors) for chunk in (1, 4, 11, 50)]
    for other in grads[1:]:
        for got, expected in zip(other, grads[0], strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_bad_input_is_refused():
    _, delta, A, B, C = inputs()
    with pytest.raises(ValueError, match="delta: expected 3 dimensions"):
        scan_matrix(delta[0], A, B, C)
    with pytest.raises(ValueError, match=r"A: expected \(3, N\), got \(2, 4\)"):
        scan_matrix(delta, A[:2], B, C)
    with pytest.raises(ValueError, match=r"C: expected \(2, 9, 4\)"):
        scan_matrix(delta, A, B, C[:, :3])
    x, step, rate = torch.randn(2, 9, 2, 3), torch.rand(2, 9, 2), -torch.rand(2)
    with pytest.raises(ValueError, match="x: expected 4 dimensions"):
        ssd_scan(x[0], step, rate, B, C)
    with pytest.raises(ValueError, match=r"delta: expected \(2, 9, 2\)"):
        ssd_scan(x, step[:, :3], rate, B, C)
    with pytest.raises(ValueError, match=r"A: expected \(2,\)"):
        ssd_scan(x, step, rate[:1], B, C)
    with pytest.raises(ValueError, match="chunk_size"):
        ssd_scan(x, step, rate, B, C, chunk_size=0)
