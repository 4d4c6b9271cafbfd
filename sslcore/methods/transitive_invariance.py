"""Transitive invariance: a triplet-Siamese network on pairs that a graph of links and tracks implies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslcore.backbones import mlp
from sslcore.methods.method import Method, view_size
from sslcore.objectives import mined_triplet_loss
from sslcore.validate import require
from sslcore.views import gentle_policy


class TransitiveInvariance(Method):
    """Transitive invariance (Wang, He & Gupta 2017, arXiv 1708.02901). No official code is public.

    Which pairs are positive is the method, and it lies in the data: see `sslcore.data.PairBatches` and `close_pairs`.
    A batch without "positives" gives two augmented views of each image, which is a track of length one.
    Collapse guard: negatives. num_negatives of them an anchor, hard_ratio of them hard; all-hard from scratch ends with
    all embeddings equal and a loss of `margin`.
    One network serves all towers; first and second ends go through in one pass, so BatchNorm sees both.

    policy: views of "images" and "positives"; None is gentle_policy.
    embed_dims: widths after the backbone. Paper 1024 (from memory); here 128, 64.
    margin 0.5 (from memory), num_negatives 4, hard_ratio 0.5 (the authors' 2015 code).
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        policy: Any = None,
        img_size: int | None = None,
        pool: str = "auto",
        embed_dims: tuple[int, ...] = (128, 64),
        norm: str | None = "batch",
        margin: float = 0.5,
        num_negatives: int = 4,
        hard_ratio: float = 0.5,
    ) -> None:
        super().__init__(backbone, pool=pool, img_size=img_size)
        require(num_negatives >= 1, f"num_negatives: expected at least 1, got {num_negatives}")
        self.policy, self.margin, self.num_negatives, self.hard_ratio = policy, margin, num_negatives, hard_ratio
        self.projector = mlp([backbone.embed_dim, *embed_dims], norm=norm)

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Both ends of each pair, its label, and two numbers that draw the random negatives."""
        images = batch["images"]
        policy = gentle_policy(view_size(self, batch)) if self.policy is None else self.policy
        first, second = (policy(end, generator=generator) for end in (images, batch.get("positives", images)))
        labels = batch.get("pair_labels", batch.get("index", torch.arange(len(images), device=images.device)))
        return first, second, labels, torch.rand(len(images), 2, generator=generator, device=images.device)

    def loss(self, views: tuple[Tensor, ...]) -> Tensor:
        """The mined triplet loss of the pairs."""
        first, second, labels, draws = views
        z0, z1 = self.projector(self.features(torch.cat([first, second]))).chunk(2)
        return mined_triplet_loss(
            z0, z1, labels, draws, self.margin, self.num_negatives, self.hard_ratio, group=self.group
        )
