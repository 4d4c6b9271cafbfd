"""L-BFGS for many independent problems at once: each row of the parameter matrix is a problem of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def two_loop(gradient: Tensor, steps: list[Tensor], changes: list[Tensor], scales: list[Tensor]) -> Tensor:
    """Descent direction (S, P) from stored (step, gradient change, 1 / <step, change>); scale 0 skips a pair."""
    direction = -gradient
    weights = []
    for step, change, scale in zip(reversed(steps), reversed(changes), reversed(scales), strict=True):
        weight = scale * (step * direction).sum(1, keepdim=True)
        direction = direction - weight * change
        weights.append(weight)
    if steps:
        curvature = (steps[-1] * changes[-1]).sum(1, keepdim=True) / changes[-1].square().sum(1, keepdim=True)
        direction = direction * torch.where(scales[-1] > 0, curvature, torch.ones_like(curvature))
    for step, change, scale, weight in zip(steps, changes, scales, reversed(weights), strict=True):
        direction = direction + step * (weight - scale * (change * direction).sum(1, keepdim=True))
    return direction


def minimise(
    objective: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    max_steps: int = 100,
    tolerance: float = 1e-4,
    memory: int = 10,
) -> Tensor:
    """Minimise S smooth problems together; row s of the (S, P) result minimises problem s.

    objective: (points (R, P), rows (R,) problem numbers) -> values (R,) and gradients (R, P), row by row.
    A problem is done when its gradient's largest entry is below tolerance, or when no step lowers its value; only
    the others are evaluated again. Stops after max_steps.
    Method: L-BFGS two-loop recursion (Nocedal & Wright, algorithm 7.4) with a halving line search for each row.
    """
    point = start.clone()
    active = torch.arange(len(start), device=start.device)
    value, gradient = objective(point, active)
    steps, changes, scales = [], [], []
    for _ in range(max_steps):
        active = active[gradient[active].abs().amax(1) > tolerance]
        if len(active) == 0:
            break
        direction = two_loop(gradient, steps, changes, scales)
        slope = (direction * gradient).sum(1)
        downhill = slope < 0
        direction = torch.where(downhill[:, None], direction, -gradient)
        slope = torch.where(downhill, slope, -gradient.square().sum(1))
        length = torch.ones_like(value)
        if not steps:  # no curvature known yet: a first step of unit length at most
            length = 1 / direction.norm(dim=1).clamp_min(1.0)
        step, change = torch.zeros_like(point), torch.zeros_like(point)
        pending = active
        for _ in range(12):
            move = length[pending, None] * direction[pending]
            trial_value, trial_gradient = objective(point[pending] + move, pending)
            lower = trial_value <= value[pending] + 1e-4 * length[pending] * slope[pending]
            accepted = pending[lower]
            step[accepted], change[accepted] = move[lower], trial_gradient[lower] - gradient[accepted]
            value[accepted], gradient[accepted] = trial_value[lower], trial_gradient[lower]
            pending = pending[~lower]
            if len(pending) == 0:
                break
            length[pending] /= 2
        active = active[~torch.isin(active, pending)]  # nothing lower along the line: as exact as float32 allows
        point += step
        product = (step * change).sum(1, keepdim=True)
        usable = product > 1e-10 * change.square().sum(1, keepdim=True)
        steps.append(step)
        changes.append(torch.where(usable, change, torch.ones_like(change)))
        scales.append(torch.where(usable, 1 / product.clamp_min(1e-30), torch.zeros_like(product)))
        steps, changes, scales = steps[-memory:], changes[-memory:], scales[-memory:]
    return point
