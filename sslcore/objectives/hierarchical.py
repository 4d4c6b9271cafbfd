"""The label of two levels: which super-class, and which class within it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcore.objectives.precision import full_precision, without_autocast
from sslcore.validate import check_finite, check_float, check_rank, check_same_device, require, values_are_checked


class HierarchicalTerms(NamedTuple):
    """total = super_class + sub_class: mean cross-entropies of the super-class and of the class within it, in nats."""

    total: Tensor
    super_class: Tensor
    sub_class: Tensor


def _check_labels(name: str, labels: Tensor, batch: int, classes: int) -> None:
    check_rank(name, labels, 1)
    require(len(labels) == batch, f"{name}: expected {batch}, one a row, got {len(labels)}")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"{name}: expected whole numbers, got {labels.dtype}")
    if values_are_checked(labels):
        low, high = (int(value) for value in labels.aminmax())
        require(0 <= low and high < classes, f"{name}: expected values in [0, {classes}), got {low} to {high}")


@without_autocast
def hierarchical_cross_entropy(
    super_logits: Tensor, sub_logits: Tensor, supers: Tensor, subs: Tensor
) -> HierarchicalTerms:
    """-log p(super) - log p(sub | super): a joint label of S * K classes, paid for as S and K.

        for b in range(B):
            p = softmax(super_logits[b])                               # (S,)
            q = softmax(sub_logits[b, supers[b]])                      # (K,), the head of the true super-class alone
            losses[b] = -log(p[supers[b]]) - log(q[subs[b]])
        return mean(losses)

    super_logits: (B, S). sub_logits: (B, S, K), one head of K for each super-class; heads of other super-classes get
    no gradient from the row. supers, subs: (B,) whole numbers. With K = 1 the second term is exactly 0, with S = 1 the
    first. exp(-loss) is a distribution over the S * K pairs.
    Raises ValueError for wrong ranks, sizes that differ, labels out of range (on the CPU), an empty batch or NaN;
    TypeError for integer logits or labels that are not whole. Source: Caron et al. 2019 (DeeperCluster), equation 4,
    where each super-class sits on its own GPUs and only its head is computed.
    """
    for name, value, rank in (("super_logits", super_logits, 2), ("sub_logits", sub_logits, 3)):
        check_rank(name, value, rank)
        check_float(name, value)
        require(value.numel() >= 1, f"{name}: expected at least one value, got shape {tuple(value.shape)}")
        check_finite(name, value)
    check_same_device("super_logits", super_logits, "sub_logits", sub_logits)
    batch, num_super, num_sub = sub_logits.shape
    require(
        tuple(super_logits.shape) == (batch, num_super),
        f"super_logits, sub_logits: expected (B, S) and (B, S, K), got {tuple(super_logits.shape)} and "
        f"{tuple(sub_logits.shape)}",
    )
    _check_labels("supers", supers, batch, num_super)
    _check_labels("subs", subs, batch, num_sub)
    own = sub_logits[torch.arange(batch, device=sub_logits.device), supers]
    super_class = F.cross_entropy(full_precision(super_logits), supers)
    sub_class = F.cross_entropy(full_precision(own), subs)
    return HierarchicalTerms(super_class + sub_class, super_class, sub_class)
