"""Mugs: instances, groups of neighbours and clusters, told apart by one student of one teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcore.backbones import DINOHead, mlp, update_ema
from sslcore.backbones.relation import RelationBlock, nearest_rows
from sslcore.methods.byol import cosine_momentum
from sslcore.methods.method import Method, teacher_of, view_size
from sslcore.methods.queue import EmbeddingQueue
from sslcore.objectives import MugsTerms, granular_clustering, granular_nce, mugs_total, update_center
from sslcore.validate import require, unknown
from sslcore.views import dino_policies

RETRIEVALS = ("nearest", "any")


class Mugs(Method):
    """Mugs (Zhou et al. 2022, arXiv 2203.14415): three granularities of one signal.

    Collapse guard: queues of negatives for instance and local group, centring and sharpening for group.
    weights: of instance (IDS), local group (LGDS), group (GDS); 0 leaves head, queue and memory out.

    policy: (first large, second large, small) policies; None takes dino_policies. The teacher draws its own two large
        crops. The paper also augments half of the student's crops strongly and keeps those out of the memory; here all
        crops are weak and all go in.
    local_crops: paper 10, here 4. projector_dims, predictor_dim: paper (2048, 2048, 256), 4096.
    queue_size, memory_size: paper 65536. num_neighbours: paper 8. Features are grouped by the mean of the final patch
        tokens; the paper retrieves with the mean of all tokens in front of the final norm.
    retrieval: "any" takes rows of the memory without looking at them, a control for the neighbours.
    out_dim, hidden_dim, bottleneck_dim, standardize and the temperatures: as in DINO.
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
        weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
        projector_dims: tuple[int, ...] = (256, 256, 64),
        projector_norm: str | None = None,
        predictor_dim: int = 256,
        temperature: float = 0.2,
        queue_size: int = 4096,
        memory_size: int = 4096,
        num_neighbours: int = 8,
        retrieval: str = "nearest",
        relation_heads: int = 4,
        out_dim: int = 1024,
        hidden_dim: int = 256,
        bottleneck_dim: int = 64,
        standardize: bool = False,
        student_temp: float = 0.1,
        teacher_temp: float = 0.04,
        momentum: float = 0.996,
        center_momentum: float = 0.9,
        freeze_last_layer: float = 0.01,
    ) -> None:
        super().__init__(backbone, pool=pool, img_size=img_size)
        require(local_crops >= 0, f"local_crops: expected at least 0, got {local_crops}")
        fits = 0 <= num_neighbours <= memory_size
        require(fits, f"num_neighbours: expected 0 to {memory_size}, got {num_neighbours}")
        if retrieval not in RETRIEVALS:
            unknown("retrieval", retrieval, RETRIEVALS)
        self.policy, self.local_crops, self.local_size, self.weights = policy, local_crops, local_size, weights
        self.temperature, self.num_neighbours, self.retrieval = temperature, num_neighbours, retrieval
        self.student_temp, self.teacher_temp, self.freeze_last_layer = student_temp, teacher_temp, freeze_last_layer
        self.momentum, self.center_momentum = momentum, center_momentum
        dim, key_dim = backbone.embed_dim, projector_dims[-1]
        contrasted = [name for name, weight in zip(("instance", "local"), weights, strict=False) if weight > 0]
        self.heads = nn.ModuleDict({name: mlp([dim, *projector_dims], projector_norm, "gelu") for name in contrasted})
        self.predictors = nn.ModuleDict(
            {name: mlp([key_dim, predictor_dim, key_dim], projector_norm, "gelu") for name in contrasted}
        )
        self.queues = nn.ModuleDict({name: EmbeddingQueue(queue_size, key_dim) for name in contrasted})
        if weights[1] > 0:
            self.heads["relation"] = RelationBlock(dim, relation_heads)
            self.memories = nn.ModuleDict({name: EmbeddingQueue(memory_size, dim) for name in ("student", "teacher")})
        if weights[2] > 0:
            self.heads["group"] = DINOHead(dim, out_dim, hidden_dim, bottleneck_dim, standardize)
            self.heads["group"].prototypes.freeze(freeze_last_layer > 0)
        self.teacher_backbone, self.teacher_heads = teacher_of(backbone), teacher_of(self.heads)
        self.register_buffer("center", torch.zeros(out_dim))

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> list[Tensor]:
        """Two large crops for the teacher, two for the student, then the student's small ones."""
        size, patch = view_size(self, batch), self.backbone.patch_size
        local_size = self.local_size or max(1, round(size * 3 / 7 / patch)) * patch
        first, second, local = dino_policies(size, local_size) if self.policy is None else self.policy
        policies = [first, second] * 2 + [local] * self.local_crops
        return [policy(batch["images"], generator=generator) for policy in policies]

    def encode(self, crops: Sequence[Tensor], backbone: nn.Module) -> tuple[Tensor, Tensor]:
        """Descriptors and patch means (V, B, D) of crops, the first two of one size and the rest of another."""
        passes = [backbone(torch.cat(part)) for part in (crops[:2], crops[2:]) if part]
        means = torch.cat([tokens.pooled for tokens in passes])
        descriptors = means if self.pool == "mean" else torch.cat([tokens.cls_token for tokens in passes])
        return tuple(x.unflatten(0, (len(crops), -1)) for x in (descriptors, means))

    def grouped(self, means: Tensor, heads: nn.ModuleDict, memory: EmbeddingQueue) -> Tensor:
        """Features (V, B, D) in the company of their neighbours in the memory."""
        flat, num = means.flatten(0, 1), self.num_neighbours
        if self.retrieval == "any":
            # Consecutive rows: which image lies where in the ring has nothing to do with the query.
            places = torch.arange(len(flat) * num, device=flat.device) % len(memory)
            neighbours = memory.rows[places].unflatten(0, (len(flat), num))
        else:
            neighbours = nearest_rows(flat.detach(), memory.rows, num)
        return heads["relation"](flat, neighbours).unflatten(0, means.shape[:2])

    def loss(self, views: list[Tensor]) -> MugsTerms:
        """Weighted mean of the three losses; in training, queues, memories and centre then move on."""
        with torch.no_grad():
            answers = dict(zip(("instance", "local"), self.encode(views[:2], self.teacher_backbone), strict=True))
            teacher_means = answers["local"]
            if self.weights[1] > 0:
                answers["local"] = self.grouped(teacher_means, self.teacher_heads, self.memories["teacher"])
        inputs = dict(zip(("instance", "local"), self.encode(views[2:], self.backbone), strict=True))
        means = inputs["local"]
        if self.weights[1] > 0:
            inputs["local"] = self.grouped(means, self.heads, self.memories["student"])
        terms = dict.fromkeys(("instance", "local", "group"))
        keys = {}
        for name in self.queues:
            with torch.no_grad():
                keys[name] = F.normalize(self.teacher_heads[name](answers[name].flatten(0, 1)).float(), dim=1)
            query = self.predictors[name](F.normalize(self.heads[name](inputs[name].flatten(0, 1)).float(), dim=1))
            query, key = query.unflatten(0, inputs[name].shape[:2]), keys[name].unflatten(0, (2, -1))
            negatives = self.queues[name].rows.clone()  # of before the first key: its own keys are no negatives
            terms[name] = granular_nce(query, key, negatives, self.temperature, self.group)
        if self.weights[2] > 0:
            with torch.no_grad():
                teacher = self.teacher_heads["group"](answers["instance"])
            student = self.heads["group"](inputs["instance"])
            terms["group"] = granular_clustering(student, teacher, self.center, self.student_temp, self.teacher_temp)
        if self.training:
            for name, queue in self.queues.items():
                for key in keys[name].chunk(2):  # crop by crop, so that the order does not depend on the ranks
                    queue.push(key, self.group)
            if self.weights[1] > 0:
                self.memories["student"].push(means[0], self.group)
                self.memories["teacher"].push(teacher_means[0], self.group)
            if self.weights[2] > 0:
                self.center.copy_(update_center(self.center, teacher, self.center_momentum, self.group))
        return mugs_total(list(terms.values()), self.weights)

    def after_step(self, progress: float) -> None:
        """The teacher follows, ever more slowly."""
        momentum = cosine_momentum(self.momentum, progress)
        update_ema(self.teacher_backbone, self.backbone, momentum)
        update_ema(self.teacher_heads, self.heads, momentum)
        if self.weights[2] > 0:
            self.heads["group"].prototypes.freeze(progress < self.freeze_last_layer)
