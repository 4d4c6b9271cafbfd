"""Claims about precision: what is upcast, what autocast may do, and unit rows at the ends of the number range."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sslcore.objectives.precision import full_precision, same_precision, unit_rows, without_autocast


def test_full_precision_upcasts_halves_only():
    for dtype, expected in (
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        assert full_precision(torch.ones(1, dtype=dtype)).dtype == expected
    assert [x.dtype for x in same_precision(torch.ones(1).half(), torch.ones(1).double())] == [torch.float64] * 2
    assert [x.dtype for x in same_precision(torch.ones(1).half(), torch.ones(1))] == [torch.float32] * 2


def test_without_autocast_restores_it_also_after_an_error():
    @without_autocast
    def product(a, b, fail=False):
        if fail:
            raise ValueError("on purpose")
        return a @ b

    a = torch.randn(4, 4)
    assert product(a, a).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
        assert product(a, b=a).dtype == torch.float32
        with pytest.raises(ValueError, match="on purpose"):
            product(a, a, fail=True)
        assert (a @ a).dtype == torch.bfloat16


@pytest.mark.parametrize("size", [1e-10, 1e-3, 1.0, 1e5, 1e25])
def test_unit_rows_equal_normalize_at_every_length(size):
    x = torch.randn(5, 7) * size
    torch.testing.assert_close(unit_rows(x), F.normalize(x.double()).float())


def test_unit_rows_gradient_and_zero_rows():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit_rows, x) and torch.autograd.gradgradcheck(unit_rows, x)
    zero = torch.zeros(2, 3, requires_grad=True)
    upstream = torch.randn(2, 3)
    rows = unit_rows(zero)
    rows.backward(upstream)
    assert rows.abs().max() == 0 and torch.equal(zero.grad, upstream)
