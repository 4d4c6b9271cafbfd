"""data2vec 2.0: regress what an averaged teacher, who sees the whole image, thinks at the hidden patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcore.objectives.precision import full_precision, without_autocast
from sslcore.validate import (
    check_finite,
    check_float,
    check_mask,
    check_rank,
    check_same_device,
    require,
    values_are_checked,
)


@torch.no_grad()
@without_autocast
def contextual_targets(layers: Sequence[Tensor], instance_norm: bool = True, eps: float = 1e-5) -> Tensor:
    """Average the layers of a teacher into one target a patch, on one scale.

        for layer a (B, N, D):
            a[b, :, d] = (a[b, :, d] - mean) / sqrt(var + eps)     # over the N patches of one image, channel by channel
        y = mean of the layers
        return (y[b, n] - mean) / sqrt(var + eps)                  # over the D channels of one patch

    layers: K >= 1 tensors (B, N, D) of patch tokens, N and D >= 2. Variances are biased. The first step takes out what
    all patches of an image share; instance_norm=False leaves it in. Returns (B, N, D) float32 without gradient: mean 0
    and variance 1 in each patch, so that a zero prediction costs sqrt(D) in `data2vec_loss`.
    Raises ValueError for no layers, shapes that do not fit or NaN; TypeError for integers.
    Source: Baevski et al. 2023 (data2vec 2.0), section 3.1, and its public code.
    """
    require(len(layers) >= 1, "layers: expected at least one, got none")
    total = 0.0
    for index, layer in enumerate(layers):
        name = f"layers[{index}]"
        check_rank(name, layer, 3)
        check_float(name, layer)
        check_finite(name, layer)
        fits = layer.shape == layers[0].shape and layer.shape[1] >= 2 and layer.shape[2] >= 2
        require(fits, f"{name}: expected one shape (B, N >= 2, D >= 2) for all layers, got {tuple(layer.shape)}")
        layer = full_precision(layer)
        if instance_norm:
            layer = layer - layer.mean(1, keepdim=True)
            layer = layer * (layer.square().mean(1, keepdim=True) + eps).rsqrt()
        total = total + layer
    return F.layer_norm(total / len(layers), total.shape[2:], eps=eps)


class Data2VecTerms(NamedTuple):
    """patches: at the hidden patches. cls: of the class token, weighted. total: their sum."""

    patches: Tensor
    cls: Tensor
    total: Tensor


@without_autocast
def data2vec_loss(
    pred: Tensor,
    target: Tensor,
    mask: Tensor,
    cls_pred: Tensor | None = None,
    cls_weight: float = 1.0,
    beta: float = 0.0,
) -> Data2VecTerms:
    """Regression at the hidden patches of M masked copies, all against the one target of their image.

        patches = mean(cost(pred[b, m, n] - target[b, n]) for b, m, n where mask[b, m, n])
        cls = cls_weight * mean(cost(cls_pred[b, m] - mean(target[b])) for b, m)
        cost(e) = sum(e[d] ** 2 for d) / sqrt(D)           # beta > 0: smooth L1 in place of the square

    pred: (B, M, N, D), or only the hidden ones, (B, M, H, D) in rising order of patch, where every copy hides H.
    target: (B, N, D) of `contextual_targets`; no gradient reaches it. mask: (B, M, N) bool, True = hidden.
    cls_pred: (B, M, D), or None for no such term. beta: where smooth L1 turns from square to line (divided by beta).
    cls_weight 1 to 2.5 is what the authors' sum over 256 copies times 0.01 comes to.
    Raises ValueError for shapes that do not fit, an empty mask, NaN or a negative weight; TypeError for integers or a
    mask that is not boolean. Source: Baevski et al. 2023 (data2vec 2.0), section 3.1, and its public code.
    """
    check_rank("pred", pred, 4)
    check_rank("target", target, 3)
    check_float("pred", pred)
    check_float("target", target)
    check_finite("pred", pred)
    check_finite("target", target)
    check_same_device("pred", pred, "target", target)
    (batch, copies, given, dim), patches = pred.shape, target.shape[1]
    require(
        (batch, dim) == (target.shape[0], target.shape[2]) and copies >= 1 and given <= patches,
        f"pred: expected (B, M, up to N, D) for target {tuple(target.shape)}, got {tuple(pred.shape)}",
    )
    check_mask("mask", mask, (batch, copies, patches))
    check_same_device("pred", pred, "mask", mask)
    require(beta >= 0, f"beta: expected 0 or more, got {beta}")
    require(cls_weight >= 0, f"cls_weight: expected 0 or more, got {cls_weight}")
    target = full_precision(target).detach()
    goal = target[:, None].expand(-1, copies, -1, -1)
    if given < patches:
        if values_are_checked(mask):
            counts = sorted(set(mask.sum(dim=2).flatten().tolist()))
            require(counts == [given], f"pred: expected all patches or the {counts} hidden ones, got {given}")
        hidden = mask.int().argsort(dim=2, descending=True, stable=True)[:, :, :given]
        goal = goal.gather(2, hidden[..., None].expand(-1, -1, -1, dim))
    cost = _cost(full_precision(pred) - goal, beta)
    main = cost.mean() if given < patches else (cost * mask).sum() / mask.sum()
    cls = main.new_zeros(())
    if cls_pred is not None:
        fits = tuple(cls_pred.shape) == (batch, copies, dim)
        require(fits, f"cls_pred: expected ({batch}, {copies}, {dim}), got {tuple(cls_pred.shape)}")
        check_finite("cls_pred", cls_pred)
        cls = cls_weight * _cost(full_precision(cls_pred) - target.mean(1)[:, None], beta).mean()
    return Data2VecTerms(main, cls, main + cls)


def _cost(error: Tensor, beta: float) -> Tensor:
    if beta > 0:
        error = F.smooth_l1_loss(error, torch.zeros_like(error), reduction="none", beta=beta)
    else:
        error = error.square()
    return error.sum(-1) / error.shape[-1] ** 0.5
