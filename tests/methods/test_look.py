"""What LOOK and SupCon add to the tests that every method passes.

Claims: the loss is the objective on the projections; the queue takes the slow copy's rows after the loss, hides an
image's own copies, and starts with rows that no class owns; without a queue no slow copy is kept.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sslcore.methods import LOOK
from sslcore.methods.labelled_queue import LabelledQueue
from sslcore.objectives import leave_one_out_knn, supcon
from tests.methods.small_methods import Flat, small_batch, small_method


def flat_look(**settings) -> LOOK:
    """LOOK on pixels with an identity projector."""
    method = LOOK(Flat(), projector_dims=(48,), **{"k": 3, **settings})
    with torch.no_grad():
        method.projector[0].weight.copy_(torch.eye(48))
        method.projector[0].bias.zero_()
    if method.queue is not None:
        method.teacher_projector.load_state_dict(method.projector.state_dict())
    return method


def some_views(num_views: int = 1):
    images = [torch.randn(8, 3, 4, 4) for _ in range(num_views)]
    return images, torch.arange(8) % 2, torch.arange(8)


def test_supcon_runs_over_all_views_with_the_labels_repeated():
    method = small_method("supcon")
    images, labels, index = method.views(small_batch())
    assert len(images) == 2 and not torch.equal(*images)
    method.eval()
    z = torch.cat([method.projector(method.features(view)) for view in images])
    torch.testing.assert_close(method.loss((images, labels, index)), supcon(z, labels.repeat(2), 0.1))


def test_without_a_queue_the_batch_votes_and_other_views_of_an_image_do_not():
    method, views = flat_look(num_views=2), some_views(2)
    z = torch.cat(views[0]).flatten(1)
    expected = leave_one_out_knn(z, views[1].repeat(2), 3, 0.1, ids=views[2].repeat(2))
    torch.testing.assert_close(method.loss(views), expected)
    assert not any(name.startswith(("teacher", "queue")) for name in method.state_dict())


def test_the_queue_is_filled_after_the_loss_and_hides_own_copies():
    method, views = flat_look(queue_size=20), some_views()
    before, (images, labels, ids) = method.queue.rows.clone(), views
    blank = torch.full((20,), -1)
    z = images[0].flatten(1)
    first = leave_one_out_knn(z, labels, 3, memory=before, memory_labels=blank, ids=ids, memory_ids=blank)
    torch.testing.assert_close(method.loss(views), first)
    torch.testing.assert_close(method.queue.rows[:8], F.normalize(z, dim=1))
    assert method.queue.labels[:8].equal(labels) and method.queue.ids[:8].equal(ids) and int(method.queue.cursor) == 8
    # The same images again: each finds the others of its class, never itself, so the loss is not that of a copy found.
    again = method.loss(views)
    memory = F.normalize(z, dim=1)
    rest = torch.cat([memory, before[8:]])
    names, marks = torch.cat([labels, blank[8:]]), torch.cat([ids, blank[8:]])
    torch.testing.assert_close(
        again, leave_one_out_knn(z, labels, 3, memory=rest, memory_labels=names, ids=ids, memory_ids=marks)
    )
    method.eval()
    cursor = int(method.queue.cursor)
    method.loss(views)
    assert int(method.queue.cursor) == cursor


def test_the_queue_is_a_ring():
    queue = LabelledQueue(5, 2)
    for start in (0, 3):
        numbers = torch.arange(start, start + 3)
        queue.push_labelled(numbers[:, None].expand(3, 2).float(), numbers, 10 * numbers)
    assert queue.labels.tolist() == [5, 1, 2, 3, 4] and queue.ids.tolist() == [50, 10, 20, 30, 40]
    assert queue.rows[:, 0].tolist() == [5, 1, 2, 3, 4] and int(queue.cursor) == 1
    with pytest.raises(ValueError, match="at least the 6 keys of a batch, got 5"):
        queue.push_labelled(torch.ones(6, 2), torch.arange(6), torch.arange(6))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="LOOK: expected labels in the data"):
        small_method("look").views(small_batch() | {"labels": None})
    with pytest.raises(ValueError, match="k: expected at least 2"):
        small_method("look", k=1)
    with pytest.raises(ValueError, match="num_views: expected at least 1"):
        small_method("supcon", num_views=0)
