"""The set behind the binding read-out: every object has a twin, and test photos are never seen in training."""

import pytest
import torch

from sslcore.data import load


def test_every_object_has_its_twin_and_photos_are_held_out():
    train, test = load("twins", "train", num=20), load("twins", "test", num=20)
    twins = test.extras["twin_of"]
    assert (twins >= 0).all() and torch.equal(twins.gather(1, twins), torch.arange(4).expand(20, 4))
    objects = test.extras["objects"]
    assert torch.equal(objects, objects.gather(1, twins))
    assert not set(objects.flatten().tolist()) & set(train.extras["objects"].flatten().tolist())
    assert test.name == "twins" and test.split == "test"


def test_unknown_split_lists_known():
    with pytest.raises(ValueError, match="known: test, train, val"):
        load("twins", "dev")
