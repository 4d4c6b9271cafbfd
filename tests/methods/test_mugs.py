"""Mugs: its three losses by hand, its memories and queues, the switch of each granularity, the control."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sslcore.objectives import granular_clustering, granular_nce
from tests.methods.small_methods import small_batch, small_method


def views_of(method, seed: int = 0):
    return method.views(small_batch(), torch.Generator().manual_seed(seed))


def contrast(method, name, student, teacher):
    """InfoNCE of (V, B, D) student and (2, B, D) teacher features through the heads of `name`, crop by crop."""
    queries = [method.predictors[name](F.normalize(method.heads[name](x), dim=1)) for x in student]
    keys = [F.normalize(method.teacher_heads[name](x), dim=1) for x in teacher]
    return granular_nce(torch.stack(queries), torch.stack(keys), method.queues[name].rows, method.temperature)


def test_losses_by_hand():
    method = small_method("mugs", weights=(1.0, 2.0, 3.0))
    for name in ("student", "teacher"):
        method.memories[name].push(torch.randn(16, 12))
    views = views_of(method)
    assert len(views) == 5
    student, teacher = [method.backbone(x) for x in views[2:]], [method.teacher_backbone(x) for x in views[:2]]
    classes, known = [x.cls_token for x in student], [x.cls_token for x in teacher]
    expected = [contrast(method, "instance", classes, known)]
    grouped = []
    for tokens, heads, memory in (
        (student, method.heads, method.memories["student"]),
        (teacher, method.teacher_heads, method.memories["teacher"]),
    ):
        rows = []
        for crop in tokens:
            u = crop.patch_tokens.mean(1)
            nearest = F.cosine_similarity(u[:, None], memory.rows[None], dim=2).topk(3).indices
            rows.append(heads["relation"](u, memory.rows[nearest]))
        grouped.append(rows)
    expected.append(contrast(method, "local", *grouped))
    logits = torch.stack([method.heads["group"](x) for x in classes])
    targets = torch.stack([method.teacher_heads["group"](x) for x in known])
    expected.append(granular_clustering(logits, targets, method.center, 0.1, 0.04))
    terms = method.loss(views)
    for term, weight, value in zip(terms, (1, 2, 3), expected, strict=False):
        torch.testing.assert_close(term, value * weight / 6)
    torch.testing.assert_close(terms.total, sum(terms[:3]))


@pytest.mark.parametrize("batch", [4, 8])
def test_memories_hold_exactly_the_newest_means(batch: int):
    """The public code moves its pointer twice a step, so every other block keeps its random start."""
    method = small_method("mugs")
    stream = []
    for step in range(16 // batch):
        views = [view[:batch] for view in views_of(method, step)]
        with torch.no_grad():
            stream.append(method.encode(views[2:], method.backbone)[1][0])
            method.loss(views)
    assert torch.allclose(method.memories["student"].rows, torch.cat(stream), atol=1e-6)
    assert int(method.memories["student"].cursor) == 0


def test_keys_of_a_step_are_no_negatives_of_that_step():
    method = small_method("mugs", weights=(1.0, 0.0, 0.0))
    views = views_of(method)
    before = method.queues["instance"].rows.clone()
    first = method.loss(views).total
    assert not torch.equal(before, method.queues["instance"].rows)
    method.queues["instance"].rows.copy_(before)
    torch.testing.assert_close(method.eval().loss(views).total, first)


@pytest.mark.parametrize(
    ("weights", "heads", "queues"),
    [
        ((1, 0, 0), {"instance"}, {"instance"}),
        ((0, 1, 0), {"local", "relation"}, {"local"}),
        ((0, 0, 1), {"group"}, set()),
        ((1, 0, 1), {"instance", "group"}, {"instance"}),
    ],
)
def test_a_weight_of_zero_removes_head_queue_and_term(weights, heads, queues):
    method = small_method("mugs", weights=weights)
    assert set(method.heads) == heads and set(method.queues) == queues
    assert hasattr(method, "memories") == bool(weights[1])
    terms = method.loss(views_of(method))
    assert [bool(term > 0) for term in terms[:3]] == [weight > 0 for weight in weights]
    terms.total.backward()
    learning = [p for name, p in method.named_parameters() if name.startswith(("heads", "predictors"))]
    assert all(p.grad is not None for p in learning)


def test_gradient_reaches_the_backbone_through_the_group_and_not_the_memory():
    method = small_method("mugs", weights=(0.0, 1.0, 0.0))
    method.loss(views_of(method)).total.backward()
    assert method.backbone.blocks[0].attn.qkv.weight.grad.abs().sum() > 0
    assert not method.memories["student"].rows.requires_grad


def test_any_rows_ignore_the_query():
    method = small_method("mugs", retrieval="any")
    method.heads["relation"] = torch.nn.Module()
    method.heads["relation"].forward = lambda feature, rows: rows.flatten(1)
    means = torch.randn(3, 8, 12)
    rows = method.grouped(means, method.heads, method.memories["student"])
    assert torch.equal(rows, method.grouped(torch.randn(3, 8, 12), method.heads, method.memories["student"]))
    assert torch.equal(rows[0, 0].view(3, 12), method.memories["student"].rows[:3])


def test_without_small_crops_it_still_learns():
    method = small_method("mugs", local_crops=0)
    views = views_of(method)
    assert len(views) == 4 and torch.isfinite(method.loss(views).total)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="local_crops"):
        small_method("mugs", local_crops=-1)
    with pytest.raises(ValueError, match="num_neighbours: expected 0 to 16"):
        small_method("mugs", num_neighbours=17)
    with pytest.raises(ValueError, match="unknown retrieval 'best'; known: any, nearest"):
        small_method("mugs", retrieval="best")
