"""BYOL: predict what a slow copy of yourself says about the other view. No negatives."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sslcore.backbones import mlp, update_ema
from sslcore.methods.method import Method, teacher_of, two_views
from sslcore.objectives import negative_cosine
from sslcore.views import byol_policies


def cosine_momentum(start: float, progress: float) -> float:
    """Momentum that rises from start to 1 along half a cosine."""
    return 1 - (1 - start) * (1 + math.cos(math.pi * progress)) / 2


class BYOL(Method):
    """Bootstrap your own latent (Grill et al. 2020, arXiv 2006.07733).

    Collapse guard: the predictor on the student together with a teacher that follows it. predictor=False takes the
    predictor away; momentum=0 makes the teacher the student of the step before.
    BatchNorm: each view goes through on its own, in student and teacher, as in the authors' code; the teacher uses
    the statistics of the batch, too.

    policy: a pair of policies; None takes byol_policies (strong blur on one view, solarising on the other).
    projector_dims: paper 4096, 256; here 512, 128. The predictor has the same hidden width and output.
    momentum: 0.996 at the start, then to 1, as in the paper's 1000 epochs; 0.97 suits a few hundred steps.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        policy: Any = None,
        img_size: int | None = None,
        pool: str = "auto",
        projector_dims: tuple[int, ...] = (512, 128),
        projector_norm: str | None = "batch",
        momentum: float = 0.996,
        predictor: bool = True,
    ) -> None:
        super().__init__(backbone, pool=pool, img_size=img_size)
        self.policy, self.momentum = policy, momentum
        self.projector = mlp([backbone.embed_dim, *projector_dims], norm=projector_norm)
        dims = [projector_dims[-1], *projector_dims[:-1], projector_dims[-1]]
        self.predictor = mlp(dims, norm=projector_norm) if predictor else nn.Identity()
        self.teacher_backbone = teacher_of(backbone)
        self.teacher_projector = teacher_of(self.projector)

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Two float views (B, C, size, size) of each image."""
        return two_views(self, batch, generator, self.policy, byol_policies)

    @torch.no_grad()
    def targets(self, images: Tensor) -> Tensor:
        """The teacher's projections (B, D)."""
        return self.teacher_projector(self.features(images, self.teacher_backbone))

    def loss(self, views: tuple[Tensor, Tensor]) -> Tensor:
        """Squared distance of unit vectors, summed over the two directions: 0 to 8, 4 at random."""
        p0, p1 = (self.predictor(self.projector(self.features(view))) for view in views)
        z0, z1 = (self.targets(view) for view in views)
        return 4 + 2 * (negative_cosine(p0, z1) + negative_cosine(p1, z0))

    def after_step(self, progress: float) -> None:
        """The teacher follows, ever more slowly."""
        momentum = cosine_momentum(self.momentum, progress)
        update_ema(self.teacher_backbone, self.backbone, momentum)
        update_ema(self.teacher_projector, self.projector, momentum)
