"""dVAE: describe each patch by one code out of a vocabulary, well enough to paint the image again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslcore.methods.method import Method, view_size
from sslcore.objectives import DVAETerms, dvae_loss, gumbel_softmax, unpatchify
from sslcore.validate import check_positive, require
from sslcore.views import ViewPolicy


class DVAE(Method):
    """Discrete variational autoencoder, the tokenizer of BEiT (Ramesh et al. 2021, arXiv 2102.12092, section 2.1).

    Collapse guards: the temperature starts warm, and beta is 0 at first, so that many codes are tried; a tokenizer that
    uses few codes shows in `prototype_usage` of its codes.

    backbone: the encoder, any network whose patch tokens form a grid of cells of `patch_size` pixels.
    num_codes: size of the vocabulary; DALL-E's tokenizer has 8192. code_dim: width of a code's embedding.
    end_temperature: of the Gumbel softmax, which falls from 1 exponentially over the run; 1/16 as in DALL-E.
    beta: final weight of the kl, rising linearly over the run. hard: one-hot draws with straight-through gradients.
    Raises ValueError on sizes or temperatures that are not above 0.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        policy: Any = None,
        img_size: int | None = None,
        pool: str = "auto",
        num_codes: int = 64,
        code_dim: int = 64,
        end_temperature: float = 1 / 16,
        beta: float = 1e-3,
        hard: bool = False,
    ) -> None:
        super().__init__(backbone, pool=pool, img_size=img_size)
        for name, number in dict(num_codes=num_codes, code_dim=code_dim, end_temperature=end_temperature).items():
            check_positive(name, number)
        require(num_codes >= 2, f"num_codes: expected at least 2, got {num_codes}")
        self.policy, self.num_codes, self.hard = policy, num_codes, hard
        self.end_temperature, self.end_beta = end_temperature, beta
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("beta", torch.zeros(()))
        self.to_logits = nn.Linear(backbone.embed_dim, num_codes)
        self.embed = nn.Linear(num_codes, code_dim, bias=False)
        nn.init.normal_(self.embed.weight)
        pixels = backbone.patch_size**2 * backbone.in_chans
        self.decoder = nn.Sequential(
            nn.Conv2d(code_dim, 2 * code_dim, 3, padding=1), nn.GELU(), nn.Conv2d(2 * code_dim, pixels, 1)
        )

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """One float view (B, C, size, size) of each image, and the uniform numbers (B, N, V) of its Gumbel noise."""
        plain = {"jitter_probability": 0.0, "grayscale": 0.0}
        policy = ViewPolicy(view_size(self, batch), scale=(0.5, 1.0), **plain) if self.policy is None else self.policy
        images = policy(batch["images"], generator=generator)
        side = self.backbone.patch_size
        cells = -(-images.shape[2] // side) * -(-images.shape[3] // side)
        source = images.device if generator is None else generator.device
        noise = torch.rand(len(images), cells, self.num_codes, generator=generator, device=source)
        return images, noise.to(images.device)

    def logits(self, images: Tensor) -> Tensor:
        """(B, N, V) scores of the codes."""
        return self.to_logits(self.backbone(images).patch_tokens)

    @torch.no_grad()
    def codes(self, images: Tensor) -> Tensor:
        """(B, N) int64: the likeliest code of each patch, without noise."""
        return self.logits(images).argmax(2)

    def paint(self, shares: Tensor, grid: tuple[int, int]) -> Tensor:
        """Codes, soft or one-hot (B, N, V) -> images (B, C, H, W)."""
        cells = self.embed(shares).transpose(1, 2).unflatten(2, grid)
        patches = self.decoder(cells).flatten(2).transpose(1, 2)
        return unpatchify(patches, self.backbone.patch_size, grid, self.backbone.in_chans)

    def loss(self, views: tuple[Tensor, Tensor]) -> DVAETerms:
        """Squared error of the repainted view, plus beta times the kl of the codes to fair ones."""
        images, noise = views
        logits = self.logits(images)
        side = self.backbone.patch_size
        grid = (images.shape[2] // side, images.shape[3] // side)
        shares = gumbel_softmax(logits, noise, self.temperature, hard=self.hard)
        return dvae_loss(self.paint(shares, grid), images, logits, self.beta)

    def after_step(self, progress: float) -> None:
        """Cool down and let the kl in."""
        self.temperature.fill_(self.end_temperature**progress)
        self.beta.fill_(self.end_beta * progress)
