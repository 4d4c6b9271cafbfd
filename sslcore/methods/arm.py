"""ARM: a Mamba reads the image cluster by cluster and says what the next cluster looks like."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslcore.backbones import CrossDecoder, VisionMamba, cluster_mask, cluster_order
from sslcore.methods.method import Method, view_size
from sslcore.objectives import next_cluster_loss
from sslcore.validate import require
from sslcore.views import mae_policy


class ARM(Method):
    """Autoregressive pre-training of a vision Mamba (arXiv 2406.07537).

    Collapse guard: none is needed, the target is the image itself. What has to be guarded is the answer: the network
    reads in one direction, and with masked=True a question about a cluster looks only at clusters before it. Turn the
    mask off to see what it is for.

    backbone: a VisionMamba of one direction; its `cluster` is the side of a cluster in patches (paper: 4, on a grid of
        12 x 12). The last cluster is never read and the first never predicted.
    norm_pix: score standardised patches, as in the paper.
    taps: blocks whose output the decoder gets, counted from 1; None spreads as many as there are decoder blocks evenly
        up to the last. decoder_dim, decoder_depth, decoder_heads: paper 512, 4, 8; here 96, 2, 3 under small nets.
    Fine-tuning goes on with four_directions(backbone). Raises ValueError on other backbones, fewer than two clusters,
    or taps that are not there.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        policy: Any = None,
        pool: str = "mean",
        masked: bool = True,
        norm_pix: bool = True,
        taps: tuple[int, ...] | None = None,
        decoder_dim: int = 96,
        decoder_depth: int = 2,
        decoder_heads: int = 3,
    ) -> None:
        one_way = isinstance(backbone, VisionMamba) and backbone.directions == 1
        require(one_way, f"backbone: expected a VisionMamba of one direction, got {type(backbone).__name__}")
        patch, grid, depth = backbone.patch_size, backbone.reference_grid, len(backbone.blocks)
        size, patches = backbone.cluster**2, grid[0] * grid[1]
        require(patches > size, f"backbone: expected at least two clusters, got one of {size} patches")
        require(grid[0] == grid[1], f"backbone: expected a square grid, got {grid}")
        if taps is None:
            taps = tuple(max(1, depth * (j + 1) // decoder_depth) for j in range(decoder_depth))
        fits = len(taps) >= 1 and all(1 <= tap <= depth for tap in taps) and taps[-1] == depth
        require(fits, f"taps: expected numbers from 1 to {depth}, the last {depth}, got {taps}")
        super().__init__(backbone, pool=pool, img_size=grid[0] * patch)
        self.policy, self.masked, self.norm_pix, self.taps = policy, masked, norm_pix, tuple(taps)
        self.decoder = CrossDecoder(
            backbone.embed_dim, len(taps), grid, backbone.in_chans * patch**2, decoder_dim, decoder_depth, decoder_heads
        )
        order = cluster_order(grid, backbone.cluster)
        self.register_buffer("read", order[:-size], persistent=False)
        self.register_buffer("asked", order[size:], persistent=False)
        self.register_buffer("may_look", cluster_mask(patches // size - 1, size), persistent=False)

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> Tensor:
        """One float view (B, C, size, size) of each image: a crop and a flip."""
        policy = mae_policy(view_size(self, batch)) if self.policy is None else self.policy
        return policy(batch["images"], generator=generator)

    def predict(self, images: Tensor) -> Tensor:
        """(B, Q, P): what is said about patches `asked`, each from the clusters before its own."""
        tokens = self.backbone(images, ids_keep=self.read, return_layers=True)
        # The last tap passes the network's own norm, so that it is trained too.
        layers = [*(tokens.layers[tap] for tap in self.taps[:-1]), tokens.patch_tokens]
        return self.decoder(layers, self.asked, self.may_look if self.masked else None)

    def loss(self, views: Tensor) -> Tensor:
        """Mean squared error at all clusters but the first."""
        return next_cluster_loss(self.predict(views), views, self.asked, self.backbone.patch_size, self.norm_pix)
