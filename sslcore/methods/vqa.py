"""Visual question answering on a pre-trained backbone: words choose what to read off the cells of an image."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcore.backbones import mlp
from sslcore.methods.method import Method, view_size
from sslcore.validate import require
from sslcore.views import ViewPolicy


def shifting_policy(size: int) -> ViewPolicy:
    """Crops of 80-100 %, no flip and no colour change: left stays left and red stays red."""
    return ViewPolicy(size, scale=(0.8, 1.0), ratio=(0.9, 1.1), flip=0.0, jitter_probability=0.0, grayscale=0.0)


class VQA(Method):
    """A question encoder and a fusion on top of a backbone's patch tokens, trained with cross-entropy on answers.

    Words are embedded and laid side by side, so their order counts. The question looks at a few cells (one softmax over
    cells for each glimpse), and scales and shifts all of them before they are averaged (FiLM, Perez et al. 2018, arXiv
    1709.07871): glimpses are for "what colour is the disc", the average for "how many". An MLP reads both.

    data: ImageSet whose images repeat for each question, with extras "tokens" (N, L) long and "answers" (N,) long.
    num_words, num_answers, length: sizes of the vocabulary and of the answers, words in a question.
    frozen: leave the backbone as it is, in eval mode; False trains it too.
    policy: ViewPolicy of the images; None takes shifting_policy of the view size.
    width, word_dim, glimpses: width of the fusion and of a word, number of softmaxes over the cells. Cells are
        standardised, so backbones of any scale start alike.
    """

    needs = ("tokens", "answers")

    def __init__(
        self,
        backbone: nn.Module,
        num_words: int,
        num_answers: int,
        length: int,
        *,
        frozen: bool = True,
        width: int = 64,
        word_dim: int = 16,
        glimpses: int = 2,
        policy: Any = None,
        img_size: int | None = None,
    ) -> None:
        super().__init__(backbone, img_size=img_size)
        for name, value in (("num_words", num_words), ("num_answers", num_answers), ("length", length)):
            require(value >= 1, f"{name}: expected at least 1, got {value}")
        self.frozen, self.policy, self.length = frozen, policy, length
        if frozen:
            backbone.requires_grad_(False)
        self.standardize = nn.BatchNorm1d(backbone.embed_dim, affine=False)
        self.words = nn.Embedding(num_words, word_dim)
        self.glimpses = glimpses
        self.question = mlp([length * word_dim, width, (3 + glimpses) * width], norm=None)
        self.cell = nn.Linear(backbone.embed_dim + 2, width)
        self.key = nn.Linear(backbone.embed_dim, width)
        self.answer = mlp([(2 + glimpses) * width, width, num_answers], norm=None)

    def train(self, mode: bool = True) -> VQA:
        """As usual, but a frozen backbone stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Float images (B, C, size, size), words (B, L), answers (B,)."""
        policy = shifting_policy(view_size(self, batch)) if self.policy is None else self.policy
        return policy(batch["images"], generator=generator), batch["tokens"], batch["answers"]

    def fusion(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, num_answers) of questions tokens (B, L) about images, the glimpses' maps (B, G, h, w)."""
        require(tokens.shape[1:] == (self.length,), f"tokens: expected (B, {self.length}), got {tuple(tokens.shape)}")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            seen = self.backbone(images)
        cells = self.standardize(seen.patch_tokens.flatten(0, 1)).view_as(seen.patch_tokens)
        axes = (torch.linspace(-1, 1, side, device=cells.device) for side in seen.grid)
        places = torch.cartesian_prod(*axes).expand(len(cells), -1, -1)
        asked, scale, shift, *queries = self.question(self.words(tokens).flatten(1)).chunk(3 + self.glimpses, dim=1)
        values = self.cell(torch.cat([cells, places], dim=2))  # (B, N, width)
        match = torch.stack(queries, dim=1) @ self.key(cells).mT / asked.shape[1] ** 0.5
        maps = match.softmax(dim=2)  # (B, G, N)
        average = F.relu((1 + scale[:, None]) * values + shift[:, None]).mean(dim=1)
        scores = self.answer(torch.cat([F.relu(asked), average, (maps @ values).flatten(1)], dim=1))
        return scores, maps.unflatten(2, seen.grid)

    def logits(self, images: Tensor, tokens: Tensor) -> Tensor:
        """(B, num_answers) scores of the answers to questions tokens (B, L) about float images (B, C, H, W)."""
        return self.fusion(images, tokens)[0]

    def loss(self, views: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy of the answers."""
        images, tokens, answers = views
        return F.cross_entropy(self.logits(images, tokens).float(), answers)
