"""Checks of the instruments behind "does the network use it?": partial correlation, edits of a subspace."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sslcore.checks.report import Report, draw, steady


def _library_correlation(x: torch.Tensor, y: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
    from sslcore.probes.same_object.agreement import within

    x, y = within(x[None].double(), cell)[0], within(y[None].double(), cell)[0]
    return (x @ y / (x.norm() * y.norm())).float()


@steady
def check_partial_correlation(fn: Callable | None = None) -> None:
    """fn(x (P,), y (P,), cell (P,) long) -> correlation of x and y once the mean of its cell is taken from each."""
    fn = fn or _library_correlation
    report = Report("partial_correlation")
    count = 4000
    cell = torch.arange(count) % 7
    place, s, noise = 5 * torch.cos(cell.float()), draw(count, seed=1), draw(count, seed=2)
    report.expect(abs(float(fn(place + noise, place + s, cell))) < 0.05,
                  "what both owe to the place alone is no correlation",
                  f"{float(fn(place + noise, place + s, cell)):.3f}, expected about 0",
                  "subtract the mean of the cell from x and from y")
    value = float(fn(place + s + 3**0.5 * noise, place + s, cell))
    report.expect(abs(value - 0.5) < 0.04, "s against s + noise of variance 3, in any place: one half", f"{value:.3f}")
    report.expect(abs(float(fn(-2 * s + place, s, cell)) + 1) < 0.01, "an exact opposite gives -1",
                  f"{float(fn(-2 * s + place, s, cell)):.3f}", "divide by both norms, after the means are gone")
    uneven = torch.where(torch.arange(count) < 40, 0, 1)
    shifted = float(fn(s + 100 * uneven, noise + 100 * uneven, uneven))
    report.expect(abs(shifted) < 0.06, "cells of any size", f"{shifted:.3f}, expected about 0")


def _library_edit(tokens: torch.Tensor, basis: torch.Tensor, alpha: float, order: torch.Tensor) -> torch.Tensor:
    from sslcore.probes.same_object.intervention import Edit
    from sslcore.probes.same_object.subspace import Subspace

    width = tokens.shape[-1]
    where = Subspace(basis, torch.zeros(width), torch.ones(width))
    return Edit("shuffle", where, alpha, permutation=order)(tokens)


@steady
def check_subspace_shuffle(fn: Callable | None = None) -> None:
    """fn(tokens (B, N, D), basis (D, k) orthonormal, alpha, order (B, N)) -> tokens whose part in the subspace comes,
    to the share alpha, from token order[b, n] of the same image."""
    fn = fn or _library_edit
    report = Report("subspace_shuffle")
    tokens, basis = draw(3, 6, 5, seed=1), torch.linalg.qr(draw(5, 2, seed=2))[0]
    order = torch.stack([torch.randperm(6, generator=torch.Generator().manual_seed(i)) for i in range(3)])
    report.expect(torch.equal(fn(tokens, basis, 0.0, order), tokens), "alpha = 0 changes no bit",
                  "some values differ", "write it as tokens + alpha * change")
    full = fn(tokens, basis, 1.0, order)
    report.close(full - full @ basis @ basis.T, tokens - tokens @ basis @ basis.T, "outside the subspace all stays",
                 "move tokens @ basis, not the tokens")
    loop = torch.stack([torch.stack([tokens[b, order[b, n]] @ basis for n in range(6)]) for b in range(3)])
    report.close(full @ basis, loop, "inside, token n holds what order[b, n] held", "each image has its own order")
    report.close(fn(tokens, basis, 0.25, order), tokens + 0.25 * (full - tokens), "alpha blends old and new")
