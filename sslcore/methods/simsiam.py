"""SimSiam: BYOL without the slow teacher. What is left of the guard is a stop-gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslcore.backbones import mlp
from sslcore.methods.method import Method, two_views
from sslcore.methods.moco import moco_policy
from sslcore.objectives import negative_cosine


class SimSiam(Method):
    """SimSiam (Chen & He 2020, arXiv 2011.10566).

    Collapse guard: the stop-gradient on the target side, with a predictor. stop_gradient=False takes it away.
    BatchNorm: each view goes through on its own, as in the authors' code; the projector ends in a norm without gain.

    policy: None takes MoCo v2's views, as the paper does.
    projector_dims: paper three times 2048; here three times 512. predictor_dim: a quarter of that, as in the paper.
    The authors hold the predictor's learning rate constant; here it follows the schedule like the rest.
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
        predictor_dim: int = 128,
        stop_gradient: bool = True,
    ) -> None:
        super().__init__(backbone, pool=pool, img_size=img_size)
        self.policy, self.stop_gradient = policy, stop_gradient
        dims, normed = [backbone.embed_dim, *projector_dims], projector_norm is not None
        self.projector = mlp(dims, norm=projector_norm, last_norm=normed, last_affine=False, bias_last=not normed)
        self.predictor = mlp([projector_dims[-1], predictor_dim, projector_dims[-1]], norm=projector_norm)

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Two float views (B, C, size, size) of each image."""
        return two_views(self, batch, generator, self.policy, moco_policy)

    def loss(self, views: tuple[Tensor, Tensor]) -> Tensor:
        """Mean negative cosine of the two directions: -1 to 1."""
        z0, z1 = (self.projector(self.features(view)) for view in views)
        p0, p1 = self.predictor(z0), self.predictor(z1)
        if self.stop_gradient:
            z0, z1 = z0.detach(), z1.detach()
        return 0.5 * (negative_cosine(p0, z1) + negative_cosine(p1, z0))
