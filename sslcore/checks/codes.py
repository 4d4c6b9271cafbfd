"""Checks of masked code prediction and of the Gumbel softmax behind a trained tokenizer."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from sslcore.checks.report import Report, draw, steady


@steady
def check_masked_code_loss(fn: Callable | None = None) -> None:
    """fn(logits (B, N, V), codes (B, N) int64, mask (B, N) bool, True = hidden) -> scalar."""
    if fn is None:
        from sslcore.objectives import masked_code_loss as fn
    report = Report("masked_code_loss")
    logits, codes = draw(2, 4, 5, seed=1), torch.tensor([[0, 4, 2, 2], [3, 1, 1, 0]])
    mask = torch.tensor([[True, False, False, False], [False, True, True, True]])

    def loss(scores, k=codes, m=mask):
        return report.scalar(fn(scores, k, m))

    report.close(loss(torch.zeros_like(logits)), math.log(5), "equal scores cost ln V",
                 "the cross-entropy of one code among V, in natural logarithms")
    report.close(loss(50 * F.one_hot(codes, 5).float()), 0.0, "being sure and right costs nothing")
    shown = torch.where(mask[..., None], logits, logits + 100 * draw(2, 4, 5, seed=2))
    report.close(loss(shown), loss(logits), "scores at visible patches do not count",
                 "mask is True where a patch is hidden")
    other = torch.where(mask, codes, (codes + 1) % 5)
    report.close(loss(logits, other), loss(logits), "codes of visible patches do not count")
    costs = -logits.log_softmax(2).gather(2, codes[..., None])[..., 0]
    report.close(loss(logits), costs[mask].mean(), "the mean over all hidden patches of the batch together",
                 "not image by image, and not divided by B * N")
    names = torch.tensor([2, 0, 4, 1, 3])
    renamed = torch.empty_like(logits).index_copy_(2, names, logits)
    report.close(loss(renamed, names[codes]), loss(logits), "other names for the codes change nothing")
    report.close(loss(logits + 3 * draw(2, 4, 1, seed=3)), loss(logits), "a constant added to all scores of a patch"
                 " changes nothing", "softmax runs over the V codes")


@steady
def check_gumbel_softmax(fn: Callable | None = None) -> None:
    """fn(logits (..., V), uniform (..., V), temperature) -> (..., V) soft draws of one code."""
    if fn is None:
        from sslcore.objectives import gumbel_softmax as fn
    report = Report("gumbel_softmax")
    logits = draw(3, 4, 6, seed=1)
    uniform = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(2))
    soft = fn(logits, uniform, 0.5)
    report.expect(soft is not None, "something is returned", "None")
    report.expect(tuple(soft.shape) == (3, 4, 6), "one share for each code", f"shape {tuple(soft.shape)}")
    report.close(soft.sum(-1), torch.ones(3, 4), "the shares of a patch sum to 1", "softmax over the last axis")
    flat = fn(logits, torch.full_like(uniform, 0.3), 1.0)
    report.close(flat, logits.softmax(-1), "equal noise at temperature 1 leaves the plain softmax")
    certain, chance = torch.tensor([0.1, 0.9, 0.9]).log(), torch.tensor([0.2, 0.5, 0.8])
    by_hand = 1 / -chance.log() * certain.exp()  # exp(logit + gumbel)
    report.close(fn(certain, chance, 1.0), by_hand / by_hand.sum(), "the noise is -log(-log(uniform))",
                 "two logarithms and two minus signs")
    report.close(fn(certain, chance, 0.5), by_hand**2 / (by_hand**2).sum(),
                 "the temperature divides logits and noise together", "softmax((logits + noise) / temperature)")
    many = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(3))
    wanted = torch.tensor([0.6, 0.3, 0.1])
    winners = F.one_hot(fn(wanted.log().expand(20_000, 3), many, 0.7).argmax(1), 3).float().mean(0)
    report.close(winners, wanted, "the largest share falls on a code as often as softmax(logits) says", "", 0.03)
    cold = fn(logits, uniform, 1e-3).max(-1).values
    report.close(cold, torch.ones(3, 4), "near temperature 0 one code has it all", "", 1e-2)
    scores = logits.clone().requires_grad_()
    bent = (fn(scores, uniform, 1.0) * draw(3, 4, 6, seed=4)).sum()
    grad = torch.autograd.grad(bent, scores)[0].abs().max() if bent.requires_grad else 0.0
    report.expect(grad > 0, "a gradient reaches the logits", "none, or zero", "no argmax and no sampling inside")
