"""MAE: hide most patches, encode the rest, and let a small decoder paint the hidden ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslcore.backbones import MAEDecoder
from sslcore.methods.method import Method, view_size
from sslcore.objectives import masked_pixel_loss
from sslcore.validate import require
from sslcore.views import mae_policy, random_mask


class MAE(Method):
    """Masked autoencoder (He et al. 2021, arXiv 2111.06377).

    Collapse guard: none is needed, the target is the image itself.
    Cost: the encoder sees only the visible quarter of the patches, which is what makes MAE cheap on a CPU too.

    backbone: a VisionTransformer, whose forward takes ids_keep. It fixes the size of the views and their channels.
    mask_ratio: part of the patches hidden, 0.75 as in the paper.
    norm_pix: score pixels after standardising each patch by its own mean and variance, as in the paper.
    decoder_dim, decoder_depth, decoder_heads: paper 512, 8, 16 under ViT-L; here 96, 2, 3 under small nets.
    Raises ValueError on a backbone without a patch grid, such as a convolutional net.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        policy: Any = None,
        img_size: int | None = None,
        pool: str = "auto",
        mask_ratio: float = 0.75,
        norm_pix: bool = True,
        decoder_dim: int = 96,
        decoder_depth: int = 2,
        decoder_heads: int = 3,
    ) -> None:
        grid = getattr(backbone, "reference_grid", None)
        require(
            grid is not None, f"backbone: expected a vision transformer that can drop patches, got {type(backbone)}"
        )
        patch = backbone.patch_size
        img_size = grid[0] * patch if img_size is None else img_size
        require(img_size % patch == 0, f"img_size: expected a multiple of the patch size {patch}, got {img_size}")
        super().__init__(backbone, pool=pool, img_size=img_size)
        self.policy = policy
        self.mask_ratio = mask_ratio
        self.norm_pix = norm_pix
        self.decoder = MAEDecoder(
            backbone.embed_dim,
            grid=(img_size // patch) ** 2,
            patch_dim=backbone.in_chans * patch * patch,
            embed_dim=decoder_dim,
            depth=decoder_depth,
            num_heads=decoder_heads,
        )

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> tuple[Tensor, Any]:
        """One float view (B, C, size, size) of each image, and the MaskIndices of its patches."""
        policy = mae_policy(view_size(self, batch)) if self.policy is None else self.policy
        images = policy(batch["images"], generator=generator)
        patches = (images.shape[-1] // self.backbone.patch_size) ** 2
        return images, random_mask(len(images), patches, self.mask_ratio, generator=generator, device=images.device)

    def reconstruct(self, images: Tensor, indices: Any, masked_only: bool = False) -> Tensor:
        """Predicted patches (B, N, patch_size^2 * C) from the visible patches alone; only the hidden ones on demand."""
        tokens = self.backbone(images, ids_keep=indices.ids_keep)
        cls_token = tokens.cls_token if self.backbone.num_prefix_tokens else None
        return self.decoder(tokens.patch_tokens, indices.ids_restore, cls_token=cls_token, masked_only=masked_only)

    def loss(self, views: tuple[Tensor, Any]) -> Tensor:
        """Mean squared error on the hidden patches."""
        images, indices = views
        prediction = self.reconstruct(images, indices, masked_only=True)
        return masked_pixel_loss(prediction, images, indices.mask, self.backbone.patch_size, norm_pix=self.norm_pix)
