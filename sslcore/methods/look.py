"""LOOK: an image needs some neighbours of its class, not all of its class as neighbours."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcore.backbones import update_ema
from sslcore.methods.labelled_queue import LabelledQueue
from sslcore.methods.method import teacher_of
from sslcore.methods.supcon import LabelledViews, SupCon
from sslcore.objectives import leave_one_out_knn
from sslcore.validate import require


class LOOK(SupCon):
    """Leave-one-out kNN pre-training (Feng et al. 2022, arXiv 2110.06014), reconstructed: no official code was found.

    Networks and views are those of SupCon; only what an embedding must have near it differs.

    k: neighbours that vote; None lets all of them (soft nearest neighbours). At least 2: with one neighbour a row costs
        nothing or is dropped. temperature: 0.1.
    missing: "drop" or "add", see leave_one_out_knn.
    queue_size: 0 takes the rest of the batch as neighbours. Above 0 they come from a queue that a slow copy of the
        networks fills, as in MoCo; an image's own older copies are left out by its number.
    momentum: of that copy. The settings are the course's own: the paper's could not be verified.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        k: int | None = 20,
        missing: str = "drop",
        queue_size: int = 0,
        momentum: float = 0.99,
        num_views: int = 1,
        **networks: Any,
    ) -> None:
        super().__init__(backbone, num_views=num_views, **networks)
        require(k is None or k >= 2, f"k: expected at least 2 neighbours, or None for all, got {k}")
        self.k, self.missing, self.momentum = k, missing, momentum
        self.queue = None
        if queue_size:
            self.teacher_backbone, self.teacher_projector = teacher_of(backbone), teacher_of(self.projector)
            self.queue = LabelledQueue(queue_size, self.projector[-1].out_features)

    def loss(self, views: LabelledViews) -> Tensor:
        """-log of the vote for the own class; in training the slow copy's embeddings then join the queue."""
        z, labels, ids = self.embed(views)
        settings = {"k": self.k, "temperature": self.temperature, "missing": self.missing, "group": self.group}
        if self.queue is None:
            return leave_one_out_knn(z, labels, ids=ids, **settings)
        memory = [buffer.clone() for buffer in (self.queue.rows, self.queue.labels, self.queue.ids)]
        if self.training:  # after the copy was taken, so no row meets itself
            with torch.no_grad():
                keys = self.teacher_projector(self.features(torch.cat(list(views[0])), self.teacher_backbone))
            self.queue.push_labelled(F.normalize(keys.float(), dim=1), labels, ids, self.group)
        return leave_one_out_knn(
            z, labels, memory=memory[0], memory_labels=memory[1], ids=ids, memory_ids=memory[2], **settings
        )

    def after_step(self, progress: float) -> None:
        """The slow copy follows."""
        if self.queue is not None:
            update_ema(self.teacher_backbone, self.backbone, self.momentum)
            update_ema(self.teacher_projector, self.projector, self.momentum)
