"""Claims about the strips: equal to the plain form in value and gradient for every strip height, and small."""

from __future__ import annotations

import pytest
import torch

from sslcore.kernels import tiled
from sslcore.objectives.contrastive import mean_logsumexp
from sslcore.objectives.precision import unit_rows

CASES = {  # rows, candidates, width, skip, extra logit
    "batch with itself": (7, 7, 5, 0, False),
    "two rows": (2, 2, 3, 0, False),
    "in-batch keys": (5, 9, 4, None, False),
    "queue": (5, 9, 4, None, True),
    "own rows inside a gathered batch": (4, 12, 3, 8, False),
}


def run(twin, rows, candidates, extra, skip, **options):
    leaves = [x if x is None else x.clone().requires_grad_() for x in (rows, candidates, extra)]
    if skip == 0:
        leaves[1] = leaves[0]
    loss = twin(leaves[0], leaves[1], 1 / 0.05, skip, leaves[2], **options)
    (3 * loss).backward()
    return [loss.detach(), *[x.grad for x in leaves if x is not None]]


@pytest.mark.parametrize("strip_values", [1, 20, 33, 10**6])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_plain_form(case, strip_values):
    num, others, dim, skip, with_extra = CASES[case]
    rows, candidates = (unit_rows(torch.randn(n, dim, dtype=torch.float64)) for n in (num, others))
    extra = torch.randn(num, dtype=torch.float64) if with_extra else None
    expected = run(mean_logsumexp, rows, candidates, extra, skip)
    result = run(tiled.mean_logsumexp, rows, candidates, extra, skip, strip_values=strip_values)
    torch.testing.assert_close(result, expected)


def test_gradient_equals_finite_differences():
    rows, candidates, extra = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((4, 3), (6, 3), (4,)))
    assert torch.autograd.gradcheck(
        lambda a, b, e: tiled.mean_logsumexp(a, b, 2.0, 1, e, strip_values=12), (rows, candidates, extra)
    )


def test_only_wanted_gradients_and_no_second_derivative():
    rows = torch.randn(4, 3, requires_grad=True)
    queue = torch.randn(6, 3)
    tiled.mean_logsumexp(rows, queue, 2.0).backward()
    assert queue.grad is None and rows.grad is not None
    extra = torch.randn(4, requires_grad=True)
    for wanted in ("rows", "queue", "extra"):
        leaves = {"rows": rows.detach(), "queue": queue.clone(), "extra": extra.detach()}
        leaves[wanted].requires_grad_()
        results = []
        for form in (tiled.mean_logsumexp, mean_logsumexp):
            loss = form(leaves["rows"], leaves["queue"], 2.0, None, leaves["extra"])
            results.append(torch.autograd.grad(loss, leaves[wanted])[0])
        torch.testing.assert_close(*results)
    assert not tiled.mean_logsumexp(rows.detach(), queue, 2.0).requires_grad
    (grad,) = torch.autograd.grad(tiled.mean_logsumexp(rows, queue, 2.0), rows, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize("strip_values", [1, 20, 50, 10**6])
@pytest.mark.parametrize("temperature", [1 / 40, 0.5, 100.0])
@pytest.mark.parametrize("num", [2, 3, 10])
def test_pairs_equal_the_plain_form(num, temperature, strip_values):
    rows = unit_rows(torch.randn(num, 3, dtype=torch.float64)).requires_grad_()
    results = []
    for loss in (
        mean_logsumexp(rows, rows, 1 / temperature, 0),
        tiled.mean_over_pairs(rows, 1 / temperature, strip_values=strip_values),
    ):
        results.append((loss.detach(), *torch.autograd.grad(3 * loss, rows)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("strip_values", [7, 10**6])
def test_pairs_at_the_largest_scale(strip_values):
    """Two opposite bundles and one row against all: nothing underflows in float32."""
    rows = torch.tensor([[1.0, 0.0]]).repeat(6, 1)
    rows[0, 0] = -1
    rows.requires_grad_()
    losses = [
        mean_logsumexp(rows, rows, tiled.LARGEST_SCALE, 0),
        tiled.mean_over_pairs(rows, tiled.LARGEST_SCALE, strip_values=strip_values),
    ]
    grads = [torch.autograd.grad(loss, rows)[0] for loss in losses]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*grads)


def test_pairs_gradient_equals_finite_differences():
    rows = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    for strip_values in (10, 1000):
        pairs = lambda x: tiled.mean_over_pairs(unit_rows(x), 2.0, strip_values)  # noqa: B023, E731
        assert torch.autograd.gradcheck(pairs, rows)
    assert not pairs(rows.detach()).requires_grad


@pytest.mark.parametrize("dim", [257, 8192])
def test_wide_rows_and_more_negatives_than_a_strip_holds(dim):
    rows, queue = unit_rows(torch.randn(3, dim)), unit_rows(torch.randn(50, dim))
    expected = run(mean_logsumexp, rows, queue, torch.randn(3).mul(0), None)
    result = run(tiled.mean_logsumexp, rows, queue, torch.zeros(3), None, strip_values=8)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)


def test_never_holds_the_whole_matrix():
    rows = torch.randn(256, 2, requires_grad=True)

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        values = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                self.values = max(self.values, result.numel())
            return result

    with Largest() as seen:
        tiled.mean_logsumexp(rows, rows, 1.0, 0, strip_values=1024).backward()
    assert seen.values <= 1024
    with Largest() as seen:
        tiled.mean_over_pairs(rows, 1.0, strip_values=1024).backward()
    assert seen.values <= 1024
    with Largest() as seen:
        mean_logsumexp(rows, rows, 1.0, 0).backward()
    assert seen.values == 256 * 256
