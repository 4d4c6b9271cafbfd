"""LeJEPA: views agree and embeddings look Gaussian; no teacher, predictor, prototypes or stop-gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sslcore.backbones import mlp
from sslcore.distributed import gather_with_grad
from sslcore.methods.method import Method, view_size
from sslcore.objectives import LeJEPATerms, lejepa
from sslcore.validate import require
from sslcore.views import dino_policies


class LeJEPA(Method):
    """LeJEPA (Balestriero & LeCun 2025, arXiv 2511.08544).

    Collapse guard: SIGReg, whose weight is lambd; lambd=0 takes it away, regularizer="moments" replaces the Gaussian by
    its first two moments.
    BatchNorm: views of one size go through the backbone in one pass, all views through the projector in one pass.

    policy: (global views, local views) policies; None takes the second and third of dino_policies.
    num_views: global views; paper 2 (4 in the authors' short script). local_crops: paper 6; here 0.
    local_size: side of a local crop; None is 3/7 of the view (98 of 224), in patches.
    projector_dims: paper 2048, 2048, then 16 to 512; here 256, 256, 32. The loss shapes its output, probes read the
        backbone. lambd: 0.05, useful from 0.01 to 0.1 according to the authors. num_slices: paper 1024; here 256.
    slices_seed: None draws new directions in each step, as in the paper; a number keeps one fixed set.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        policy: Sequence[Any] | None = None,
        img_size: int | None = None,
        pool: str = "auto",
        num_views: int = 2,
        local_crops: int = 0,
        local_size: int | None = None,
        projector_dims: tuple[int, ...] = (256, 256, 32),
        projector_norm: str | None = "batch",
        lambd: float = 0.05,
        regularizer: str = "sigreg",
        num_slices: int = 256,
        slices_seed: int | None = None,
    ) -> None:
        super().__init__(backbone, pool=pool, img_size=img_size)
        require(num_views >= 1, f"num_views: expected at least 1, got {num_views}")
        require(local_crops >= 0, f"local_crops: expected at least 0, got {local_crops}")
        require(num_views + local_crops >= 2, "num_views, local_crops: expected two views or more together, got one")
        self.policy, self.num_views, self.local_crops, self.local_size = policy, num_views, local_crops, local_size
        self.lambd, self.regularizer, self.num_slices, self.slices_seed = lambd, regularizer, num_slices, slices_seed
        self.embed_dim = projector_dims[-1]
        self.projector = mlp([backbone.embed_dim, *projector_dims], norm=projector_norm)

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> dict[str, Any]:
        """"views": num_views global ones (B, C, size, size), then the local ones (B, C, local_size, local_size);
        "directions": (B, -, D), this step's slices, of which each image carries a few so that ranks can share them."""
        images, size, patch = batch["images"], view_size(self, batch), self.backbone.patch_size
        local_size = self.local_size or max(1, round(size * 3 / 7 / patch)) * patch
        whole, local = dino_policies(size, local_size)[1:] if self.policy is None else self.policy
        policies = [whole] * self.num_views + [local] * self.local_crops
        views = [policy(images, generator=generator) for policy in policies]
        if self.slices_seed is not None:
            generator = torch.Generator(images.device).manual_seed(self.slices_seed)
        share = -(-self.num_slices // len(images))
        drawn = torch.randn(len(images), share, self.embed_dim, generator=generator, device=images.device)
        return {"views": views, "directions": drawn}

    def loss(self, views: dict[str, Any]) -> LeJEPATerms:
        """Invariance to the mean of the global views, and the regularizer of every view's batch."""
        crops, directions = views["views"], gather_with_grad(views["directions"], self.group)
        parts = [part for part in (crops[: self.num_views], crops[self.num_views :]) if part]
        z = self.projector(torch.cat([self.features(torch.cat(part)) for part in parts]))
        slices = F.normalize(directions.flatten(0, 1)[: self.num_slices], dim=1).T
        z = z.unflatten(0, (len(crops), -1))
        return lejepa(z, self.lambd, self.num_views, self.regularizer, slices=slices, group=self.group)
