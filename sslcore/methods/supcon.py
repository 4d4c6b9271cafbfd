"""SupCon: embeddings of one class attract, all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslcore.backbones import mlp
from sslcore.methods.method import Method, view_size
from sslcore.objectives import supcon
from sslcore.validate import require
from sslcore.views import simclr_policy

LabelledViews = tuple[list[Tensor], Tensor, Tensor]


class SupCon(Method):
    """Supervised contrastive learning (Khosla et al. 2020, arXiv 2004.11362): encoder, projector, L_out over the batch.

    num_views: views of each image in a batch; 2 as in the paper. 1 costs half and still has positives, other images.
    policy: ViewPolicy of every view; None takes simclr_policy of the view size.
    projector_dims: widths after the backbone. Paper: 2048, 128 on ResNet-50. projector_norm: None as in the paper.
    temperature: 0.1 as in the paper.
    Raises ValueError on data without labels.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        policy: Any = None,
        img_size: int | None = None,
        pool: str = "auto",
        projector_dims: tuple[int, ...] = (512, 128),
        projector_norm: str | None = None,
        temperature: float = 0.1,
        num_views: int = 2,
    ) -> None:
        super().__init__(backbone, pool=pool, img_size=img_size)
        require(num_views >= 1, f"num_views: expected at least 1, got {num_views}")
        self.policy, self.temperature, self.num_views = policy, temperature, num_views
        self.projector = mlp([backbone.embed_dim, *projector_dims], norm=projector_norm)

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> LabelledViews:
        """num_views float views (B, C, size, size) of each image, labels (B,), numbers of the images (B,)."""
        name = type(self).__name__
        require(batch.get("labels") is not None, f"{name}: expected labels in the data, got images only")
        policy = simclr_policy(view_size(self, batch)) if self.policy is None else self.policy
        views = [policy(batch["images"], generator=generator) for _ in range(self.num_views)]
        return views, batch["labels"], batch["index"]

    def embed(self, views: LabelledViews) -> tuple[Tensor, Tensor, Tensor]:
        """Projections (V * B, D) of all views, with the label and the image number of each row."""
        images, labels, index = views
        z = self.projector(self.features(torch.cat(list(images))))
        return z, labels.repeat(len(images)), index.repeat(len(images))

    def loss(self, views: LabelledViews) -> Tensor:
        """Mean over all rows that have a mate."""
        z, labels, _ = self.embed(views)
        return supcon(z, labels, self.temperature, self.group)
