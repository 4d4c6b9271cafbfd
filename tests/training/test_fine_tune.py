"""fine_tune: learns from labels, leaves the network as it was, chooses on val only, says what is wrong."""

from __future__ import annotations

import copy

import pytest
import torch

from sslcore.backbones import VisionTransformer
from sslcore.data import ImageSet, few_labels, load
from sslcore.training import fine_tune
from sslcore.training.fine_tune import accuracy_of

SHORT = {"steps": 3, "batch_size": 8, "lr": 1e-3, "device": "cpu"}


def network() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(img_size=16, patch_size=8, in_chans=1, embed_dim=16, depth=1, num_heads=2)


def brightness(count: int, classes: int = 2, seed: int = 0) -> ImageSet:
    """Class = how bright the image is."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    noise = torch.randint(0, 40, (count, 1, 16, 16), generator=generator)
    return ImageSet("brightness", "any", (noise + 200 * labels[:, None, None, None] // classes).to(torch.uint8), labels)


def test_learns_and_leaves_the_network_alone():
    backbone = network().requires_grad_(False)
    before = copy.deepcopy(backbone.state_dict())
    found = fine_tune(backbone, brightness(32), brightness(16, seed=1), brightness(16, seed=2), steps=40, lr=3e-3)
    assert found.accuracy == 1.0 and found.val_accuracy == 1.0 and found.seconds > 0
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())
    tuned = found.method.backbone.state_dict()
    assert any(not torch.equal(before[key], tuned[key]) for key in before), "the copy's own weights moved"
    assert not any(p.requires_grad for p in backbone.parameters()) and not found.method.training


def test_rate_is_chosen_on_val_and_test_is_read_once():
    train, val, test = brightness(32), brightness(16, seed=1), brightness(16, seed=2)
    inverted = ImageSet("inverted", "test", test.images, 1 - test.labels)
    found = fine_tune(network(), train, val, inverted, steps=40, lr=(1e-9, 3e-3))
    assert found.lr == 3e-3 and found.accuracy == 0.0, "a test set of wrong answers must not sway the choice"
    assert list(found.curve) == [1e-9, 3e-3] and found.curve[3e-3] == found.val_accuracy
    assert accuracy_of(found.method, val) == found.val_accuracy


def test_seed_alone_decides():
    sets = brightness(16), brightness(8, seed=1), brightness(8, seed=2)
    first, backbone = fine_tune(network(), *sets, **SHORT), network()
    torch.rand(5)
    state = torch.get_rng_state()
    again = fine_tune(backbone, *sets, **SHORT)
    assert torch.equal(state, torch.get_rng_state())
    assert first.history.loss == again.history.loss
    assert fine_tune(network(), *sets, **SHORT, seed=1).history.loss != first.history.loss


def test_fewer_labels_than_a_batch():
    train = brightness(64)
    few = train.subset(few_labels(train.labels, 2))
    assert fine_tune(network(), few, train, train, **SHORT).history.images_seen == 3 * 4


def test_real_clothes_from_ten_labels_a_class_beat_chance():
    train = load("fashion_mnist")
    few = train.subset(few_labels(train.labels, 10))
    val, test = load("fashion_mnist", "val").subset(slice(200)), load("fashion_mnist", "test").subset(slice(200))
    torch.manual_seed(0)
    backbone = VisionTransformer(img_size=28, patch_size=7, in_chans=1, embed_dim=64, depth=2, num_heads=4)
    assert fine_tune(backbone, few, val, test, steps=80, lr=2e-3, device="cpu").accuracy > 0.4


def test_bad_input():
    good = brightness(16)
    unlabelled = ImageSet("unlabelled", "any", good.images)
    with pytest.raises(ValueError, match="train: expected images with labels"):
        fine_tune(network(), unlabelled, good, good, **SHORT)
    with pytest.raises(ValueError, match="test: expected images with labels"):
        fine_tune(network(), good, good, good.subset(slice(0, 0)), **SHORT)
    with pytest.raises(ValueError, match=r"val: expected classes that occur in train, got also \[2\]"):
        fine_tune(network(), good, brightness(6, classes=3), good, **SHORT)
    with pytest.raises(ValueError, match="at least one learning rate"):
        fine_tune(network(), good, good, good, **SHORT | {"lr": ()})
    with pytest.raises(ValueError, match="steps"):
        fine_tune(network(), good, good, good, **SHORT | {"steps": 0})
