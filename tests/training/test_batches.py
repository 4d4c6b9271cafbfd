"""Every epoch visits each image once, any step can be drawn on its own, and only needed fields travel."""

from __future__ import annotations

import pytest
import torch

from sslcore.data.imageset import ImageSet
from sslcore.training.batches import StoredBatches, mix_seed
from tests.training.small_runs import pixels

ALL = slice(None)


def everything() -> ImageSet:
    return ImageSet(
        "set", "train", pixels(), labels=torch.arange(20), masks=torch.zeros(20, 4, 4, dtype=torch.uint8),
        extras={"score": torch.arange(20.0), "note": "text"},
    )  # fmt: skip


def test_epoch_visits_each_image_once_and_epochs_differ():
    source = StoredBatches(everything(), 0, "cpu")
    epochs = [torch.cat([source(4 * epoch + k, 5, ALL)["index"] for k in range(4)]) for epoch in range(3)]
    assert all(torch.equal(order.sort().values, torch.arange(20)) for order in epochs)
    assert not torch.equal(epochs[0], epochs[1]) and not torch.equal(epochs[1], epochs[2])


def test_images_left_over_are_skipped_in_that_epoch():
    source = StoredBatches(pixels(), 0, "cpu")
    seen = torch.cat([source(step, 6, ALL)["index"] for step in range(3)])
    assert len(seen.unique()) == 18
    assert source(3, 6, ALL)["index"].shape == (6,)


def test_step_can_be_drawn_on_its_own():
    straight, jumping = StoredBatches(pixels(), 3, "cpu"), StoredBatches(pixels(), 3, "cpu")
    rows = [straight(step, 5, ALL)["index"] for step in range(12)]
    for step in (11, 0, 7, 3):
        assert torch.equal(jumping(step, 5, ALL)["index"], rows[step])


def test_parts_of_the_ranks_make_up_the_batch():
    source = StoredBatches(pixels(), 3, "cpu")
    whole = source(2, 6, ALL)["index"]
    parts = [source(2, 6, slice(2 * rank, 2 * rank + 2))["index"] for rank in range(3)]
    assert torch.equal(torch.cat(parts), whole)


def test_fields_follow_their_images():
    batch = StoredBatches(everything(), 0, "cpu", needs=("masks", "score"))(1, 5, ALL)
    assert set(batch) == {"images", "labels", "index", "masks", "score"}
    assert torch.equal(batch["labels"], batch["index"]) and torch.equal(batch["score"].long(), batch["index"])
    assert torch.equal(batch["images"], pixels()[batch["index"]])
    assert StoredBatches(pixels(), 0, "cpu")(0, 5, ALL)["labels"] is None
    assert "masks" not in StoredBatches(everything(), 0, "cpu")(0, 5, ALL)


def test_missing_field_is_refused():
    with pytest.raises(ValueError, match="data: expected depth with the images, got none"):
        StoredBatches(everything(), 0, "cpu", needs=("depth", "masks"))


def test_seeds_of_neighbours_differ():
    seeds = {
        mix_seed(kind, seed, step, rank)
        for kind in (1, 2)
        for seed in range(5)
        for step in range(50)
        for rank in (0, 1)
    }
    assert len(seeds) == 1000 and all(0 <= seed < 2**63 for seed in seeds)
    assert mix_seed(1, 2) == mix_seed(1, 2)
