"""VICReg: agree, keep every feature's spread above one, and keep features uncorrelated."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslcore.backbones import mlp
from sslcore.methods.method import Method, two_views
from sslcore.objectives import VICRegTerms, vicreg
from sslcore.views import byol_policies


class VICReg(Method):
    """VICReg (Bardes, Ponce, LeCun 2021, arXiv 2105.04906).

    Collapse guard: the variance term. std=0 takes it away; cov=0 lets features become copies.
    BatchNorm: each view goes through on its own, as in the authors' code.

    policy: a pair of policies; None takes byol_policies, as the paper does.
    projector_dims: the paper's expander is three times 8192; here three times 512.
    sim, std, cov: weights of the three terms, 25, 25 and 1 as in the paper.
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
        sim: float = 25.0,
        std: float = 25.0,
        cov: float = 1.0,
    ) -> None:
        super().__init__(backbone, pool=pool, img_size=img_size)
        self.policy, self.sim, self.std, self.cov = policy, sim, std, cov
        self.projector = mlp([backbone.embed_dim, *projector_dims], norm=projector_norm, bias_last=False)

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Two float views (B, C, size, size) of each image."""
        return two_views(self, batch, generator, self.policy, byol_policies)

    def loss(self, views: tuple[Tensor, Tensor]) -> VICRegTerms:
        """Invariance, variance and covariance, weighted, over the batch of all ranks."""
        z0, z1 = (self.projector(self.features(view)) for view in views)
        return vicreg(z0, z1, sim=self.sim, std=self.std, cov=self.cov, group=self.group)
