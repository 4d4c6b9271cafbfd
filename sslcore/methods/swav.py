"""SwAV: assign each crop to prototypes in equal shares, and predict the assignment from the other crops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcore.backbones import Prototypes, mlp
from sslcore.methods.method import Method, view_size
from sslcore.methods.queue import EmbeddingQueue
from sslcore.objectives import power_law_prior, prototype_usage, sinkhorn_knopp, swapped_prediction
from sslcore.validate import require, unknown
from sslcore.views import multicrop, swav_policies

TARGETS = ("sinkhorn", "softmax")


class SwAV(Method):
    """Swapping assignments between views (Caron et al. 2020, arXiv 2006.09882).

    Collapse guard: balance. Sinkhorn gives every prototype an equal share of each batch, so they cannot all say the
    same; targets="softmax" takes the guard away. epsilon is the knob: too large and all codes are uniform (loss ln K).
    BatchNorm: crops of one size go through the backbone in one pass, all crops through the projector in one pass.

    policy: (large crop, small crop) policies; None takes swav_policies. local_crops: small crops, which predict and
        are never assigned; paper 6, here 4. local_size: their side; None is 3/7 of the view (96 of 224), in patches.
    projector_dims: paper 2048, 128; here 512, 128. projector_norm: None as in SEER's head.
    num_prototypes: paper 3000; here 300. epsilon, num_iters: 0.05 and 3 as in the paper (SEER 0.03 and 10).
    queue_size: earlier embeddings that make the batch larger for Sinkhorn, for each large crop; 0 = none, as in the
        paper at batch 4096 (3840 at batch 256). queue_start: part of the run after which they are collected; they are
        used once the queue is full.
    freeze_prototypes: part of the run in which the prototypes stay put; paper 1 epoch of 400.
    prior_exponent: 0 = equal shares; above, prototype j gets a share (j + 1) ** -prior_exponent.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        policy: Sequence[Any] | None = None,
        img_size: int | None = None,
        pool: str = "auto",
        local_crops: int = 4,
        local_size: int | None = None,
        projector_dims: tuple[int, ...] = (512, 128),
        projector_norm: str | None = "batch",
        num_prototypes: int = 300,
        temperature: float = 0.1,
        targets: str = "sinkhorn",
        epsilon: float = 0.05,
        num_iters: int = 3,
        queue_size: int = 0,
        queue_start: float = 0.15,
        freeze_prototypes: float = 0.0025,
        prior_exponent: float = 0.0,
    ) -> None:
        super().__init__(backbone, pool=pool, img_size=img_size)
        require(local_crops >= 0, f"local_crops: expected at least 0, got {local_crops}")
        require(queue_size >= 0, f"queue_size: expected at least 0, got {queue_size}")
        if targets not in TARGETS:
            unknown("targets", targets, TARGETS)
        self.policy, self.local_crops, self.local_size = policy, local_crops, local_size
        self.temperature, self.targets, self.epsilon, self.num_iters = temperature, targets, epsilon, num_iters
        self.queue_start, self.freeze_prototypes = queue_start, freeze_prototypes
        self.projector = mlp([backbone.embed_dim, *projector_dims], norm=projector_norm)
        self.prototypes = Prototypes(projector_dims[-1], num_prototypes)
        self.prototypes.normalize_()
        self.prototypes.freeze(freeze_prototypes > 0)
        queues = (EmbeddingQueue(queue_size, projector_dims[-1], fill="zeros") for _ in range(2 * (queue_size > 0)))
        self.queues = nn.ModuleList(queues)
        self.register_buffer("prior", power_law_prior(num_prototypes, prior_exponent))
        self.register_buffer("collecting", torch.zeros((), dtype=torch.bool).fill_(queue_start <= 0))

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> list[Tensor]:
        """Two large crops (B, C, size, size), then the small ones (B, C, local_size, local_size)."""
        size, patch = view_size(self, batch), self.backbone.patch_size
        local_size = self.local_size or max(1, round(size * 3 / 7 / patch)) * patch
        large, small = swav_policies(size, local_size) if self.policy is None else self.policy
        return multicrop(batch["images"], [large] * 2 + [small] * self.local_crops, generator)

    def embed(self, crops: Sequence[Tensor]) -> Tensor:
        """Unit embeddings (V, B, D) of crops whose first two are large."""
        parts = [torch.cat(part) for part in (crops[:2], crops[2:]) if part]
        features = torch.cat([self.features(part) for part in parts])
        return F.normalize(self.projector(features).float(), dim=1).unflatten(0, (len(crops), -1))

    @torch.no_grad()
    def assign(self, embeddings: Tensor, scores: Tensor) -> Tensor:
        """Codes (2, B, K) of the large crops; in training their embeddings then join the queues."""
        codes = []
        for place in range(2):
            known = scores[place]
            if self.targets == "softmax":
                codes.append((known.float() / self.epsilon).softmax(dim=1))
                continue
            queue = self.queues[place] if len(self.queues) else None
            if queue is not None and queue.full:
                known = torch.cat([known, self.prototypes(queue.share(self.group)).to(known.dtype)])
            balanced = sinkhorn_knopp(known, self.epsilon, self.num_iters, self.group, self.prior)
            codes.append(balanced[: scores.shape[1]])
            if queue is not None and self.training and self.collecting:
                queue.push(embeddings[place], self.group)
        return torch.stack(codes)

    def loss(self, views: list[Tensor]) -> Tensor:
        """Mean cross-entropy of each crop's prediction with the codes of the other large crops."""
        embeddings = self.embed(views)
        scores = self.prototypes(embeddings)
        return swapped_prediction(scores, self.assign(embeddings, scores), self.temperature)

    @torch.no_grad()
    def usage(self, views: list[Tensor]) -> dict[str, float]:
        """Two meters of the predictions for the large crops, without any balancing.

        prototypes: perplexity of the winners, 1 (collapse) to K. entropy: of one prediction in nats, ln K if uniform.
        """
        scores = self.prototypes(self.embed(views[:2])).flatten(0, 1).float()
        winners = F.one_hot(scores.argmax(dim=1), scores.shape[1]).float()
        entropy = torch.special.entr((scores / self.temperature).softmax(dim=1)).sum(dim=1).mean()
        return {"prototypes": float(prototype_usage(winners)), "entropy": float(entropy)}

    def after_step(self, progress: float) -> None:
        """Prototypes go back to the sphere; the schedules move on."""
        self.prototypes.normalize_()
        self.prototypes.freeze(progress < self.freeze_prototypes)
        self.collecting.fill_(progress >= self.queue_start)
