"""What each family of same-object probes can and cannot do, on planted object codes with known answers."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from sslcore.probes.same_object.fit import FittedProbe, same_object_probe, used_tokens
from sslcore.probes.same_object.metrics import auroc, pair_accuracy
from sslcore.probes.same_object.pairs import Pairs
from sslcore.probes.same_object.probe import KINDS, SameObjectProbe
from tests.probes.planted import GRID, tokens_with_codes


@functools.cache
def planted(rotate: bool, nuisance: int = 10) -> tuple:
    return tuple(tokens_with_codes(count, seed, rotate, nuisance) for count, seed in ((300, 0), (60, 1), (100, 2)))


@functools.cache
def fitted(kind: str, rotate: bool, nuisance: int = 10, rank: int = 32) -> tuple[FittedProbe, dict[str, float]]:
    train, val, test = planted(rotate, nuisance)
    probe = same_object_probe(train, val, kind, rank=rank, epochs=12, lr=5e-2, weight_decay=1e-3)
    scores = probe.score(*test)[0]
    return probe, pair_accuracy(scores, test[1].same) | {"auroc": auroc(scores, test[1].same)}


@pytest.mark.parametrize("rotate", [False, True])
def test_an_additive_probe_cannot_tell_whether_two_tokens_agree(rotate):
    assert abs(fitted("additive", rotate)[1]["auroc"] - 0.5) < 0.02
    assert abs(fitted("additive", rotate)[1]["balanced_accuracy"] - 0.5) < 0.02


@pytest.mark.parametrize("kind", ["quadratic", "lowrank"])
@pytest.mark.parametrize("rotate", [False, True])
def test_a_full_quadratic_form_reads_the_codes_in_any_basis(kind, rotate):
    assert fitted(kind, rotate)[1]["balanced_accuracy"] > 0.93


def test_a_diagonal_form_needs_the_axes_to_be_the_codes():
    assert fitted("diagonal", False)[1]["balanced_accuracy"] > 0.92
    assert fitted("diagonal", True)[1]["balanced_accuracy"] < 0.75


def test_without_nuisance_dimensions_rotation_does_not_hurt_the_diagonal():
    assert fitted("diagonal", True, nuisance=0)[1]["balanced_accuracy"] > 0.9


def test_the_spectrum_shows_the_planted_agreement_directions():
    """Six code directions and the two that three one-hot classes leave, all positive: agreeing speaks for same."""
    values = torch.linalg.eigvalsh(fitted("quadratic", True)[0].probe.matrix()[0].detach())
    ordered = values.sort(descending=True).values
    assert float(ordered[7]) > 0.4 * float(ordered[0]) and float(ordered[7]) > 10 * float(ordered[8])


def test_too_small_a_rank_cannot_hold_the_code():
    assert fitted("lowrank", True, rank=2)[1]["auroc"] < fitted("lowrank", True)[1]["auroc"] - 0.03


def random_pairs(images: int, seed: int = 0) -> Pairs:
    generator = torch.Generator().manual_seed(seed)
    image = torch.arange(images).repeat_interleave(20)
    ends = torch.stack([torch.randperm(32, generator=generator)[:2].sort().values for _ in image])
    return Pairs(image, ends[:, 0], ends[:, 1], torch.rand(len(image), generator=generator) > 0.5, GRID)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_a_double_loop(kind):
    probe = SameObjectProbe(kind, 5, num_probes=2, rank=3)
    for parameter in probe.parameters():
        torch.nn.init.normal_(parameter)
    tokens = torch.randn(2, 3, 4, 5)
    table = probe.similarity(tokens).detach() + probe.bias[:, None, None, None].detach()
    torch.testing.assert_close(table, table.transpose(-1, -2))
    values = dict(probe.named_parameters())
    for s, b, i, j in ((0, 0, 0, 1), (1, 2, 3, 0), (0, 1, 2, 2), (1, 0, 1, 3)):
        x, y = tokens[s, b, i], tokens[s, b, j]
        if kind == "additive":
            expected = values["weight"][s] @ (x + y)
        elif kind == "diagonal":
            expected = sum(values["weight"][s, k] * x[k] * y[k] for k in range(5))
        elif kind == "quadratic":
            w = values["weight"][s]
            expected = sum((w[k, m] + w[m, k]) / 2 * x[k] * y[m] for k in range(5) for m in range(5)) / math.sqrt(5)
        else:
            positive, negative = values["positive"][s], values["negative"][s]
            expected = ((x @ positive) @ (y @ positive) - (x @ negative) @ (y @ negative)) / math.sqrt(5)
        torch.testing.assert_close(table[s, b, i, j], expected.detach() + probe.bias[s].detach(), atol=1e-5, rtol=1e-4)
        if kind != "additive":
            torch.testing.assert_close((x @ probe.matrix()[s] @ y).detach(), expected.detach(), atol=1e-5, rtol=1e-4)


def test_low_rank_has_that_many_positive_and_negative_directions():
    probe = SameObjectProbe("lowrank", 12, rank=3)
    torch.nn.init.normal_(probe.positive)
    torch.nn.init.normal_(probe.negative)
    values = torch.linalg.eigvalsh(probe.matrix()[0])
    assert int((values > 1e-5).sum()) <= 3 and int((values < -1e-5).sum()) <= 3


def test_probes_side_by_side_end_where_each_ends_alone():
    train, val, test = planted(True)
    noisy = [(torch.cat([f, f + torch.randn(f.shape)]), p) for f, p in (train, val)]
    together = same_object_probe(*noisy, epochs=2)
    for index in range(2):
        alone = same_object_probe(*[(f[index : index + 1], p) for f, p in noisy], epochs=2)
        torch.testing.assert_close(together.probe.positive[index], alone.probe.positive[0], atol=1e-4, rtol=1e-3)
        assert float(together.val_auroc[index]) == pytest.approx(float(alone.val_auroc[0]), abs=1e-4)


def test_shuffled_answers_teach_nothing():
    train, val, test = planted(True)
    probe = same_object_probe((train[0], train[1].shuffled(3)), val, "quadratic", epochs=4, lr=2e-2)
    assert abs(auroc(probe.score(*test)[0], test[1].same) - 0.5) < 0.08


def test_identical_tokens_of_two_objects_cannot_be_told_apart():
    pairs = random_pairs(6)
    features = torch.randn(1, 6, 1, 8).expand(-1, -1, 32, -1).contiguous()
    probe = same_object_probe((features, pairs), (features, pairs), epochs=2)
    logits = probe.score(features, pairs)[0]
    for image in range(6):
        assert float(logits[pairs.image == image].std()) < 1e-5


def test_used_tokens_keep_every_pair_and_token_order_does_not_matter():
    pairs, features = random_pairs(5), torch.randn(2, 9, 32, 4)
    pairs = Pairs(pairs.image * 2, pairs.first, pairs.second, pairs.same, pairs.grid)  # images 1, 3, ... have none
    compact, which, renumbered = used_tokens(features, pairs)
    ends = set(zip(pairs.image.tolist() * 2, pairs.first.tolist() + pairs.second.tolist(), strict=True))
    assert compact.shape[1] == 5 and int(which.sum()) == len(ends)
    torch.testing.assert_close(compact[:, renumbered.image, renumbered.first], features[:, pairs.image, pairs.first])
    torch.testing.assert_close(compact[:, renumbered.image, renumbered.second], features[:, pairs.image, pairs.second])


def test_one_outlier_does_not_rule_the_scores():
    train, val, test = planted(True)
    probe = fitted("quadratic", True)[0]
    wild = test[0].clone()
    wild[:, 0, 0] = 1e6
    assert float(probe.standardise(wild).abs().max()) == 5
    assert bool(torch.isfinite(probe.score(wild, test[1])).all())


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f, p: (f[0], p), "dimensions"),
        (lambda f, p: (f[:, :3], p), "images"),
        (lambda f, p: (f[:, :, :30], p), "32 tokens"),
        (lambda f, p: (f * float("nan"), p), "finite"),
        (lambda f, p: (f, p.take(torch.zeros(len(p), dtype=torch.bool))), "at least one"),
    ],
)
def test_bad_input_is_named(change, message):
    good = (torch.randn(1, 6, 32, 4), random_pairs(6))
    with pytest.raises(ValueError, match=message):
        same_object_probe(change(*good), good)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="additive, diagonal, lowrank, quadratic"):
        SameObjectProbe("cubic", 4)
    with pytest.raises(ValueError, match="rank"):
        SameObjectProbe("lowrank", 4, rank=0)
    with pytest.raises(ValueError, match="no quadratic form"):
        SameObjectProbe("additive", 4).matrix()
