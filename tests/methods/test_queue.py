"""EmbeddingQueue: the newest rows in order, full after enough of them, the state in the checkpoint, shares of ranks."""

from __future__ import annotations

import pytest
import torch

from sslcore.methods.queue import EmbeddingQueue


@pytest.mark.parametrize("batch, size", [(4, 12), (5, 12), (12, 12), (1, 3)])
def test_holds_the_newest_rows_in_order_and_knows_when_it_is_full(batch: int, size: int):
    queue = EmbeddingQueue(size, 2, fill="zeros")
    stream = torch.arange(200.0).reshape(100, 2)
    for start in range(0, 8 * batch, batch):
        queue.push(stream[start : start + batch])
        newest = stream[: start + batch][-size:]
        place = int(queue.cursor)
        held = torch.cat([queue.rows[place:], queue.rows[:place]])[-len(newest) :]
        assert torch.equal(held, newest)
        assert queue.full == (start + batch >= size)


def test_random_start_is_full_of_unit_rows():
    queue = EmbeddingQueue(5, 3)
    assert queue.full and len(queue) == 5
    torch.testing.assert_close(queue.rows.norm(dim=1), torch.ones(5))


def test_state_travels_and_nothing_learns():
    queue, other = EmbeddingQueue(5, 2, fill="zeros"), EmbeddingQueue(5, 2, fill="zeros")
    rows = torch.randn(3, 2, requires_grad=True)
    queue.push(rows)
    other.load_state_dict(queue.state_dict())
    for each in (queue, other):
        each.push(torch.ones(2, 2))
    assert torch.equal(queue.rows, other.rows) and other.full and not list(queue.parameters())
    assert not queue.rows.requires_grad
    share = queue.share()
    queue.push(torch.zeros(2, 2))
    assert torch.equal(share, other.rows)  # a copy


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="queue_size: expected at least 1, got 0"):
        EmbeddingQueue(0, 2)
    with pytest.raises(ValueError, match="fill: expected 'random' or 'zeros', got 'ones'"):
        EmbeddingQueue(2, 2, fill="ones")
    with pytest.raises(ValueError, match="queue_size: expected at least the 3 keys of a batch, got 2"):
        EmbeddingQueue(2, 2).push(torch.zeros(3, 2))
