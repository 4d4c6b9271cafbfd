"""Barlow Twins: make the cross-correlation of the two views' features the identity."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslcore.backbones import mlp
from sslcore.methods.method import Method, two_views
from sslcore.objectives import BarlowTerms, barlow_twins
from sslcore.views import byol_policies


class BarlowTwins(Method):
    """Barlow Twins (Zbontar et al. 2021, arXiv 2103.03230).

    Collapse guard: standardised features cannot all be equal, and the redundancy term keeps them from being copies
    of one another. lambd=0 takes the redundancy term away.
    BatchNorm: each view goes through on its own, as in the authors' code.

    policy: a pair of policies; None takes byol_policies, as the paper does.
    projector_dims: paper three times 8192; here three times 512.
    lambd: weight of the redundancy term, 0.0051 as in the paper. It sums over D squared entries, so with a smaller D
        a proportionally larger value (0.0051 * 8192 / D) keeps the paper's balance.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        policy: Any = None,
        img_size: int | None = None,
        pool: str = "auto",
        projector_dims: tuple[int, ...] = (512, 512, 512),
        projector_norm: str | None = "batch",
        lambd: float = 0.0051,
    ) -> None:
        super().__init__(backbone, pool=pool, img_size=img_size)
        self.policy, self.lambd = policy, lambd
        self.projector = mlp([backbone.embed_dim, *projector_dims], norm=projector_norm, bias_last=False)

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Two float views (B, C, size, size) of each image."""
        return two_views(self, batch, generator, self.policy, byol_policies)

    def loss(self, views: tuple[Tensor, Tensor]) -> BarlowTerms:
        """Invariance (diagonal) and redundancy (the rest), over the batch of all ranks."""
        z0, z1 = (self.projector(self.features(view)) for view in views)
        return barlow_twins(z0, z1, lambd=self.lambd, group=self.group)
