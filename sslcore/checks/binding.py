"""Checks of the same-object read-out: token labels, matched pairs, the quadratic probe, AUROC."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sslcore.checks.report import Report, draw, steady


@steady
def check_token_labels(fn: Callable | None = None) -> None:
    """fn(masks (B, H, W), patch_size) -> labels (B, N), purity (B, N)."""
    if fn is None:
        from sslcore.probes import token_labels as fn
    report = Report("token_labels")
    mask = torch.zeros(1, 4, 8, dtype=torch.uint8)
    mask[0, :, 5:] = 2
    mask[0, 0, 0] = 3
    labels, purity = fn(mask, 4)
    report.expect(labels.tolist() == [[0, 2]], "a token carries the most frequent id of its pixels",
                  f"{labels.tolist()}, expected [[0, 2]]", "the mode, not the mean or the maximum")
    report.close(purity, torch.tensor([[15 / 16, 12 / 16]]), "purity is the share of pixels with that id")
    tall = torch.arange(4).reshape(1, 2, 2).repeat_interleave(4, 1).repeat_interleave(4, 2)
    got = fn(tall, 4)[0].tolist()
    report.expect(got == [[0, 1, 2, 3]], "tokens run along the rows of the image", f"{got}")


def _displacements(pairs) -> torch.Tensor:
    width = pairs.grid[1]
    rows = (pairs.first // width - pairs.second // width).abs()
    return rows * width + (pairs.first % width - pairs.second % width).abs()


@steady
def check_same_object_pairs(fn: Callable | None = None) -> None:
    """fn(pairs: Pairs) -> Pairs, displacement-matched: as many same as different pairs at every (|dr|, |dc|).

    `pairs.take(keep)` gives the pairs that a boolean mask keeps.
    """
    from sslcore.probes.same_object.pairs import Pairs, match_pairs

    if fn is None:

        def fn(pairs):
            return match_pairs(pairs, "displacement")

    report = Report("same_object_pairs")
    grid, images = (6, 6), 40
    first, second = torch.triu_indices(36, 36, 1)
    steps = (first // 6 - second // 6).abs() + (first % 6 - second % 6).abs()
    # Near pairs lie on one object much more often than far ones: the shortcut that matching takes away.
    chance = torch.rand(images, len(first), generator=torch.Generator().manual_seed(0))
    same = (chance < (0.9 - 0.12 * steps).clamp_min(0.02)).flatten()
    image = torch.arange(images).repeat_interleave(len(first))
    pairs = Pairs(image, first.repeat(images), second.repeat(images), same, grid)
    matched = fn(pairs)
    cells, count = _displacements(matched), grid[0] * grid[1]
    yes = torch.bincount(cells[matched.same], minlength=count)
    no = torch.bincount(cells[~matched.same], minlength=count)
    worst = int((yes - no).abs().argmax())
    report.expect(torch.equal(yes, no), "as many same as different pairs at every displacement",
                  f"at |dr|={worst // 6}, |dc|={worst % 6}: {int(yes[worst])} same, {int(no[worst])} different",
                  "match within each cell of (|row step|, |column step|), not over all pairs or by distance")
    before = _displacements(pairs)
    quota = torch.minimum(torch.bincount(before[pairs.same], minlength=count),
                          torch.bincount(before[~pairs.same], minlength=count))
    report.expect(torch.equal(yes, quota), "no more pairs are dropped than needed",
                  f"{len(matched)} pairs kept, {2 * int(quota.sum())} possible",
                  "keep min(same, different) of each kind in a cell")

    def codes(some):
        return ((some.image * 36 + some.first) * 36 + some.second) * 2 + some.same

    kept = codes(matched)
    report.expect(torch.isin(kept, codes(pairs)).all() and len(kept.unique()) == len(kept),
                  "the pairs are a selection: none twice, none changed", "repeated or altered pairs")
    shares = [matched.image[matched.same == kind].float().mean() for kind in (True, False)]
    report.expect(all(abs(share - 19.5) < 3 for share in shares), "the dropped pairs are chosen at random",
                  f"mean image of the kept pairs {float(shares[0]):.1f} and {float(shares[1]):.1f}, of all 19.5",
                  "the first ones of a cell all come from the first images: shuffle")


def _library_probe(first: torch.Tensor, second: torch.Tensor, weight: torch.Tensor, bias: float) -> torch.Tensor:
    from sslcore.probes.same_object import SameObjectProbe

    probe = SameObjectProbe("quadratic", first.shape[1])
    with torch.no_grad():
        probe.weight.copy_(weight[None])
        probe.bias.fill_(bias)
    pair = torch.arange(len(first))
    return probe(torch.stack([first, second], 1)[None], pair, torch.zeros_like(pair), torch.ones_like(pair))[0]


@steady
def check_quadratic_probe(fn: Callable | None = None) -> None:
    """fn(first (P, d), second (P, d), weight W (d, d), bias) -> logits (P,): x' (W + W')/2 y / sqrt(d) + bias."""
    fn = fn or _library_probe
    report = Report("quadratic_probe")
    first, second, weight = draw(7, 4, seed=1), draw(7, 4, seed=2), draw(4, 4, seed=3)
    got = fn(first, second, weight, 0.5)
    report.close(fn(first, second, torch.eye(4), 0.0), (first * second).sum(1) / 2,
                 "with W = identity: the dot product over sqrt(d)", "each pair on its own; divide by sqrt(d), not by d")
    report.close(fn(first, second, weight, 2.0) - got, torch.full((7,), 1.5), "the bias is added once to every logit")
    report.close(fn(second, first, weight, 0.5), got, "the order of the two tokens does not matter",
                 "use (W + W') / 2 in place of W")
    loop = [sum(x[i] * (weight[i, j] + weight[j, i]) / 2 * y[j] for i in range(4) for j in range(4)) / 2 + 0.5
            for x, y in zip(first, second, strict=True)]
    report.close(got, torch.stack(loop), "a double loop over the entries of W gives the same",
                 "off-diagonal entries count: channel i of one token against channel j of the other")


@steady
def check_auroc(fn: Callable | None = None) -> None:
    """fn(scores (P,), same (P,) bool) -> probability that a same pair scores above a different one."""
    if fn is None:
        from sslcore.probes.same_object.metrics import auroc as fn
    report = Report("auroc")
    same = torch.tensor([True, True, False, False])
    report.close(float(fn(torch.tensor([4.0, 3.0, 2.0, 1.0]), same)), 1.0, "perfect order gives 1")
    report.close(float(fn(torch.tensor([1.0, 2.0, 3.0, 4.0]), same)), 0.0, "reversed order gives 0")
    report.close(float(fn(torch.ones(4), same)), 0.5, "equal scores give one half", "a tie counts one half")
    scores, kind = draw(40, seed=1), draw(40, seed=2) > 0.7
    wins = (scores[kind][:, None] > scores[~kind][None]).double().mean()
    report.close(float(fn(scores, kind)), wins, "the share of (same, different) pairs in the right order")
    report.close(float(fn(scores.exp(), kind)), wins, "only the order of the scores matters")
