"""Optimisers, what they decay, and the learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sslcore.validate import check_positive, require, unknown


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose step is scaled, tensor by tensor, to the size of the weights.

        g = grad + weight_decay * w
        g = g * trust * |w| / |g|          (only where adapt, and only if both norms are above 0)
        m = momentum * m + g
        w = w - lr * m

    params: parameters or groups; a group may set `adapt` False to leave out the second line.
    lr, momentum, weight_decay, trust: scalars; trust is 0.001 in SimCLR, BYOL, Barlow Twins and VICReg.
    Raises ValueError on lr below 0. Source: You, Gitman, Ginsburg 2017, arXiv 1708.03888, with the learning rate
    outside the momentum, as in the self-supervised codebases.
    """

    def __init__(
        self, params: Any, lr: float, momentum: float = 0.9, weight_decay: float = 0.0, trust: float = 0.001
    ) -> None:
        require(lr >= 0, f"lr: expected at least 0, got {lr}")
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "adapt": True}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            # One launch for all tensors of a group instead of several for each.
            updates = torch._foreach_add([w.grad for w in weights], weights, alpha=group["weight_decay"])
            if group["adapt"]:
                sizes = zip(torch._foreach_norm(weights), torch._foreach_norm(updates), strict=True)
                ratios = [
                    torch.where((size > 0) & (change > 0), group["trust"] * size / change, torch.ones_like(size))
                    for size, change in sizes
                ]
                torch._foreach_mul_(updates, ratios)
            for weight in weights:
                self.state[weight].setdefault("momentum", torch.zeros_like(weight))
            momenta = [self.state[weight]["momentum"] for weight in weights]
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_add_(momenta, updates)
            torch._foreach_add_(weights, momenta, alpha=-group["lr"])
        return loss


def _sgd(groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=lr, momentum=0.9, fused=_on_cuda(groups) or None)


def _adamw(groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999), fused=_on_cuda(groups) or None)


def _on_cuda(groups: list[dict[str, Any]]) -> bool:
    return all(weight.is_cuda for group in groups for weight in group["params"])


def _lars(groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    return LARS([{**group, "adapt": group["name"] == "weights"} for group in groups], lr=lr)


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], float], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "sgd": _sgd,
    "lars": _lars,
}


def param_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trained parameters in two groups: "weights" (decayed) and "vectors" (biases, norms, scalars: never decayed)."""
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    require(len(trained) > 0, "method: expected at least one parameter to train, got none")
    groups = [
        {"name": "weights", "params": [w for w in trained if w.ndim > 1], "weight_decay": weight_decay},
        {"name": "vectors", "params": [w for w in trained if w.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimizer(
    name: str | Callable[[list[dict[str, Any]], float], torch.optim.Optimizer],
    module: nn.Module,
    lr: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """An optimiser by name ("adamw", "sgd", "lars") or from a function of (groups, lr). ValueError on unknown names."""
    check_positive("lr", lr)
    require(weight_decay >= 0, f"weight_decay: expected at least 0, got {weight_decay}")
    if not callable(name) and name not in OPTIMIZERS:
        unknown("optimizer", name, OPTIMIZERS)
    build = name if callable(name) else OPTIMIZERS[name]
    return build(param_groups(module, weight_decay), lr)


def warmup_cosine(step: int, steps: int, lr: float, warmup: float = 0.1, min_lr: float = 0.0) -> float:
    """Learning rate of a step: a straight line up to lr over warmup * steps, then half a cosine towards min_lr.

    step: 0 .. steps - 1. The first step is never at 0, the last one lies just above min_lr.
    """
    rising = round(warmup * steps)
    if step < rising:
        return lr * (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)
    return min_lr + 0.5 * (lr - min_lr) * (1 + math.cos(math.pi * done))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the learning rate of this step, times the group's own `lr_scale` where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
