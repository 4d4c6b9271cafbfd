"""Permuted instance ids can only be learnt by heart; misplaced tokens show in the places they predict."""

from __future__ import annotations

import pytest
import torch

from sslcore.probes.same_object.capacity import permuted_ids, place_r2
from sslcore.probes.same_object.fit import same_object_probe
from sslcore.probes.same_object.metrics import auroc
from sslcore.probes.same_object.pairs import candidate_pairs, cap_pairs
from tests.probes.planted import GRID, coded_scenes


def relabelled(scenes, seed):
    labels = permuted_ids(scenes.labels, torch.ones_like(scenes.labels, dtype=torch.bool), seed)
    pairs = candidate_pairs(labels, torch.ones(labels.shape), GRID, stratum="foreground")
    return scenes.features, cap_pairs(pairs, 100, torch.Generator().manual_seed(seed))


def test_ids_are_dealt_among_usable_tokens_only():
    labels = torch.tensor([[1, 1, 2, 0, 3, 3, 2, 1]]).repeat(50, 1)
    usable = torch.tensor([[True, True, True, True, True, True, True, False]]).repeat(50, 1)
    new = permuted_ids(labels, usable, 0)
    assert torch.equal(new[:, 3], labels[:, 3]) and torch.equal(new[:, 7], labels[:, 7])
    assert torch.equal(new.sort(1).values, labels.sort(1).values)
    assert len(new.unique(dim=0)) > 20
    twin_of = torch.tensor([[2, -1, 0]]).repeat(50, 1)  # 1 and 3 are twins: 2 must stay
    paired = permuted_ids(labels, usable, 0, twin_of)
    assert torch.equal(paired == 2, labels == 2)
    assert (paired[:, 0] != labels[:, 0]).float().mean() > 0.3


def test_a_probe_learns_permuted_ids_by_heart_or_not_at_all():
    train, val, test = (coded_scenes(n, s) for n, s in ((12, 0), (20, 1), (60, 2)))
    x, pairs = relabelled(train, 3)
    probe = same_object_probe((x, pairs), relabelled(val, 4), "quadratic", epochs=60, lr=5e-2, weight_decay=0.0)
    heart = auroc(probe.score(x, pairs)[0], pairs.same)
    fresh = auroc(probe.score(*relabelled(test, 5))[0], relabelled(test, 5)[1].same)
    assert heart > 0.55 and abs(fresh - 0.5) < 0.04
    many = coded_scenes(400, 6)
    wide = same_object_probe(relabelled(many, 7), relabelled(val, 4), "quadratic", epochs=10)
    again = relabelled(many, 7)
    assert auroc(wide.score(*again)[0], again[1].same) < heart  # more data, less by heart


def test_places_are_read_only_where_tokens_and_labels_are_in_one_order():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(32, 12, generator=generator)
    places = torch.rand(80, 32, generator=generator).argsort(1)[:, :8]
    tokens = (table[places] + 0.1 * torch.randn(80, 8, 12, generator=generator))[None]
    right = place_r2(tokens[:, :40], tokens[:, 40:], (places[:40], places[40:]), GRID)
    assert right.shape == (1,) and float(place_r2(
        torch.nn.functional.one_hot(places[:40], 32)[None].float(), torch.nn.functional.one_hot(places[40:], 32)[None],
        (places[:40], places[40:]), GRID)) == pytest.approx(1, abs=1e-3)  # fmt: skip
    wrong = places.sort(1).values
    assert float(place_r2(tokens[:, :40], tokens[:, 40:], (wrong[:40], wrong[40:]), GRID)) < float(right) - 0.2
    shuffled = places[:, torch.randperm(8, generator=generator)].flip(0)
    assert float(place_r2(tokens[:, :40], tokens[:, 40:], (shuffled[:40], shuffled[40:]), GRID)) < 0.05
