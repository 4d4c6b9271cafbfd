"""Each check passes what it should, and says what was expected and what came otherwise."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sslcore import validate


def test_require():
    validate.require(True, "never seen")
    with pytest.raises(ValueError, match="^expected three, got four$"):
        validate.require(False, "expected three, got four")


@given(shape=st.lists(st.integers(0, 3), max_size=5), rank=st.integers(0, 5))
def test_rank(shape, rank):
    tensor = torch.zeros(shape)
    if len(shape) == rank:
        validate.check_rank("x", tensor, rank)
    else:
        with pytest.raises(ValueError, match=f"x: expected {rank} dimensions, got shape"):
            validate.check_rank("x", tensor, rank)


def test_tensor_and_float():
    for value in ([1.0], 2.0, None):
        with pytest.raises(TypeError, match="expected a torch.Tensor, got"):
            validate.check_float("x", value)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        validate.check_float("x", torch.zeros(1, dtype=dtype))
    for dtype in (torch.uint8, torch.long, torch.bool, torch.complex64):
        with pytest.raises(TypeError, match="expected a floating-point tensor, got torch"):
            validate.check_float("x", torch.zeros(1, dtype=dtype))


def test_same_shape_and_device():
    a = torch.zeros(2, 3)
    validate.check_same_shape("a", a, "b", a)
    with pytest.raises(ValueError, match=r"a and b: expected equal shapes, got \(2, 3\) and \(3, 2\)"):
        validate.check_same_shape("a", a, "b", a.T)
    with pytest.raises(ValueError, match="expected one device, got cpu and meta"):
        validate.check_same_shape("a", a, "b", a.to("meta"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_finite(value):
    validate.check_finite("x", torch.zeros(0))
    validate.check_finite("x", torch.ones(3))
    with pytest.raises(ValueError, match="x: expected finite values, got 1 NaN or infinite of 3"):
        validate.check_finite("x", torch.tensor([0.0, value, 1.0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_finite_takes_every_type_and_shape(dtype):
    for shape in ((), (3, 2), (2, 0)):
        validate.check_finite("x", torch.ones(shape, dtype=dtype))
    validate.check_finite("x", torch.ones(4, 3).T.to(dtype))
    if dtype.is_floating_point:
        for bad in (math.nan, -math.inf):
            with pytest.raises(ValueError, match="got 2 NaN or infinite of 6"):
                validate.check_finite("x", torch.tensor([[1.0, bad], [bad, 2.0], [0.0, 3.0]]).to(dtype))


def test_values_are_looked_at_where_it_is_cheap(monkeypatch):
    monkeypatch.delenv("SSLCORE_CHECK_VALUES", raising=False)
    assert validate.values_are_checked(torch.zeros(1))
    assert not validate.values_are_checked(torch.zeros(1, device="meta"))
    bad = torch.full((2,), math.nan)
    assert (
        torch.compile(lambda x: (validate.check_finite("x", x), x + 1)[1], backend="eager", fullgraph=True)(bad)
        .isnan()
        .all()
    )


@pytest.mark.gpu
def test_gpu_values_are_looked_at_on_request(monkeypatch):
    bad = torch.full((2,), math.nan, device="cuda")
    monkeypatch.delenv("SSLCORE_CHECK_VALUES", raising=False)
    validate.check_finite("x", bad)
    monkeypatch.setenv("SSLCORE_CHECK_VALUES", "1")
    with pytest.raises(ValueError, match="finite"):
        validate.check_finite("x", bad)


def test_mask():
    mask = torch.tensor([[True, False]])
    validate.check_mask("mask", mask, (1, 2))
    with pytest.raises(TypeError, match="expected a boolean mask"):
        validate.check_mask("mask", mask.float(), (1, 2))
    with pytest.raises(ValueError, match=r"expected shape \(2, 1\), got \(1, 2\)"):
        validate.check_mask("mask", mask, (2, 1))
    with pytest.raises(ValueError, match="got an empty mask"):
        validate.check_mask("mask", ~mask & mask, (1, 2))


@given(shape=st.lists(st.integers(0, 4), max_size=5))
def test_images(shape):
    images = torch.zeros(shape, dtype=torch.uint8)
    if len(shape) == 4 and shape[0] >= 1 and shape[1] in (1, 3):
        validate.check_images("images", images)
        validate.check_images("images", images.half())
        with pytest.raises(TypeError, match="expected uint8 or floating point, got torch.int64"):
            validate.check_images("images", images.long())
    else:
        with pytest.raises(ValueError, match="images: expected"):
            validate.check_images("images", images)


def test_positive():
    for number in (1e-9, 1, 3.5):
        validate.check_positive("x", number)
    for number in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"x: expected a finite number above 0, got {number}"):
            validate.check_positive("x", number)


def test_unknown():
    with pytest.raises(ValueError, match="unknown loss 'c'; known: a, b"):
        validate.unknown("loss", "c", ["b", "a"])
