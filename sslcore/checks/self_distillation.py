"""Checks of the self-distillation objectives and of the moving-average teacher."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from sslcore.checks.report import Report, draw, steady


@steady
def check_negative_cosine(fn: Callable | None = None) -> None:
    """fn(p (N, D), z (N, D)) -> scalar in [-1, 1]."""
    if fn is None:
        from sslcore.objectives import negative_cosine as fn
    report = Report("negative_cosine")
    p, z = draw(6, 4, seed=1), draw(6, 4, seed=2)

    def loss(a, b):
        return report.scalar(fn(a, b))

    report.close(loss(p, 3 * p), -1.0, "the same direction gives -1", "normalise both; mind the sign")
    report.close(loss(p, -p), 1.0, "opposite directions give 1")
    corners = torch.eye(4)
    report.close(loss(corners, corners.roll(1, 0)), 0.0, "orthogonal directions give 0", "row n goes with row n only")
    mixed = torch.cat([loss(p[n : n + 1], z[n : n + 1])[None] for n in range(6)]).mean()
    report.close(loss(p, z), mixed, "the loss is the mean over images")
    leaf = p.clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(leaf, z), leaf)
    report.expect((grad * p).sum(1).abs().max() < 1e-5, "the gradient is at right angles to the prediction",
                  "it also changes the length", "divide by the norm inside the graph, not detached")


@steady
def check_dino_loss(fn: Callable | None = None) -> None:
    """fn(student_logits (S, B, K), teacher_logits (T, B, K), center (K,), student_temp, teacher_temp) -> scalar."""
    if fn is None:
        from sslcore.objectives import dino_loss as fn
    report = Report("dino_loss")
    student, teacher, center = draw(4, 3, 7, seed=1), draw(2, 3, 7, seed=2), draw(7, seed=3)

    def loss(s, t, c=center, student_temp=0.1, teacher_temp=0.04):
        return report.scalar(fn(s, t, c, student_temp, teacher_temp))

    flat = torch.zeros(4, 3, 7)
    report.close(loss(flat, flat[:2], torch.zeros(7)), math.log(7), "equal logits give ln K",
                 "cross-entropy -sum q log p, mean over pairs and batch")
    report.close(loss(student, teacher + 4), loss(student, teacher), "a constant added to all teacher logits cancels")
    moved = loss(student, teacher + draw(7, seed=4), center + draw(7, seed=4))
    report.close(moved, loss(student, teacher), "a shift of teacher and centre together cancels",
                 "subtract the centre from the teacher, before the temperature; the student is not centred")
    pairs = [(t, s) for t in range(2) for s in range(4) if s != t]
    total = 0.0
    for t, s in pairs:
        target = torch.softmax((teacher[t] - center) / 0.07, dim=1)
        total -= float((target * torch.log_softmax(student[s] / 0.2, dim=1)).sum(1).mean())
    # Other temperatures than the usual ones, so that a function which ignores its arguments is found.
    report.close(loss(student, teacher, student_temp=0.2, teacher_temp=0.07), total / len(pairs),
                 "the mean over the pairs of different crops",
                 "student crop s and teacher crop t are compared only where s != t; divide by T * (S - 1), and use the "
                 "temperatures that are given")
    leaf = teacher.clone().requires_grad_()
    learner = student.clone().requires_grad_()
    grads = torch.autograd.grad(loss(learner, leaf), (learner, leaf), allow_unused=True)
    report.expect(grads[0] is not None and grads[0].abs().sum() > 0, "the student receives a gradient", "none")
    report.expect(grads[1] is None or not grads[1].any(), "the teacher receives none", "a gradient",
                  "detach the targets: the teacher moves only as an average of the student")


@steady
def check_koleo(fn: Callable | None = None) -> None:
    """fn(z (N, D)) -> scalar."""
    if fn is None:
        from sslcore.objectives import koleo as fn
    report = Report("koleo")
    z = draw(8, 4, seed=1)

    def loss(x):
        return report.scalar(fn(x))

    report.close(loss(torch.tensor([[1.0, 0.0], [-2.0, 0.0]])), -math.log(2), "an opposite pair gives -ln 2",
                 "distance of normalised rows; the nearest is never the row itself")
    report.close(loss(z * torch.arange(1, 9)[:, None]), loss(z), "the length of an embedding does not matter")
    crowded = torch.cat([z[:1] + 0.01 * draw(4, 4, seed=2), z[4:]])
    report.expect(loss(crowded) > loss(z), "crowding costs more than spreading",
                  f"{float(loss(crowded)):.3f} against {float(loss(z)):.3f}", "mind the sign")
    unit = z / z.norm(dim=1, keepdim=True)
    nearest = [min(float((unit[i] - unit[j]).norm()) for j in range(8) if j != i) for i in range(8)]
    report.close(loss(z), -sum(math.log(d) for d in nearest) / 8, "the mean over rows of -log distance to the nearest")


@steady
def check_update_center(fn: Callable | None = None) -> None:
    """fn(center (K,), teacher_logits (T, B, K), momentum) -> next centre (K,)."""
    if fn is None:
        from sslcore.objectives import update_center as fn
    report = Report("update_center")
    center, logits = draw(5, seed=1), draw(2, 3, 5, seed=2)
    kept = center.clone()
    report.close(fn(center, logits, 1.0), kept, "momentum 1 keeps the centre")
    report.close(fn(center, logits, 0.0), logits.reshape(6, 5).mean(0), "momentum 0 gives the mean of all logits",
                 "average over crops and batch, not over the K prototypes")
    expected = 0.9 * kept + 0.1 * logits.reshape(6, 5).mean(0)
    report.close(fn(kept.clone(), logits, 0.9), expected, "momentum 0.9 moves a tenth of the way")
    leaf = logits.clone().requires_grad_()
    report.expect(not fn(kept.clone(), leaf, 0.9).requires_grad, "the centre carries no gradient",
                  "it does: the graph of every step would stay in memory", "detach, or compute under no_grad")


def _network(seed: int) -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with torch.no_grad():
        for order, parameter in enumerate(net.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=seed + order))
    return net


@steady
def check_update_ema(fn: Callable | None = None) -> None:
    """fn(teacher module, student module, momentum): changes the teacher's parameters in place."""
    if fn is None:
        from sslcore.backbones import update_ema as fn
    report = Report("update_ema")

    def moved(momentum):
        teacher, student = _network(10), _network(20)
        fn(teacher, student, momentum)
        return teacher, student

    start, goal = list(_network(10).parameters()), list(_network(20).parameters())
    for momentum, what in ((1.0, "momentum 1 keeps the teacher"), (0.0, "momentum 0 copies the student"),
                           (0.9, "momentum 0.9 moves a tenth of the way")):
        teacher, student = moved(momentum)
        expected = torch.cat([(momentum * a + (1 - momentum) * b).flatten() for a, b in zip(start, goal, strict=True)])
        got = torch.cat([parameter.flatten() for parameter in teacher.parameters()])
        report.close(got, expected, what, "teacher <- momentum * teacher + (1 - momentum) * student, every parameter")
    unchanged = all(torch.equal(a, b) for a, b in zip(student.parameters(), goal, strict=True))
    report.expect(unchanged, "the student is not touched", "its parameters changed")
    teacher, student = moved(0.0)
    apart = all(a.data_ptr() != b.data_ptr() for a, b in zip(teacher.parameters(), student.parameters(), strict=True))
    report.expect(apart, "teacher and student share no memory", "a parameter of both is one tensor",
                  "copy the values, do not assign the student's tensors")
    leaves = all(parameter.is_leaf for parameter in teacher.parameters())
    report.expect(leaves, "no graph grows behind the teacher", "its parameters carry history", "use torch.no_grad")
