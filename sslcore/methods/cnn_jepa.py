"""CNN-JEPA: hide cells of the feature map, and predict what a slow copy of the network sees there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslcore.backbones import ConvPredictor, StagedConvNet, update_ema
from sslcore.methods.byol import cosine_momentum
from sslcore.methods.method import Method, teacher_of, view_size
from sslcore.objectives import masked_latent_loss, unpatchify
from sslcore.validate import require, unknown
from sslcore.views import mae_policy, multi_block_mask, random_mask
from sslcore.views.draws import check_probability, uniform

HIDE = ("sparse", "pixels", "features")


class CNNJEPA(Method):
    """Joint-embedding prediction for convolutional nets (arXiv 2408.07514): one view, no projector, no negatives.

    Collapse guard: the predictor on the student, together with a teacher that follows it. momentum=0 makes the teacher
    the student of the step before; stop_gradient=False drops it and lets targets move towards predictions.
    BatchNorm: the student's statistics are those of visible cells. The teacher sees whole images, normalises with the
    batch and keeps running statistics of its own: evaluate `teacher_backbone`, as the paper does.

    backbone: a StagedConvNet, whose forward takes mask. Masks have the resolution of its last map.
    policy: crops and flips without colour, close to the paper's crops alone.
    mask_ratio: share of the cells that random masks hide, 0.6. block_probability: share of the images that get a
        multi-block mask instead, 0.75; the paper draws once a batch. predictor_depth: 3 as in the paper.
    hide: "sparse" applies the mask after every layer. Controls: "pixels" zeroes hidden pixels and runs the dense net;
        "features" lets the net see everything and hides cells of the result only, so that neighbours tell the answer.
    momentum: 0.996 at the start, then to 1 in every step; the paper moves it once an epoch. 0.99 suits short runs.
    Raises ValueError on an unknown hide, a probability outside [0, 1], or another kind of backbone.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        policy: Any = None,
        img_size: int | None = None,
        pool: str = "auto",
        mask_ratio: float = 0.6,
        block_probability: float = 0.75,
        predictor_depth: int = 3,
        hide: str = "sparse",
        momentum: float = 0.996,
        stop_gradient: bool = True,
    ) -> None:
        convolutional = isinstance(backbone, StagedConvNet)
        require(convolutional, f"backbone: expected a convolutional net (StagedConvNet), got {type(backbone).__name__}")
        if hide not in HIDE:
            unknown("hide", hide, HIDE)
        check_probability("block_probability", block_probability)
        super().__init__(backbone, pool=pool, img_size=img_size)
        self.policy, self.mask_ratio, self.block_probability = policy, mask_ratio, block_probability
        self.hide, self.momentum, self.stop_gradient = hide, momentum, stop_gradient
        self.predictor = ConvPredictor(backbone.embed_dim, predictor_depth)
        self.teacher_backbone = teacher_of(backbone)

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """One float view (B, C, size, size) of each image, and the cells to hide, (B, N) bool."""
        policy = mae_policy(view_size(self, batch)) if self.policy is None else self.policy
        images = policy(batch["images"], generator=generator)
        grid, drawn = self.grid(images), {"generator": generator, "device": images.device}
        mask = random_mask(len(images), grid[0] * grid[1], self.mask_ratio, **drawn).mask
        if self.block_probability > 0:  # blocks need a map of more than six cells
            chosen = uniform((len(images), 1), **drawn) < self.block_probability
            mask = torch.where(chosen, multi_block_mask(len(images), grid, **drawn), mask)
        return images, mask

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of the last feature map of these images."""
        return images.shape[2] // self.backbone.patch_size, images.shape[3] // self.backbone.patch_size

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """(B, N, D) predicted features of every cell, from the visible ones."""
        grid = self.grid(images)
        if self.hide == "pixels":
            hidden = mask.unsqueeze(2).expand(-1, -1, self.backbone.patch_size**2)
            images = images.masked_fill(unpatchify(hidden, self.backbone.patch_size, grid, 1), 0)
        tokens = self.backbone(images, mask=mask if self.hide == "sparse" else None)
        return self.predictor(tokens.patch_tokens, mask, grid)

    def loss(self, views: tuple[Tensor, Tensor]) -> Tensor:
        """One minus the cosine between prediction and target, over the hidden cells: 0 to 1 after a ReLU."""
        images, mask = views
        teacher = self.teacher_backbone if self.stop_gradient else self.backbone
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.stop_gradient):
            target = teacher(images).patch_tokens
        return masked_latent_loss(
            self.predict(images, mask), target, mask, stop_gradient=self.stop_gradient, group=self.group
        )

    def after_step(self, progress: float) -> None:
        """The teacher's weights follow, ever more slowly; its running statistics are its own."""
        momentum = cosine_momentum(self.momentum, progress)
        update_ema(self.teacher_backbone, self.backbone, momentum, buffers=False)
