"""Supervised training: the labelled arm that every chapter prints beside its method."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcore.methods.method import Method, view_size
from sslcore.validate import require
from sslcore.views import gentle_policy


class Supervised(Method):
    """A linear classifier on the image descriptor, trained with cross-entropy together with the backbone.

    num_classes: labels run from 0 to num_classes - 1.
    target: "labels" (one class an image, cross-entropy), or the name of an extra (N, num_classes) of the data with
        several true answers an image, such as "presence" of scenes (binary cross-entropy for each class).
    policy: ViewPolicy of the one view; None takes the gentle policy (crop and flip, no colour) of the view size.
    label_smoothing: 0 by default; 0.1 is usual on ImageNet.
    Raises ValueError on data without labels.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        target: str = "labels",
        policy: Any = None,
        img_size: int | None = None,
        pool: str = "auto",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(backbone, pool=pool, img_size=img_size)
        require(num_classes >= 2, f"num_classes: expected at least 2, got {num_classes}")
        self.target = target
        self.needs = () if target == "labels" else (target,)
        self.policy = policy
        self.label_smoothing = label_smoothing
        self.classifier = nn.Linear(backbone.embed_dim, num_classes)

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """One float view (B, C, size, size) of each image, and its label (B,) or answers (B, num_classes)."""
        size = view_size(self, batch)
        require(batch.get(self.target) is not None, f"Supervised: expected {self.target} in the data, got images only")
        policy = gentle_policy(size) if self.policy is None else self.policy
        return policy(batch["images"], generator=generator), batch[self.target]

    def logits(self, images: Tensor) -> Tensor:
        """(B, num_classes) scores of float images."""
        return self.classifier(self.features(images))

    def loss(self, views: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy over the batch (and over the classes, with several answers an image), in float32."""
        images, target = views
        logits = self.logits(images).float()
        if self.target == "labels":
            return F.cross_entropy(logits, target, label_smoothing=self.label_smoothing)
        return F.binary_cross_entropy_with_logits(logits, target.float())
