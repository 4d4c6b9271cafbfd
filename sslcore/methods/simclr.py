"""SimCLR: two views of an image find each other among all other views in the batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslcore.backbones import mlp
from sslcore.methods.method import Method, two_views
from sslcore.objectives import nt_xent
from sslcore.views import simclr_policy


class SimCLR(Method):
    """SimCLR (Chen et al. 2020, arXiv 2002.05709): encoder, projector, NT-Xent over the 2N views.

    Collapse guard: the other 2N - 2 views of the batch are negatives.
    BatchNorm: both views go through in one pass, as in the authors' code, so statistics cover all 2N views.

    policy: one ViewPolicy for both views (or a pair); None takes simclr_policy of the view size.
    projector_dims: widths after the backbone. Paper: 2048, 128 on ResNet-50; here 512, 128 for small nets.
    projector_norm: "batch" as in the paper; None or "layer" for runs without BatchNorm.
    temperature: 0.5, the paper's best on CIFAR-10 and with few negatives; 0.1 on ImageNet with batch 4096.
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
        temperature: float = 0.5,
    ) -> None:
        super().__init__(backbone, pool=pool, img_size=img_size)
        self.policy = policy
        self.temperature = temperature
        self.projector = mlp(
            [backbone.embed_dim, *projector_dims],
            norm=projector_norm,
            last_norm=projector_norm is not None,
            bias_last=False,
        )

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Two float views (B, C, size, size) of each image."""
        return two_views(self, batch, generator, self.policy, simclr_policy)

    def loss(self, views: tuple[Tensor, Tensor]) -> Tensor:
        """Mean NT-Xent over the 2B rows."""
        z0, z1 = self.projector(self.features(torch.cat(views))).chunk(2)
        return nt_xent(z0, z1, temperature=self.temperature, group=self.group)
