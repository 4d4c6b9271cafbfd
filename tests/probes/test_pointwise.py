"""Pointwise baselines on planted tokens: what classes and slots can and cannot say about instances."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch

from sslcore.probes.same_object.metrics import auroc, pair_accuracy
from sslcore.probes.same_object.pointwise import hungarian, identity_loss, matching_cost, pointwise_probe
from tests.probes.planted import coded_scenes


@functools.cache
def scenes(codes: str, seed: int) -> object:
    return coded_scenes(300 if seed == 0 else 150, seed, codes)


@functools.cache
def answers(kind: str, codes: str) -> tuple:
    train, test = scenes(codes, 0), scenes(codes, 1)
    target = train.kinds if kind == "class" else train.labels
    probe = pointwise_probe(train.features, target, kind, 3 if kind == "class" else 8)
    return probe, probe.agree(test.features, test.pairs)[0], test


def oracle(test) -> torch.Tensor:
    pairs = test.pairs
    return test.kinds[pairs.image, pairs.first] == test.kinds[pairs.image, pairs.second]


def balanced(same: torch.Tensor, truth: torch.Tensor) -> float:
    return pair_accuracy(same.float() - 0.5, truth)["balanced_accuracy"]


def test_a_class_probe_scored_on_instances_reaches_its_oracle_and_no_more():
    """Three classes: a different object shares the class a third of the time, so the ceiling is 1 - 1/6."""
    _, agree, test = answers("class", "fresh")
    ceiling = balanced(oracle(test), test.pairs.same)
    assert ceiling == pytest.approx(5 / 6, abs=0.02)
    assert balanced(agree, test.pairs.same) == pytest.approx(ceiling, abs=0.02)


def test_on_twins_a_class_probe_is_at_chance():
    probe, _, test = answers("class", "fresh")
    pairs = test.pairs.take(oracle(test))  # same class: one object, or another of its kind
    assert balanced(probe.agree(test.features, pairs)[0], pairs.same) == pytest.approx(0.5, abs=0.02)
    assert auroc(probe.score(test.features, pairs)[0], pairs.same) == pytest.approx(0.5, abs=0.06)


def test_identity_needs_slots_that_mean_the_same_in_every_scene():
    slots = answers("identity", "slots")
    assert balanced(slots[1], slots[2].pairs.same) > 0.95
    fresh = answers("identity", "fresh")
    assert balanced(fresh[1], fresh[2].pairs.same) < 0.75
    assert auroc(slots[0].score(slots[2].features, slots[2].pairs)[0], slots[2].pairs.same) > 0.97


def test_the_assignment_is_the_cheapest_of_all():
    cost = torch.rand(2, 3, 5, 3, generator=torch.Generator().manual_seed(0))
    present = torch.tensor([[True, True, True], [True, False, True], [False, False, True]])
    chosen = hungarian(cost, present)
    for s, b in itertools.product(range(2), range(3)):
        objects = present[b].nonzero()[:, 0].tolist()
        every = itertools.permutations(range(5), len(objects))
        best = min(sum(float(cost[s, b, q, o]) for q, o in zip(some, objects, strict=True)) for some in every)
        got = [int(chosen[s, b, o]) for o in objects]
        assert len(set(got)) == len(got)
        assert sum(float(cost[s, b, q, o]) for q, o in zip(got, objects, strict=True)) == pytest.approx(best)


def test_the_cost_equals_a_transcription():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 6, 4, generator=generator)
    masks = (torch.rand(3, 6, 2, generator=generator) > 0.5).float()
    used = torch.rand(3, 6, generator=generator) > 0.3
    got = matching_cost(logits, masks, used)
    for s, b, q, k in ((0, 0, 0, 0), (1, 2, 3, 1), (0, 1, 2, 0)):
        z, m = logits[s, b, used[b], q], masks[b, used[b], k]
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(z, m)
        p = z.sigmoid()
        dice = 1 - (2 * (p * m).sum() + 1) / (p.sum() + m.sum() + 1)
        torch.testing.assert_close(got[s, b, q, k], 5 * entropy + 5 * dice)


def test_renaming_instances_does_not_change_the_identity_loss():
    logits, target = torch.randn(2, 4, 8, 5), torch.randint(-1, 4, (4, 8), generator=torch.Generator().manual_seed(2))
    renamed = torch.tensor([0, 3, 1, 2, -1])[target]
    torch.testing.assert_close(identity_loss(logits, target), identity_loss(logits, renamed))


def test_probes_side_by_side_end_where_each_ends_alone():
    train = scenes("slots", 0)
    x = train.features[:, :40]
    both = torch.cat([x, x + torch.randn(x.shape, generator=torch.Generator().manual_seed(5))])
    together = pointwise_probe(both, train.labels[:40], "identity", 6, epochs=2)
    for index in range(2):
        alone = pointwise_probe(both[index : index + 1], train.labels[:40], "identity", 6, epochs=2)
        torch.testing.assert_close(together.weight[index], alone.weight[0], atol=1e-4, rtol=1e-3)


def test_bad_input_is_named():
    x, target = torch.randn(1, 4, 6, 3), torch.ones(4, 6, dtype=torch.long)
    with pytest.raises(ValueError, match="class, identity"):
        pointwise_probe(x, target, "kind", 3)
    with pytest.raises(ValueError, match="target"):
        pointwise_probe(x, target[:, :5], "class", 3)
    with pytest.raises(ValueError, match="at least one token"):
        pointwise_probe(x, target - 2, "class", 3)
    with pytest.raises(ValueError, match="queries"):
        pointwise_probe(x, target + 4, "identity", 3)
    with pytest.raises(ValueError, match="finite"):
        pointwise_probe(x * float("nan"), target, "class", 3)
