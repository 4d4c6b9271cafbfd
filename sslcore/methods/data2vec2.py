"""data2vec 2.0: predict what a slow copy of yourself, who sees the whole image, thinks at the hidden patches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslcore.backbones import ConvDecoder, update_ema
from sslcore.methods.method import Method, teacher_of, view_size
from sslcore.objectives import Data2VecTerms, contextual_targets, data2vec_loss, effective_rank, patchify
from sslcore.validate import require, unknown
from sslcore.views import MaskIndices, inverse_block_mask, mae_policy

TARGETS = ("mlp", "block", "embedding", "pixels")


class Data2Vec2(Method):
    """Contextualised targets, M masks for one pass of the teacher, a decoder of convolutions (arXiv 2212.07525).

    Collapse guards: the teacher follows slowly (momentum), and targets are normalised over the patches of an image
    (instance_norm) and over channels, so that no constant can be the answer. An answer that tells only where a patch
    lies still can, where the network's positions are loud (sines of order one, few steps); `collapse` measures it.
    Cost: for each image one forward pass of the teacher on all patches and num_masks passes of the student on the
    visible ones. The paper's blocks normalise behind the residual; this course's networks in front of it.

    backbone: a VisionTransformer, whose forward takes ids_keep and return_mlp. It fixes the size of the views.
    target: "mlp": MLP outputs of the teacher's last top_k blocks, the paper's; None takes all blocks. Controls:
        "block": its block outputs; "embedding": its patch embeddings, without positions and context; "pixels".
    num_masks: paper 16 for images (M). mask_ratio, adjust, block: see inverse_block_mask.
    momentum, end_momentum, anneal: the teacher's momentum goes from one to the other along a straight line over this
        part of the run. Paper 0.9998 to 0.99999 over 100k of 375k steps; here for some thousand steps.
    cls_weight: of the class token's term; 0 leaves it out, as do "pixels" and networks without class token.
    noise: standard deviation of what hidden places start from in the decoder.
    Raises ValueError on an unknown target, fewer than one mask, and backbones without a patch grid.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        policy: Any = None,
        img_size: int | None = None,
        pool: str = "auto",
        target: str = "mlp",
        top_k: int | None = None,
        instance_norm: bool = True,
        num_masks: int = 8,
        mask_ratio: float = 0.8,
        adjust: float = 0.07,
        block: int = 3,
        momentum: float = 0.99,
        end_momentum: float = 0.999,
        anneal: float = 0.3,
        cls_weight: float = 1.0,
        beta: float = 0.0,
        noise: float = 0.01,
        decoder_depth: int = 3,
        decoder_groups: int = 4,
    ) -> None:
        grid = getattr(backbone, "reference_grid", None)
        require(grid is not None, f"backbone: expected a vision transformer, got {type(backbone).__name__}")
        if target not in TARGETS:
            unknown("target", target, TARGETS)
        depth = len(backbone.blocks)
        top_k = depth if top_k is None else top_k
        require(1 <= top_k <= depth, f"top_k: expected 1 to {depth} blocks, got {top_k}")
        require(num_masks >= 1, f"num_masks: expected at least 1, got {num_masks}")
        require(0 < anneal <= 1, f"anneal: expected a part of the run in (0, 1], got {anneal}")
        super().__init__(backbone, pool=pool, img_size=grid[0] * backbone.patch_size if img_size is None else img_size)
        self.policy, self.target, self.top_k, self.instance_norm = policy, target, top_k, instance_norm
        self.num_masks, self.mask_ratio, self.adjust, self.block = num_masks, mask_ratio, adjust, block
        self.momentum, self.end_momentum, self.anneal = momentum, end_momentum, anneal
        self.beta, self.noise = beta, noise
        self.cls_weight = 0.0 if target == "pixels" or backbone.cls_token is None else cls_weight
        width = backbone.in_chans * backbone.patch_size**2 if target == "pixels" else backbone.embed_dim
        self.decoder = ConvDecoder(backbone.embed_dim, width, decoder_depth, groups=decoder_groups)
        self.teacher_backbone = None if target == "pixels" else teacher_of(backbone)

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> tuple[Tensor, Any, Tensor]:
        """One float view (B, C, size, size) of each image, its masks (B, M, ...) and the noise of hidden places."""
        policy = mae_policy(view_size(self, batch)) if self.policy is None else self.policy
        images = policy(batch["images"], generator=generator)
        grid = (images.shape[2] // self.backbone.patch_size, images.shape[3] // self.backbone.patch_size)
        shape, device = (len(images), self.num_masks), images.device
        draw = {"generator": generator, "device": device}
        count, blocks = shape[0] * shape[1], {"adjust": self.adjust, "block": self.block}
        masks = inverse_block_mask(count, grid, self.mask_ratio, **blocks, **draw)
        hidden = grid[0] * grid[1] - masks.ids_keep.shape[1]
        holes = self.noise * torch.randn(*shape, hidden, self.backbone.embed_dim, **draw)
        return images, MaskIndices(*(part.unflatten(0, shape) for part in masks)), holes

    @torch.no_grad()
    def targets(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, D): one pass of the teacher on whole images."""
        if self.target == "pixels":
            return contextual_targets([patchify(images, self.backbone.patch_size)], self.instance_norm)
        tokens = self.teacher_backbone(images, return_layers=self.target != "mlp", return_mlp=self.target == "mlp")
        layers = tokens.mlp_outputs if self.target == "mlp" else tokens.layers
        layers = [layer[:, tokens.num_prefix_tokens :] for layer in layers]
        if self.target == "embedding":
            table = self.teacher_backbone.positions(tokens.grid)
            return contextual_targets([layers[0] if table is None else layers[0] - table], self.instance_norm)
        return contextual_targets(layers[-self.top_k :], self.instance_norm)

    def predict(self, images: Tensor, masks: Any, holes: Tensor) -> tuple[Tensor, Tensor]:
        """The hidden patches (B, M, H, D) in rising order and the class token (B, M, D), from the visible alone."""
        copies, flat = masks.mask.shape[:2], MaskIndices(*(part.flatten(0, 1) for part in masks))
        tokens = self.backbone(images.repeat_interleave(copies[1], 0), ids_keep=flat.ids_keep)
        pred = self.decoder(tokens.patch_tokens, flat.ids_restore, tokens.grid, holes.flatten(0, 1), masked_only=True)
        return pred.unflatten(0, copies), tokens.cls_token.unflatten(0, copies)

    def loss(self, views: tuple[Tensor, Any, Tensor]) -> Data2VecTerms:
        """Squared error on hidden patches, all copies of an image against one target."""
        images, masks, holes = views
        pred, cls_pred = self.predict(images, masks, holes)
        cls_pred = cls_pred if self.cls_weight else None
        return data2vec_loss(pred, self.targets(images), masks.mask, cls_pred, self.cls_weight, self.beta)

    @torch.no_grad()
    def collapse(self, images: Tensor) -> dict[str, float]:
        """Two meters of the targets: their effective rank, and the share of their variance that is not place alone.

        A target that says only where a patch lies has content 0: it can be predicted without looking.
        """
        target = self.targets(images)
        content = target.var(0).sum() / (target - target.mean((0, 1))).square().mean((0, 1)).sum() / target.shape[1]
        return {"content": float(content), "rank": float(effective_rank(target.flatten(0, 1)))}

    def after_step(self, progress: float) -> None:
        """The teacher follows, ever more slowly."""
        if self.teacher_backbone is not None:
            risen = min(1.0, progress / self.anneal)
            momentum = self.momentum + (self.end_momentum - self.momentum) * risen
            update_ema(self.teacher_backbone, self.backbone, momentum)
