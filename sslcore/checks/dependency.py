"""Checks of reversed attention, of pruning by received mass, and of attachment with its base rate."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sslcore.checks.report import CheckFailed, Report, draw, steady


def _softmax(*shape: int, seed: int) -> torch.Tensor:
    return (2 * draw(*shape, seed=seed)).softmax(-1)


@steady
def check_reversed_weights(fn: Callable | None = None) -> None:
    """fn(attention (B, H, L, L), selector (B, L, H), message (B, L)) -> (B, H, L, L), [receiver, sender]."""
    if fn is None:
        from sslcore.backbones import reversed_weights as fn
    report = Report("reversed_weights")
    attention, selector = _softmax(2, 3, 4, 4, seed=1), _softmax(2, 4, 3, seed=2)
    message, full = draw(2, 4, seed=3).sigmoid(), torch.ones(2, 4)
    sent = fn(attention, selector, message)
    if not isinstance(sent, torch.Tensor) or tuple(sent.shape) != (2, 3, 4, 4):
        raise CheckFailed(f"reversed_weights: expected a tensor (2, 3, 4, 4), got {getattr(sent, 'shape', sent)}")
    report.close(sent.sum((1, 2)), message, "for each sender, what all receivers get adds up to its message",
                 "rows of attention belong to senders: receivers stand in axis 2 of the result, senders in axis 3")
    report.close(fn(attention[:, :1], full[..., None], full), attention[:, :1].transpose(2, 3),
                 "one head and full messages: the transpose of attention")
    one_hot = torch.eye(3)[torch.tensor([0, 2, 1, 2])].expand(2, 4, 3)
    by_head = fn(attention, one_hot, full).sum(2)  # (B, H, senders)
    report.close(by_head, one_hot.transpose(1, 2), "each sender uses the heads that its own selector names",
                 "selector[b, i, h] belongs to sender i, not to the receiver")
    quiet = message.clone()
    quiet[:, 1] = 0
    report.close(fn(attention, selector, quiet)[..., 1], torch.zeros(2, 3, 4), "who has no message left sends nothing")
    report.close(fn(attention, selector, quiet)[..., [0, 2, 3]], sent[..., [0, 2, 3]], "and the others send as before")
    report.close(sent[1, 2, 0, 3], attention[1, 2, 3, 0] * selector[1, 3, 2] * message[1, 3],
                 "sent[h, j, i] = attention[h, i, j] * selector[i, h] * message[i]")


@steady
def check_keep_tokens(fn: Callable | None = None) -> None:
    """fn(dependency (B, N, N) [receiver, sender], count) -> (B, count) numbers of tokens, rising."""
    if fn is None:
        from sslcore.backbones.dependency_vit import Lite
        from sslcore.backbones.reversed_attention import Sent

        def fn(dependency, count):
            return Lite((0,)).choose(Sent(dependency, dependency, dependency, dependency), count)

    report = Report("keep_tokens")
    dependency = _softmax(3, 6, 6, seed=4).transpose(1, 2) * draw(3, 1, 6, seed=5).sigmoid()
    kept = fn(dependency, 4)
    if not isinstance(kept, torch.Tensor) or tuple(kept.shape) != (3, 4):
        raise CheckFailed(f"keep_tokens: expected a tensor (3, 4) of numbers, got {getattr(kept, 'shape', kept)}")
    report.expect(bool((kept.diff(dim=1) > 0).all()), "numbers rise, so that the tokens keep their order",
                  f"{kept[0].tolist()}", "sort what topk gives")
    received = torch.tensor([[sum(float(x) for x in row) for row in image] for image in dependency])
    least_kept = received.gather(1, kept.long()).amin(1)
    gone = torch.ones(3, 6, dtype=torch.bool).scatter(1, kept.long(), False)
    best_gone = received.masked_fill(~gone, -1).amax(1)
    report.expect((least_kept >= best_gone).all(), "no token that left received more than one that stayed",
                  f"kept from {least_kept.tolist()}, dropped up to {best_gone.tolist()}",
                  "received mass is the sum over senders, the last axis")
    hub = torch.full((1, 4, 4), 0.1)
    hub[0, 2] = 0.7
    report.close(fn(hub, 1), torch.tensor([[2]]), "where all send to token 2, it is the one that stays")


@steady
def check_attachment(fn: Callable | None = None) -> None:
    """fn(parents (B, N), labels (B, N), grid) -> accuracy, matched base rate."""
    if fn is None:
        from sslcore.probes import attachment

        def fn(parents, labels, grid):
            found = attachment(parents, labels, grid)
            return found.accuracy, found.matched

    report = Report("attachment")
    labels = torch.tensor([[1, 1, 0, 0, 2, 2], [1, 1, 1, 0, 0, 0]])
    parents = torch.tensor([[1, 5, 0, -1, 5, 4], [-1, 0, 0, 0, 0, 0]])
    answer = fn(parents, labels, (1, 6))
    if not (isinstance(answer, tuple) and len(answer) == 2):
        raise CheckFailed(f"attachment: expected two numbers (accuracy, matched), got {answer!r}")
    report.close(answer[0], 5 / 6, "share of right parents over tokens on objects that have a parent",
                 "tokens of the background (label 0) and roots (parent -1) are not scored")
    # Edges of the six scored tokens: lengths 1, 4, 1, 1, 1, 2. No token but the outer ones has another 4 away.
    shares = {1: 4 / 6, 2: 1 / 6, 4: 1 / 6}
    rates = []
    for b, i in ((0, 0), (0, 1), (0, 4), (0, 5), (1, 1), (1, 2)):
        rings = {d: [j for j in (i - d, i + d) if 0 <= j < 6] for d in shares}
        there = {d: ring for d, ring in rings.items() if ring}
        right = {d: sum(float(labels[b, j] == labels[b, i]) for j in ring) / len(ring) for d, ring in there.items()}
        rates.append(sum(shares[d] * right[d] for d in there) / sum(shares[d] for d in there))
    report.close(answer[1], sum(rates) / 6, "the base rate draws parents as far away as the tree's, in any direction",
                 "one distribution of distances for all tokens; at the border use the distances there are")
    rows = torch.arange(16).expand(30, -1)
    objects = (draw(30, 16, seed=6) > 0).long() + 1
    chain = torch.where(rows > 0, rows - 1, -1)
    accuracy, matched = fn(chain, objects, (4, 4))
    report.expect(abs(float(accuracy) - float(matched)) < 0.1, "where labels are noise a tree gains nothing",
                  f"accuracy {float(accuracy):.2f}, base rate {float(matched):.2f}")
