"""Checks of next-embedding prediction and of the test that finds leaks."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from sslcore.checks.report import CheckFailed, Report, draw, steady


@steady
def check_next_embedding_loss(fn: Callable | None = None) -> None:
    """fn(outputs (B, L, D), sequence (B, L, D)) -> scalar; see sslcore.objectives.next_embedding_loss."""
    if fn is None:
        from sslcore.objectives import next_embedding_loss as fn
    report = Report("next_embedding_loss")
    outputs, sequence = draw(3, 5, 4, seed=1), draw(3, 5, 4, seed=2)

    def loss(o, s):
        return report.scalar(fn(o, s))

    report.close(loss(sequence.roll(-1, 1), sequence), -1.0, "saying the next embedding costs -1, the least",
                 "compare output i with embedding i + 1, cosine with a minus")
    report.close(loss(-3 * sequence.roll(-1, 1), sequence), 1.0, "pointing away from it costs 1",
                 "divide by both lengths")
    moved = outputs.clone()
    moved[:, -1] += 9
    report.close(loss(moved, sequence), loss(outputs, sequence), "the last output has nothing to predict",
                 "drop it, do not compare it with the first embedding")
    first = sequence.clone()
    first[:, 0] += 9
    report.close(loss(outputs, first), loss(outputs, sequence), "the first embedding is nobody's target")
    corner = F.cosine_similarity(outputs[:, :-1], sequence[:, 1:], dim=2)
    report.close(loss(outputs, sequence), -corner.mean(), "the mean over all images and places",
                 "one cosine a place; not one over the flattened image, and not a sum")
    given, said = sequence.clone().requires_grad_(), outputs.clone().requires_grad_()
    value = loss(said, given)
    report.expect(value.requires_grad, "gradients reach the outputs", "a loss without gradient", "detach targets only")
    to_said, to_given = torch.autograd.grad(value, (said, given), allow_unused=True)
    report.expect(to_said is not None and bool((to_said[:, :-1].norm(dim=2) > 0).all()),
                  "every prediction gets a gradient", "a prediction without gradient")
    report.expect(to_given is None or not to_given.any(), "no gradient reaches the targets",
                  "targets are pulled towards predictions", "sequence.detach()")


@steady
def check_token_influence(fn: Callable | None = None) -> None:
    """fn(network, sequence (B, L, D)) -> (L, L), entry [i, j] > 0 where token j moves output i, else 0."""
    if fn is None:
        from sslcore.probes import token_influence as fn
    report = Report("token_influence")
    sequence = draw(4, 6, 3, seed=3)

    def pattern(network):
        kept = sequence.clone()
        influence = fn(network, kept)
        if not isinstance(influence, torch.Tensor):
            raise CheckFailed(f"token_influence: expected a tensor (L, L), got {type(influence).__name__}")
        report_shape = tuple(influence.shape)
        if report_shape != (6, 6):
            raise CheckFailed(f"token_influence: expected shape (6, 6) for 6 tokens, got {report_shape}")
        return (influence > 1e-6).double(), bool(torch.equal(kept, sequence))

    seen, untouched = pattern(lambda x: 2 * x)
    report.close(seen, torch.eye(6), "a network that mixes nothing: only the diagonal",
                 "change one token at a time, each time from the original sequence")
    report.expect(untouched, "the sequence comes back as it was", "it has been written to", "clone it first")
    report.close(pattern(lambda x: x.cumsum(1))[0], torch.ones(6, 6).tril(),
                 "a running sum: output i reads tokens 0 to i", "rows are outputs, columns the tokens changed")
    report.close(pattern(lambda x: x.roll(-1, 1))[0], torch.eye(6).roll(-1, 0), "a peek at the next token is found",
                 "look at every output, not only at later ones")
    report.close(pattern(lambda x: x * torch.tensor([0.0, 0.0, 1.0]))[0], torch.eye(6),
                 "also when one channel alone is read", "change all channels, take the largest over channels")
    report.close(pattern(torch.ones_like)[0], torch.zeros(6, 6),
                 "a network that gives a constant reads nothing", "compare outputs, not inputs")
    report.close(pattern(lambda x: torch.where(torch.arange(4)[:, None, None] == 2, x, 0 * x))[0], torch.eye(6),
                 "also when one image alone shows it", "take the largest over images")
