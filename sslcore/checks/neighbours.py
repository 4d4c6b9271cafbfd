"""Checks of the objectives that read labels off neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sslcore.checks.report import Report, draw, steady


def gradient(value: Tensor, z: Tensor) -> Tensor:
    """Gradient of value on z, zeros where the two are not connected."""
    if not value.requires_grad:
        return torch.zeros_like(z)
    (grad,) = torch.autograd.grad(value, z, allow_unused=True)
    return torch.zeros_like(z) if grad is None else grad


@steady
def check_supcon(fn: Callable | None = None) -> None:
    """fn(z (N, D), labels (N,), temperature) -> scalar; see sslcore.objectives.supcon."""
    if fn is None:
        from sslcore.objectives import supcon as fn
    report = Report("supcon")
    z, labels = draw(8, 5, seed=1), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])

    def loss(z, labels, temperature=0.5):
        return report.scalar(fn(z, labels, temperature))

    report.close(loss(torch.ones(6, 4), labels[:6]), math.log(5), "equal embeddings give ln(N - 1)",
                 "each row chooses among the N - 1 others, itself left out")
    report.close(loss(3 * z, labels), loss(z, labels), "the length of an embedding does not matter",
                 "normalise the rows first")
    report.close(loss(z, 7 - labels), loss(z, labels), "the names of the classes do not matter")
    corners = torch.eye(4)[[0, 0, 1, 1]]
    report.close(loss(corners, torch.tensor([0, 0, 1, 1])), math.log(math.exp(2) + 2) - 2,
                 "two pairs at a right angle, worked by hand", "logits are cosines divided by the temperature")
    spread = torch.eye(3)[[0, 0, 1, 2]]  # row 0 has one mate beside it and one at a right angle
    lse = [math.log(math.exp(2) + 2)] * 2 + [math.log(3)] * 2
    rows = [lse[0] - 1.0, lse[1] - 1.0, lse[2]]
    report.close(loss(spread, torch.tensor([0, 0, 0, 1])), sum(rows) / 3,
                 "the mean over mates stands outside the log, and a row without a mate is left out",
                 "average -log p over the mates of a row, then over the rows that have mates")
    z = draw(6, 4, seed=2).requires_grad_()
    grad = gradient(loss(z, torch.tensor([0, 0, 0, 1, 1, 1])), z)
    report.expect((grad.norm(dim=1) > 0).all(), "gradients reach every row",
                  "a row without gradient", "do not detach")


@steady
def check_leave_one_out(fn: Callable | None = None) -> None:
    """fn(z (N, D), labels (N,), k, temperature) -> scalar; see sslcore.objectives.leave_one_out_knn."""
    if fn is None:
        from sslcore.objectives import leave_one_out_knn as fn
    report = Report("leave_one_out")

    def loss(z, labels, k, temperature=0.5):
        return report.scalar(fn(z, labels, k, temperature))

    z, labels = draw(9, 5, seed=1), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    report.close(loss(torch.ones(6, 4), torch.tensor([0, 0, 0, 1, 1, 1]), 5), math.log(5 / 2),
                 "equal embeddings cost -ln of the share of the own class", "the row itself is no neighbour")
    report.close(loss(0.1 * z, labels, 4), loss(z, labels, 4), "the length of an embedding does not matter",
                 "normalise the rows first")
    corner = torch.eye(4)[[0, 0, 1, 2]]
    near, far = math.exp(2), 1.0  # temperature 1/2
    rows = [-math.log(near / (near + 2 * far))] * 2 + [math.log(3)] * 2
    report.close(loss(corner, torch.tensor([0, 0, 1, 1]), 3), sum(rows) / 4, "weights are exp(cosine / temperature)",
                 "rows 2 and 3 are mates at a right angle: one of three equal neighbours")
    modes = torch.eye(6)[[0] * 4 + [1] * 4 + [2] * 4] + 0.05 * draw(12, 6, seed=3)
    pure = modes.clone().requires_grad_()
    names = torch.tensor([0] * 8 + [1] * 4)
    value = loss(pure, names, 3)
    pull = float(gradient(value, pure).abs().max())
    report.close(value, 0.0, "a class in two pure groups costs nothing",
                 "only the k nearest vote; the sum over mates stands inside the log")
    report.expect(pull < 1e-5, "and pulls on nothing", f"a gradient of {pull:.3g}", "see the line above")
    report.expect(loss(modes, names, 7) > 0.01, "with k beyond the size of a group the peace ends",
                  f"loss {float(loss(modes, names, 7)):.4f}", "use k, not a fixed number of neighbours")
    alone = loss(torch.ones(4, 3), torch.tensor([0, 0, 0, 1]), 3)  # three rows with two mates of three, one with none
    report.close(alone, math.log(3 / 2), "a row without a mate is left out",
                 "log(0) is not finite, and a floor under it is a huge loss: drop such rows before the mean")
    z = draw(9, 5, seed=4).requires_grad_()
    grad = gradient(loss(z, labels, 8), z)
    report.expect((grad.norm(dim=1) > 0).all(), "gradients reach every row",
                  "a row without gradient", "the choice of neighbours has no gradient, their similarities do")
