"""Train and grade a question-answering head on patch tokens that were computed once: seconds instead of minutes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslcore.backbones import Tokens
from sslcore.data.questions import ANSWERS, KINDS, LENGTH, VOCABULARY, Questions
from sslcore.methods.vqa import VQA
from sslcore.probes import expected_calibration_error
from sslcore.training.loop import fit
from sslcore.validate import check_float, check_rank, require


class StoredTokens(nn.Module):
    """Stands in for a frozen backbone: its input is that backbone's patch tokens (B, rows * columns, D)."""

    num_prefix_tokens = 0

    def __init__(self, embed_dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.embed_dim, self.grid = embed_dim, grid

    def forward(self, tokens: Tensor) -> Tokens:
        return Tokens(cls_token=tokens.mean(1), patch_tokens=tokens, grid=self.grid)


def as_they_are(tokens: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The policy of a head on stored tokens."""
    return tokens


def _check(tokens: Tensor, questions: Questions) -> tuple[int, int]:
    check_rank("tokens", tokens, 3)
    check_float("tokens", tokens)
    side = round(tokens.shape[1] ** 0.5)
    require(side * side == tokens.shape[1], f"tokens: expected a square grid, got {tokens.shape[1]} an image")
    last = int(questions.image.max())
    require(last < len(tokens), f"questions: about scene {last}, but there are tokens of {len(tokens)} scenes")
    return side, side


def fit_question_head(
    tokens: Tensor,
    questions: Questions,
    *,
    labels: int | None = None,
    steps: int = 200,
    batch_size: int = 64,
    lr: float = 3e-3,
    weight_decay: float = 1e-2,
    seed: int = 0,
    **head: Any,
) -> VQA:
    """A VQA head for the patch tokens (N, cells, D) of N scenes on a square grid, in eval mode, on the tokens' device.

    questions: about these scenes. labels: how many of them are used, drawn with the seed; None = all. head: settings of
    VQA. The head's weights, the choice of questions and their order depend on the seed alone. Raises ValueError for
    tokens of another shape, questions about scenes that are not there, or more labels than questions.
    """
    grid = _check(tokens, questions)
    count = len(questions) if labels is None else labels
    require(1 <= count <= len(questions), f"labels: expected 1 to {len(questions)}, got {count}")
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        backbone = StoredTokens(tokens.shape[2], grid)
        method = VQA(backbone, len(VOCABULARY), len(ANSWERS), LENGTH, policy=as_they_are, **head)
        chosen = torch.randperm(len(questions))[:count]

    def batches(step: int, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        index = torch.randint(count, (size,), generator=generator, device=generator.device).cpu()
        some = questions.take(chosen[index])
        words, answers = (part.to(tokens.device) for part in (some.tokens, some.answers))
        return {"images": tokens[some.image.to(tokens.device)], "tokens": words, "answers": answers}

    settings = {"steps": steps, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay, "seed": seed}
    fit(method, batches, progress=False, device=tokens.device, **settings)
    return method.eval()


@torch.no_grad()
def grade_answers(head: VQA, tokens: Tensor, questions: Questions) -> dict[str, float]:
    """"accuracy" over all questions, one accuracy for each kind that is asked, and the calibration error "ECE".

    Arguments and errors as in fit_question_head.
    """
    _check(tokens, questions)
    scenes = tokens[questions.image.to(tokens.device)]
    shares = head.logits(scenes, questions.tokens.to(tokens.device)).float().softmax(1).cpu()
    right = (shares.argmax(1) == questions.answers).float()
    kinds = {name: right[questions.kind == k] for k, name in enumerate(KINDS)}
    found = {name: float(hits.mean()) for name, hits in kinds.items() if len(hits)}
    return {"accuracy": float(right.mean()), **found, "ECE": expected_calibration_error(shares, questions.answers)}
