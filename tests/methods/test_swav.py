"""SwAV: the loss against the double loop, who assigns, the queue and its fill test, frozen prototypes, the meters."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslcore.methods import SwAV
from sslcore.objectives import power_law_prior, sinkhorn_knopp
from tests.methods.small_methods import Flat, small_batch, small_method


def views_of(method, seed: int = 0):
    return method.views(small_batch(), torch.Generator().manual_seed(seed))


def cosines(method, crop):
    embedding = F.normalize(method.projector(method.features(crop)), dim=1)
    return embedding @ F.normalize(method.prototypes.weight, dim=1).T


@pytest.mark.parametrize("local_crops", [0, 2])
@pytest.mark.parametrize("settings", [{}, {"targets": "softmax"}, {"prior_exponent": 1.0}, {"num_iters": 1}])
def test_loss_predicts_the_codes_of_the_other_large_crops(local_crops: int, settings: dict):
    method = small_method(
        "swav", local_crops=local_crops, projector_norm=None, epsilon=0.1, temperature=0.2, **settings
    )
    views = views_of(method)
    assert [view.shape[-1] for view in views] == [16, 16] + [8] * local_crops
    scores = [cosines(method, crop) for crop in views]
    losses = []
    for a in range(2):
        if "targets" in settings:
            code = (scores[a] / 0.1).softmax(1)
        else:
            prior = power_law_prior(6, settings.get("prior_exponent", 0.0))
            code = sinkhorn_knopp(scores[a], 0.1, settings.get("num_iters", 3), prior=prior)
        losses += [-(code * (s / 0.2).log_softmax(1)).sum(1).mean() for v, s in enumerate(scores) if v != a]
    torch.testing.assert_close(method.loss(views), torch.stack(losses).mean())


def test_queue_is_collected_late_used_when_full_and_scored_with_the_prototypes_of_the_day():
    method = SwAV(Flat(768), projector_dims=(8, 4), num_prototypes=5, queue_size=16, queue_start=0.5, local_crops=0)
    first, second = views_of(method, 0), views_of(method, 1)
    method.loss(first)
    assert not method.queues[0].pushed and not method.queues[1].pushed
    method.after_step(0.5)
    for views, pushed in ((first, 8), (second, 16)):
        embeddings = method.embed(views)
        scores = method.prototypes(embeddings)
        alone = torch.stack([sinkhorn_knopp(part) for part in scores])
        torch.testing.assert_close(method.assign(embeddings, scores), alone)
        assert [int(queue.pushed) for queue in method.queues] == [pushed] * 2
        assert torch.equal(method.queues[1].rows[pushed - 8 : pushed], embeddings[1])
    with torch.no_grad():
        method.prototypes.weight.normal_()
    stored = method.queues[0].rows.clone()
    embeddings = method.embed(views_of(method, 2))
    scores = method.prototypes(embeddings)
    expected = sinkhorn_knopp(torch.cat([scores[0], method.prototypes(stored)]))[:8]
    code = method.assign(embeddings, scores)[0]
    torch.testing.assert_close(code, expected)
    assert (code - sinkhorn_knopp(scores[0])).abs().max() > 1e-3


def test_small_crops_predict_and_are_never_assigned():
    method = small_method("swav", projector_norm=None)
    views = views_of(method)
    embeddings = method.embed(views)
    codes = method.assign(embeddings, method.prototypes(embeddings))
    assert codes.shape == (2, 8, 6) and not codes.requires_grad
    views[2] = torch.zeros_like(views[2])
    changed = method.embed(views)
    assert torch.equal(method.assign(changed, method.prototypes(changed)), codes)


def test_prototypes_are_frozen_first_and_unit_length_always():
    method = small_method("swav", freeze_prototypes=0.5)
    descent = torch.optim.AdamW(method.parameters(), lr=0.1, weight_decay=0.5)
    start = method.prototypes.weight.detach().clone()
    torch.testing.assert_close(start.norm(dim=1), torch.ones(6))
    for number, progress in enumerate((0.2, 0.4, 0.6, 0.8)):
        descent.zero_grad()
        method.loss(views_of(method, number)).backward()
        descent.step()
        method.after_step(progress)
        weight = method.prototypes.weight.detach()
        torch.testing.assert_close(weight.norm(dim=1), torch.ones(6))
        # Weight decay shortens a frozen prototype, and the normalisation undoes it.
        assert ((weight - start).abs().max() < 1e-5) == (progress <= 0.6)


def test_meters_know_one_winner_from_many():
    method = SwAV(Flat(8), projector_dims=(8,), projector_norm=None, num_prototypes=8, local_crops=0)
    method.projector, method.prototypes.weight.data = torch.nn.Identity(), torch.eye(8)
    spread = torch.eye(8).reshape(8, 1, 2, 4)
    usage = method.usage([spread, spread])
    assert usage["prototypes"] == pytest.approx(8, rel=1e-5) and usage["entropy"] < 0.1
    same = spread[:1].expand(8, 1, 2, 4)
    assert method.usage([same, same])["prototypes"] == pytest.approx(1)
    method.prototypes.weight.data = torch.ones(8, 8)
    assert method.usage([spread, spread])["entropy"] == pytest.approx(math.log(8), rel=1e-5)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="local_crops: expected at least 0, got -1"):
        small_method("swav", local_crops=-1)
    with pytest.raises(ValueError, match="queue_size: expected at least 0, got -2"):
        small_method("swav", queue_size=-2)
    with pytest.raises(ValueError, match="unknown targets 'hard'; known: sinkhorn, softmax"):
        small_method("swav", targets="hard")
