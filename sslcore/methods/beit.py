"""BEiT: hide blocks of patches and name the visual code of each hidden one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslcore.backbones import ema_copy
from sslcore.methods.method import Method, view_size
from sslcore.objectives import masked_code_loss, take_hidden
from sslcore.validate import require, unknown
from sslcore.views import ViewPolicy, block_mask

SHUFFLES = ("none", "codes", "names")


class BEiT(Method):
    """Masked code prediction (Bao et al. 2021, arXiv 2106.08254).

    Collapse guard: none is needed, the tokenizer is frozen. What each half of the task brings can be taken out:
    `hide=False` shows the network the patches it must name; `shuffle` spoils the vocabulary.

    backbone: a VisionTransformer, whose forward takes mask. It fixes the size of the views and their channels. The
        paper's net has relative positions, layer scale and scaled initial weights; this course's net has none of them.
    tokenizer: a module with `num_codes` and `codes(images) -> (B, N)`, such as PatchCodes or a trained DVAE; copied
        and frozen. It sees the same crop as the network.
    mask_ratio: part of the patches hidden, in blocks, 0.4 as in the paper.
    shuffle: "codes" deals the codes of a batch out to its patches at random, so that a code says nothing about its
        patch; "names" numbers the codes differently at every position, so that they say as much but share no name.
    policy: paper: crops of 8-100 %, flips and colour; here crops of 50-100 % and flips.
    Raises ValueError on a backbone without a patch grid, a tokenizer without codes or an unknown shuffle.
    """

    def __init__(
        self,
        backbone: nn.Module,
        tokenizer: nn.Module,
        *,
        policy: Any = None,
        img_size: int | None = None,
        pool: str = "auto",
        mask_ratio: float = 0.4,
        hide: bool = True,
        shuffle: str = "none",
    ) -> None:
        grid = getattr(backbone, "reference_grid", None)
        require(grid is not None, f"backbone: expected a vision transformer with mask tokens, got {type(backbone)}")
        able = hasattr(tokenizer, "codes") and getattr(tokenizer, "num_codes", 0) >= 2
        require(able, f"tokenizer: expected a module with codes() and num_codes >= 2, got {type(tokenizer).__name__}")
        if shuffle not in SHUFFLES:
            unknown("shuffle", shuffle, SHUFFLES)
        super().__init__(backbone, pool=pool, img_size=grid[0] * backbone.patch_size if img_size is None else img_size)
        self.policy, self.mask_ratio, self.hide, self.shuffle = policy, mask_ratio, hide, shuffle
        self.tokenizer = ema_copy(tokenizer)
        self.head = nn.Linear(backbone.embed_dim, tokenizer.num_codes)
        draws = torch.rand((self.img_size // backbone.patch_size) ** 2, tokenizer.num_codes)
        self.register_buffer("names", draws.argsort(1) if shuffle == "names" else None)

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """One float view (B, C, size, size) of each image, (B, N) bool with True = hidden, and (B, N) to shuffle by."""
        size = view_size(self, batch)
        plain = {"jitter_probability": 0.0, "grayscale": 0.0}
        policy = ViewPolicy(size, scale=(0.5, 1.0), **plain) if self.policy is None else self.policy
        images = policy(batch["images"], generator=generator)
        grid = (images.shape[2] // self.backbone.patch_size, images.shape[3] // self.backbone.patch_size)
        mask = block_mask(len(images), grid, self.mask_ratio, generator=generator, device=images.device)
        source = images.device if generator is None else generator.device
        return images, mask, torch.rand(mask.shape, generator=generator, device=source).to(images.device)

    @torch.no_grad()
    def targets(self, images: Tensor, draws: Tensor) -> Tensor:
        """(B, N) int64 codes of every patch, shuffled as asked."""
        codes = self.tokenizer.eval().codes(images)
        if self.shuffle == "codes":
            return codes.flatten()[draws.flatten().argsort()].view_as(codes)
        if self.shuffle == "names":
            return self.names.expand(len(codes), -1, -1).gather(2, codes[..., None])[..., 0]
        return codes

    def predict(self, images: Tensor, mask: Tensor, masked_only: bool = False) -> Tensor:
        """(B, N, V) logits, or those of the hidden patches alone; nothing of a hidden patch is read."""
        tokens = self.backbone(images, mask=mask if self.hide else None).patch_tokens
        if masked_only:  # the count follows from the ratio, so nothing is read back from the device
            tokens = take_hidden(tokens, mask, mask.shape[1] - int(mask.shape[1] * (1 - self.mask_ratio) + 1e-9))
        return self.head(tokens)

    def loss(self, views: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Cross-entropy of the codes of hidden patches."""
        images, mask, draws = views
        return masked_code_loss(self.predict(images, mask, masked_only=True), self.targets(images, draws), mask)
