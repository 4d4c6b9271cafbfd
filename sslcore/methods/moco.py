"""MoCo v2: negatives come from a queue of earlier keys, so their number does not depend on the batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcore.backbones import mlp, update_ema
from sslcore.methods.method import Method, teacher_of, two_views
from sslcore.methods.queue import EmbeddingQueue
from sslcore.objectives import info_nce
from sslcore.validate import require
from sslcore.views import ViewPolicy


def moco_policy(size: int) -> ViewPolicy:
    """The v2 views: crops from a fifth of the image on, milder colour than SimCLR; blur from 40 pixels on."""
    return ViewPolicy(size, blur=0.5 if size >= 40 else 0.0)


class MoCo(Method):
    """MoCo v2 (Chen et al. 2020, arXiv 2003.04297; He et al. 2019, arXiv 1911.05722).

    Collapse guard: the queue of negatives. The teacher follows slowly so that queued keys stay comparable.
    BatchNorm: queries and keys are encoded apart, by two networks. The authors also shuffle keys over GPUs, because
    statistics shared by a query and its key give the pair away; key_groups does that inside one process.

    projector_dims: paper 2048, 128; here 512, 128. No BatchNorm in the projector, as in the paper.
    temperature 0.2, momentum 0.999: as in the paper. For runs of a few hundred steps 0.99 follows better.
    queue_size: paper 65536; here 4096, the authors' choice for CIFAR-10. At least the batch over all ranks.
    key_groups: parts into which the shuffled keys are split for BatchNorm (8 in the authors' CIFAR-10 recipe).
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        policy: Any = None,
        img_size: int | None = None,
        pool: str = "auto",
        projector_dims: tuple[int, ...] = (512, 128),
        temperature: float = 0.2,
        momentum: float = 0.999,
        queue_size: int = 4096,
        key_groups: int = 1,
    ) -> None:
        super().__init__(backbone, pool=pool, img_size=img_size)
        require(key_groups >= 1, f"key_groups: expected at least 1, got {key_groups}")
        self.policy, self.temperature, self.momentum, self.key_groups = policy, temperature, momentum, key_groups
        self.projector = mlp([backbone.embed_dim, *projector_dims], norm=None)
        self.teacher_backbone = teacher_of(backbone)
        self.teacher_projector = teacher_of(self.projector)
        self.queue = EmbeddingQueue(queue_size, projector_dims[-1])

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Query view, key view, and a number for each image by which the keys are shuffled."""
        query, key = two_views(self, batch, generator, self.policy, moco_policy)
        return query, key, torch.rand(len(key), generator=generator, device=key.device)

    @torch.no_grad()
    def keys(self, images: Tensor, shuffle: Tensor) -> Tensor:
        """Unit keys (B, D) of the teacher, encoded in shuffled groups and put back in order."""
        order = shuffle.argsort()
        groups = images[order].chunk(self.key_groups)
        keys = torch.cat([self.teacher_projector(self.features(part, self.teacher_backbone)) for part in groups])
        return F.normalize(keys.float(), dim=1)[order.argsort()]

    def loss(self, views: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """InfoNCE of each query against its key and the queue; in training the keys then join the queue."""
        images, key_images, shuffle = views
        query = self.projector(self.features(images))
        keys = self.keys(key_images, shuffle)
        # A copy, because the queue moves on before the backward pass reads it.
        loss = info_nce(query, keys, negatives=self.queue.rows.clone(), temperature=self.temperature)
        if self.training:
            self.queue.push(keys, self.group)
        return loss

    def after_step(self, progress: float) -> None:
        """The teacher follows."""
        update_ema(self.teacher_backbone, self.backbone, self.momentum)
        update_ema(self.teacher_projector, self.projector, self.momentum)
