"""NEPA: read an image patch by patch and say the embedding of the next one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslcore.methods.method import Method, view_size
from sslcore.objectives import next_embedding_loss
from sslcore.validate import require, unknown
from sslcore.views import mae_policy

ORDERS = ("raster", "columns", "random")


class NEPA(Method):
    """Next-embedding prediction (arXiv 2512.16922).

    Collapse guards: stop_gradient keeps targets from moving towards predictions, causal keeps the answer out of sight.
    Turn either off to see what it is for.

    backbone: a VisionTransformer with a class token and no registers. The paper's net has rotary positions and adds
        nothing to the patch embeddings; where a table of positions is added, targets are taken without it.
        The paper normalises queries and keys, and jitters coordinates in training; this course's net does neither.
    order: "raster" reads row by row as in the paper, "columns" column by column, "random" in one shuffled order, the
        same for all images and steps, drawn from order_seed.
    pool: "mean" of the patch tokens; under a causal mask the class token sees only itself.
    Raises ValueError on an unknown order and on other backbones.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        policy: Any = None,
        img_size: int | None = None,
        pool: str = "mean",
        stop_gradient: bool = True,
        causal: bool = True,
        order: str = "raster",
        order_seed: int = 0,
    ) -> None:
        grid = getattr(backbone, "reference_grid", None)
        require(grid is not None, f"backbone: expected a vision transformer, got {type(backbone).__name__}")
        prefix = backbone.num_prefix_tokens
        require(
            prefix == 1 and backbone.cls_token is not None,
            f"backbone: expected a class token alone before the patches, got {prefix} tokens",
        )
        if order not in ORDERS:
            unknown("order", order, ORDERS)
        img_size = grid[0] * backbone.patch_size if img_size is None else img_size
        super().__init__(backbone, pool=pool, img_size=img_size)
        self.policy, self.stop_gradient, self.causal, self.order = policy, stop_gradient, causal, order
        side = img_size // backbone.patch_size
        reading = torch.arange(side * side)
        if order == "columns":
            reading = reading.view(side, side).T.flatten()
        elif order == "random":
            reading = torch.randperm(side * side, generator=torch.Generator().manual_seed(order_seed))
        self.register_buffer("reading", reading)

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> Tensor:
        """One float view (B, C, size, size) of each image: a crop and a flip."""
        policy = mae_policy(view_size(self, batch)) if self.policy is None else self.policy
        return policy(batch["images"], generator=generator)

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """outputs and sequence, both (B, N + 1, D) in reading order: what was said at each place, what was read there.

        outputs[:, i] is the prediction of sequence[:, i + 1]; place 0 is the class token.
        """
        order = None if self.order == "raster" else self.reading.expand(len(images), -1)
        mask = "causal" if self.causal else None
        tokens = self.backbone(images, ids_keep=order, attn_mask=mask, return_layers=True)
        outputs = torch.cat([tokens.cls_token[:, None], tokens.patch_tokens], dim=1)
        sequence, table = tokens.layers[0], self.backbone.positions(tokens.grid)
        if table is not None:
            table = table if order is None else table[:, self.reading]
            sequence = torch.cat([sequence[:, :1], sequence[:, 1:] - table], dim=1)
        return outputs, sequence

    def loss(self, views: Tensor) -> Tensor:
        """Minus the mean cosine between prediction and next embedding."""
        return next_embedding_loss(*self.predict(views), stop_gradient=self.stop_gradient)
