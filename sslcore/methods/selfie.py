"""Selfie: hide a few patches and pick the right one for each hidden place among all that were hidden."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslcore.backbones import PatchPool
from sslcore.methods.method import Method, view_size
from sslcore.objectives import patch_selection_loss
from sslcore.validate import require, unknown
from sslcore.views import ViewPolicy, random_mask

QUESTIONS = ("sum", "mlp")


def take(tokens: Tensor, places: Tensor) -> Tensor:
    """Rows `places` (B, M) of tokens (B or 1, N, D), image by image -> (B, M, D)."""
    return tokens.expand(len(places), -1, -1).gather(1, places[..., None].expand(-1, -1, tokens.shape[2]))


def ask_for(pooled: Tensor, places: Tensor, embedded: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """queries[b, t] = pooled[b] + places[hidden[b, t]] and keys[b, t] = embedded[b, hidden[b, t]], both (B, T, D).

    pooled (B, D): the visible patches in one vector. places (N, D): one embedding a place. embedded (B, N, D): all
    patches. hidden (B, T) int64: numbers of the hidden ones.
    """
    return pooled[:, None] + take(places[None], hidden), take(embedded, hidden)


class Selfie(Method):
    """Selfie (Trinh et al. 2019, arXiv 1906.02940).

    Collapse guard: none is needed; equal embeddings of all patches cost ln T, the most.
    Cost: the trunk sees every patch once, the pool only the visible ones.

    backbone: a PatchPool; its trunk is what fine-tuning keeps. It fixes the size of the views and their channels.
    mask_ratio: part of the patches hidden, and so the number of candidates: 0.25 of 16 gives four.
    question: "sum" adds the embedding of the hidden place to the pooled vector, as in the paper. Its scores fall apart
        into (pooled, candidate) + (place, candidate): what is visible shifts a candidate alike for all places. "mlp"
        puts one hidden layer behind the sum, so that what is visible can matter at one place and not at another.
    distractors: visible patches of the image that are candidates too, nobody's answer; 0 as in the paper.
    scale: of the scores; None takes 1 / sqrt(D) where the paper has 1.
    policy: paper: light, pad and crop. Default here: a crop of 80 to 100 % and no colour.
    Raises ValueError on another backbone, an unknown question or more distractors than visible patches.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        policy: Any = None,
        img_size: int | None = None,
        pool: str = "auto",
        mask_ratio: float = 0.25,
        question: str = "sum",
        distractors: int = 0,
        scale: float | None = None,
    ) -> None:
        require(isinstance(backbone, PatchPool), f"backbone: expected a PatchPool, got {type(backbone).__name__}")
        if question not in QUESTIONS:
            unknown("question", question, QUESTIONS)
        size, dim = backbone.patch_size, backbone.embed_dim
        img_size = backbone.reference_grid[0] * size if img_size is None else img_size
        require(img_size % size == 0, f"img_size: expected a multiple of the patch size {size}, got {img_size}")
        super().__init__(backbone, pool=pool, img_size=img_size)
        places = (img_size // size) ** 2
        visible = random_mask(1, places, mask_ratio).ids_keep.shape[1]
        require(0 <= distractors <= visible, f"distractors: expected 0 to {visible} visible patches, got {distractors}")
        require(places - visible + distractors >= 2, f"mask_ratio: {mask_ratio} of {places} patches leaves no choice")
        self.policy, self.mask_ratio, self.question, self.distractors = policy, mask_ratio, question, distractors
        self.scale = dim**-0.5 if scale is None else scale
        self.places = nn.Parameter(nn.init.trunc_normal_(torch.empty(places, dim)))
        self.head = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        if question == "sum":
            self.head = nn.Identity()

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> tuple[Tensor, Any]:
        """One float view (B, C, size, size) of each image, and the MaskIndices of its patches."""
        plain = {"scale": (0.8, 1.0), "jitter_probability": 0.0, "grayscale": 0.0}
        policy = ViewPolicy(view_size(self, batch), **plain) if self.policy is None else self.policy
        images = policy(batch["images"], generator=generator)
        places = len(self.places)
        return images, random_mask(len(images), places, self.mask_ratio, generator=generator, device=images.device)

    def ask(self, images: Tensor, indices: Any) -> tuple[Tensor, Tensor]:
        """queries (B, T, D) of the hidden places, keys (B, T + distractors, D) of the candidates, true ones first."""
        embedded = self.backbone.embed(images)
        pooled = self.backbone.pool(embedded, self.backbone.grid_of(images), indices.ids_keep).cls_token
        hidden = indices.ids_restore.argsort(1)[:, indices.ids_keep.shape[1] :]
        queries, keys = ask_for(pooled, self.places, embedded, hidden)
        others = take(embedded, indices.ids_keep[:, : self.distractors])
        return self.head(queries), torch.cat([keys, others], dim=1)

    def loss(self, views: tuple[Tensor, Any]) -> Tensor:
        """Cross-entropy of picking the right patch."""
        return patch_selection_loss(*self.ask(*views), scale=self.scale)
