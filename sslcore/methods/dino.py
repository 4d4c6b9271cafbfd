"""DINO: the student's view of every crop matches the teacher's sharpened, centred view of the large ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sslcore.backbones import DINOHead, update_ema
from sslcore.methods.byol import cosine_momentum
from sslcore.methods.method import Method, teacher_of, view_size
from sslcore.objectives import dino_loss, update_center
from sslcore.validate import require
from sslcore.views import dino_policies, multicrop


class DINO(Method):
    """Self-distillation with no labels (Caron et al. 2021, arXiv 2104.14294).

    Collapse guard: centring keeps one prototype from winning always, sharpening (teacher_temp below student_temp)
    keeps the teacher from being uniform. centering=False, or teacher_temp=student_temp, takes one of them away.
    BatchNorm: crops of one size go through in one pass, as in the authors' code (the head has none by default).

    policy: (first global, second global, local) policies; None takes dino_policies.
    local_crops: paper 8; here 4. local_size: side of a local crop; None is 3/7 of the view (96 of 224), in patches.
    out_dim: prototypes, paper 65536; here 1024. hidden_dim, bottleneck_dim: paper 2048, 256; here 256, 64.
    warmup_temp, warmup: the teacher's temperature starts there and reaches teacher_temp after this part of the run.
    momentum: 0.996 at the start, then to 1, as in the paper (0.9995 in the authors' advice for batch 256).
    freeze_last_layer: part of the run in which the prototypes stay put; paper one epoch of 100.
    standardize: bring each feature to mean 0 and deviation 1 over the batch in front of the head. Not in the paper, for
        short runs on small nets: pooled features of a young net are nearly one vector for all images.
    The authors also raise the weight decay from 0.04 to 0.4; here it is constant.
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
        out_dim: int = 1024,
        hidden_dim: int = 256,
        bottleneck_dim: int = 64,
        student_temp: float = 0.1,
        teacher_temp: float = 0.04,
        warmup_temp: float | None = None,
        warmup: float = 0.3,
        momentum: float = 0.996,
        center_momentum: float = 0.9,
        centering: bool = True,
        freeze_last_layer: float = 0.01,
        standardize: bool = False,
    ) -> None:
        super().__init__(backbone, pool=pool, img_size=img_size)
        require(local_crops >= 0, f"local_crops: expected at least 0, got {local_crops}")
        require(0 < warmup <= 1, f"warmup: expected a part of the run in (0, 1], got {warmup}")
        self.policy, self.local_crops, self.local_size = policy, local_crops, local_size
        self.student_temp, self.teacher_temp, self.warmup = student_temp, teacher_temp, warmup
        self.warmup_temp = teacher_temp if warmup_temp is None else warmup_temp
        self.momentum, self.center_momentum, self.centering = momentum, center_momentum, centering
        self.freeze_last_layer = freeze_last_layer
        widths = {"hidden_dim": hidden_dim, "bottleneck_dim": bottleneck_dim}
        self.head = DINOHead(backbone.embed_dim, out_dim, **widths, standardize=standardize)
        self.teacher_backbone, self.teacher_head = teacher_of(backbone), teacher_of(self.head)
        self.register_buffer("center", torch.zeros(out_dim))
        self.register_buffer("progress", torch.zeros(()))
        self.head.prototypes.freeze(freeze_last_layer > 0)

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> list[Tensor]:
        """Two global crops (B, C, size, size), then the local ones (B, C, local_size, local_size)."""
        size, patch = view_size(self, batch), self.backbone.patch_size
        local_size = self.local_size or max(1, round(size * 3 / 7 / patch)) * patch
        first, second, local = dino_policies(size, local_size) if self.policy is None else self.policy
        return multicrop(batch["images"], [first, second] + [local] * self.local_crops, generator)

    @torch.no_grad()
    def teach(self, global_crops: Sequence[Tensor]) -> Tensor:
        """The teacher's logits (T, B, K)."""
        return self._logits(global_crops, self.teacher_backbone, self.teacher_head)

    def _logits(self, crops: Sequence[Tensor], backbone: nn.Module, head: nn.Module) -> Tensor:
        logits = head(self.features(torch.cat(list(crops)), backbone))
        return logits.unflatten(0, (len(crops), -1))

    def loss(self, views: list[Tensor]) -> Tensor:
        """Mean cross-entropy over pairs of different crops; in training the centre then moves."""
        teacher = self.teach(views[:2])
        parts = [part for part in (views[:2], views[2:]) if part]
        student = torch.cat([self._logits(part, self.backbone, self.head) for part in parts])
        # softmax((t - c) / temperature) with the temperature of the moment, a number that stays on the device.
        scale = self._scale()
        loss = dino_loss(student, teacher * scale, self.center * scale, self.student_temp, self.teacher_temp)
        if self.training and self.centering:
            self.center.copy_(update_center(self.center, teacher, self.center_momentum, self.group))
        return loss

    def _scale(self) -> Tensor:
        risen = (self.progress / self.warmup).clamp(max=1)
        return self.teacher_temp / (self.warmup_temp + (self.teacher_temp - self.warmup_temp) * risen)

    @torch.no_grad()
    def collapse(self, views: list[Tensor]) -> dict[str, float]:
        """Two meters: the mean entropy of the teacher's answers, and their mean divergence from the average answer.

        One prototype for everything: both 0. A uniform answer: entropy ln K, divergence 0. Healthy: in between.
        """
        logits = (self.teach(views[:2]).float() - self.center) * self._scale() / self.teacher_temp
        answers = logits.softmax(-1).flatten(0, 1)
        entropy = torch.special.entr(answers).sum(-1).mean()
        return {"entropy": float(entropy), "divergence": float(torch.special.entr(answers.mean(0)).sum() - entropy)}

    def after_step(self, progress: float) -> None:
        """The teacher follows, ever more slowly; the schedules move on."""
        momentum = cosine_momentum(self.momentum, progress)
        update_ema(self.teacher_backbone, self.backbone, momentum)
        update_ema(self.teacher_head, self.head, momentum)
        self.progress.fill_(progress)
        self.head.prototypes.freeze(progress < self.freeze_last_layer)
