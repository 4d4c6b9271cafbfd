"""MaskFeat: put mask tokens where patches are hidden, and let one linear layer predict features of what is there."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcore.backbones import ema_copy
from sslcore.methods.method import Method, view_size
from sslcore.methods.tokenizers import standardised
from sslcore.objectives import hog_targets, masked_feature_loss, patchify
from sslcore.validate import require, unknown
from sslcore.views import ViewPolicy, block_mask

TARGETS = ("hog", "raw_hog", "pixels", "norm_pixels", "colour", "codes", "teacher")


class MaskFeat(Method):
    """Masked feature prediction (Wei et al. 2021, arXiv 2112.09133).

    Collapse guard: none is needed, the targets do not learn.
    Cost: hidden patches stay in the sequence as mask tokens, so a step costs as much as one on whole images.

    backbone: a VisionTransformer, whose forward takes mask. It fixes the size of the views and their channels.
    target: what is predicted of a hidden patch. "hog": see `hog_targets`; "raw_hog": without its division by length;
        "pixels"; "norm_pixels": standardised patch by patch; "colour": mean of the patch; "codes": which centroid of
        `codebook` its standardised pixels are nearest to; "teacher": patch tokens of `teacher`, standardised.
    cell_size: side of a HOG cell, paper 8 under patches of 16; None takes half a patch.
    mask_ratio: part of the patches hidden, in blocks, 0.4 as in the paper.
    policy: paper: crops of 50-100 % and flips, no colour.
    Raises ValueError on an unknown target, one without its codebook or teacher, or a backbone without a patch grid.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        target: str = "hog",
        cell_size: int | None = None,
        codebook: Tensor | None = None,
        teacher: nn.Module | None = None,
        policy: Any = None,
        img_size: int | None = None,
        pool: str = "auto",
        mask_ratio: float = 0.4,
    ) -> None:
        grid = getattr(backbone, "reference_grid", None)
        require(grid is not None, f"backbone: expected a vision transformer with mask tokens, got {type(backbone)}")
        if target not in TARGETS:
            unknown("target", target, TARGETS)
        require((target == "codes") == (codebook is not None), "codebook: expected with target 'codes', and only there")
        require((target == "teacher") == (teacher is not None), "teacher: expected with 'teacher', and only there")
        super().__init__(backbone, pool=pool, img_size=grid[0] * backbone.patch_size if img_size is None else img_size)
        self.target, self.policy, self.mask_ratio = target, policy, mask_ratio
        self.cell_size = backbone.patch_size // 2 if cell_size is None else cell_size
        self.register_buffer("codebook", codebook)
        self.teacher = None if teacher is None else ema_copy(teacher)
        if target == "codes":
            width = len(codebook)
        else:
            size = backbone.patch_size
            width = self.targets(torch.zeros(1, backbone.in_chans, size * 2, size * 2)).shape[2]
        self.head = nn.Linear(backbone.embed_dim, width)

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """One float view (B, C, size, size) of each image, and (B, N) bool, True = hidden."""
        size = view_size(self, batch)
        plain = {"jitter_probability": 0.0, "grayscale": 0.0}
        policy = ViewPolicy(size, scale=(0.5, 1.0), **plain) if self.policy is None else self.policy
        images = policy(batch["images"], generator=generator)
        grid = (images.shape[2] // self.backbone.patch_size, images.shape[3] // self.backbone.patch_size)
        return images, block_mask(len(images), grid, self.mask_ratio, generator=generator, device=images.device)

    @torch.no_grad()
    def targets(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float views -> (B, N, D) features of every patch; for "codes" (B, N) int64."""
        size = self.backbone.patch_size
        if self.target in ("hog", "raw_hog"):
            return hog_targets(images, size, self.cell_size, normalize=self.target == "hog")
        if self.target == "teacher":
            self.teacher.eval()
            tokens = self.teacher(images.expand(-1, self.teacher.in_chans, -1, -1)).patch_tokens
            return F.layer_norm(tokens.float(), tokens.shape[-1:])
        patches = patchify(images, size)
        if self.target == "colour":
            return patches.unflatten(2, (-1, images.shape[1])).mean(2)
        if self.target == "pixels":
            return patches
        patches = standardised(patches)
        return torch.cdist(patches, self.codebook[None]).argmin(2) if self.target == "codes" else patches

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """(B, N, D) predicted features; nothing of the hidden patches is read."""
        return self.head(self.backbone(images, mask=mask).patch_tokens)

    def loss(self, views: tuple[Tensor, Tensor]) -> Tensor:
        """Mean squared error on the hidden patches; cross-entropy for codes."""
        images, mask = views
        pred, target = self.predict(images, mask), self.targets(images)
        if self.target != "codes":
            return masked_feature_loss(pred, target, mask)
        cost = F.cross_entropy(pred.float().transpose(1, 2), target, reduction="none")
        return (cost * mask).sum() / mask.sum()
