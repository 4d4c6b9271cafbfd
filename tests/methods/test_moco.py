"""MoCo: the loss against plain cross-entropy, the keys in the queue, the shuffled groups, the moving average."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.methods.small_methods import small_batch, small_method


def test_loss_is_cross_entropy_against_the_queue_as_it_was():
    method = small_method("moco", "convnet", temperature=0.3)
    views = method.views(small_batch(), torch.Generator().manual_seed(0))
    queue = method.queue.rows.clone()
    query = F.normalize(method.projector(method.features(views[0])), dim=1)
    key = F.normalize(method.teacher_projector(method.features(views[1], method.teacher_backbone)), dim=1)
    logits = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.T], dim=1) / 0.3
    torch.testing.assert_close(method.loss(views), F.cross_entropy(logits, torch.zeros(8, dtype=torch.long)))


def test_training_step_enqueues_its_own_keys():
    method = small_method("moco")
    views = method.views(small_batch(), torch.Generator().manual_seed(0))
    keys = method.keys(*views[1:])
    method.loss(views)
    assert torch.equal(method.queue.rows[:8], keys) and int(method.queue.cursor) == 8
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(8))


def test_query_gets_the_gradient_and_queue_and_keys_do_not():
    method = small_method("moco")
    method.loss(method.views(small_batch())).backward()
    assert method.projector[0].weight.grad.abs().sum() > 0
    assert not method.queue.rows.requires_grad and all(w.grad is None for w in method.teacher_projector.parameters())


def test_key_groups_change_batch_statistics_but_not_the_order():
    images, shuffle = torch.randn(8, 3, 16, 16), torch.rand(8)
    grouped, whole = (small_method("moco", "convnet", key_groups=groups) for groups in (4, 1))
    assert not torch.allclose(grouped.keys(images, shuffle), whole.keys(images, shuffle), atol=1e-4)
    # Without batch statistics the shuffle must be undone exactly.
    grouped.eval(), whole.eval()
    whole.load_state_dict(grouped.state_dict())
    torch.testing.assert_close(grouped.keys(images, shuffle), whole.keys(images, shuffle))


def test_teacher_is_the_average_with_the_given_momentum():
    method = small_method("moco", momentum=0.75)
    start = method.teacher_projector[0].weight.clone()
    with torch.no_grad():
        method.projector[0].weight.add_(1.0)
    method.after_step(0.5)
    torch.testing.assert_close(method.teacher_projector[0].weight, start + 0.25)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="queue_size: expected at least the 8 keys of a batch, got 5"):
        method = small_method("moco", queue_size=5)
        method.loss(method.views(small_batch()))
    with pytest.raises(ValueError, match="queue_size: expected at least 1, got 0"):
        small_method("moco", queue_size=0)
    with pytest.raises(ValueError, match="key_groups: expected at least 1, got 0"):
        small_method("moco", key_groups=0)
