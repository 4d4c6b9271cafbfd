"""DeeperCluster: exact special cases, labels that are clustered again, even sampling, runs that resume bit for bit."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslcore.backbones import small_convnet
from sslcore.methods import DeeperCluster
from sslcore.training import fit
from tests.methods.small_methods import Flat, small_batch, small_method, small_set

IMAGES = small_set().images


def views_of(method, seed=0):
    return method.views(small_batch(), torch.Generator().manual_seed(seed))


def test_one_cluster_is_rotnet():
    method = small_method("deeper_cluster", "convnet", num_super=1, num_sub=1)
    heads = method.super_head.weight.clone()
    method.reassign(IMAGES)
    assert torch.equal(heads, method.super_head.weight)  # nothing to cluster, so nothing starts anew
    views = views_of(method)
    terms = method.loss(views)
    expected = F.cross_entropy(method.super_head(method.features(views["images"])), views["rotations"])
    assert terms.sub_class == 0 and torch.equal(terms.total, expected)


def test_no_rotation_and_one_super_cluster_is_deepcluster():
    method = small_method("deeper_cluster", "convnet", num_super=1, rotations=1)
    method.reassign(IMAGES)
    views = views_of(method)
    terms = method.loss(views)
    expected = F.cross_entropy(method.sub_head(method.features(views["images"])), method.subs[:8])
    assert not views["rotations"].any()
    assert terms.super_class == 0 and torch.equal(terms.total, expected)


def test_shared_heads_are_two_independent_tasks():
    method = small_method("deeper_cluster", "convnet", num_super=1, shared_heads=True)
    method.reassign(IMAGES)
    views = views_of(method)
    features = method.features(views["images"])
    expected = F.cross_entropy(method.super_head(features), views["rotations"])
    expected = expected + F.cross_entropy(method.sub_head(features), method.subs[:8])
    torch.testing.assert_close(method.loss(views).total, expected)


def test_super_class_is_the_pair_of_super_cluster_and_rotation():
    method = small_method("deeper_cluster", "convnet")
    with torch.no_grad():
        for head in (method.super_head, method.sub_head):
            head.weight.zero_(), head.bias.zero_()
        method.super_head.bias[5] = 50.0  # super-cluster 1, a quarter turn
        method.sub_head.bias[5 * 3 + 2] = 50.0  # and its sub-cluster 2
    views = views_of(method) | {"rotations": torch.ones(8, dtype=torch.long)}
    method.supers[:8], method.subs[:8] = 1, 2
    assert method.loss(views).total.item() == pytest.approx(0.0, abs=1e-6)
    method.supers[:8] = 0
    assert method.loss(views).total > 40


def test_fresh_heads_guess():
    method = small_method("deeper_cluster", "convnet")
    with torch.no_grad():
        for weight in (*method.super_head.parameters(), *method.sub_head.parameters()):
            weight.zero_()
    assert method.loss(views_of(method)).total.item() == pytest.approx(math.log(8) + math.log(3))


def test_views_turn_each_image_by_its_own_rotation():
    method = DeeperCluster(Flat(), 24, policy=lambda images, generator: images.float())
    views = views_of(method)
    assert views["rotations"].unique().numel() > 1
    for image, turned, number in zip(small_batch()["images"], views["images"], views["rotations"], strict=True):
        assert torch.equal(turned, image.float().rot90(int(number), (1, 2)))


def test_reassign_finds_planted_clusters():
    shade = torch.arange(24) % 4
    images = (40 * shade[:, None, None, None] + torch.zeros(24, 3, 8, 8)).to(torch.uint8)
    images[:, 0] += (shade % 2 * 60).to(torch.uint8)[:, None, None]
    method = DeeperCluster(Flat(192), 24, num_super=2, num_sub=2, pca_dim=3)
    method.reassign(images)
    pairs = method.supers * 2 + method.subs
    assert all(len(set(pairs[shade == kind].tolist())) == 1 for kind in range(4)) and pairs.unique().numel() == 4
    assert int(method.rounds) == 1


def test_reassign_leaves_training_mode_and_random_state_alone():
    method = small_method("deeper_cluster", "convnet").train()
    buffers = {name: value.clone() for name, value in method.backbone.named_buffers()}
    state = torch.random.get_rng_state()
    before = method.sub_head.weight.clone()
    method.reassign(IMAGES)
    assert method.backbone.training and torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(buffers[name], value) for name, value in method.backbone.named_buffers())
    assert not torch.equal(before, method.sub_head.weight)


def test_batches_cluster_again_on_time_and_draw_evenly():
    method = small_method("deeper_cluster", "convnet", num_super=1, num_sub=2, rotations=1)
    batches = method.batches(IMAGES, every=3)
    generator = torch.Generator().manual_seed(0)
    rounds = [int(method.rounds) for step in range(7) if batches(step, 4, generator) is not None]
    assert rounds == [1, 1, 1, 2, 2, 2, 3]
    method.subs = (torch.arange(24) == 0).long()  # one image against twenty-three
    for uniform, share in ((True, 0.5), (False, 1 / 24)):
        index = method.batches(IMAGES, 10, uniform)(1, 4000, generator)["index"]
        assert float((index == 0).float().mean()) == pytest.approx(share, abs=0.03)


def test_a_broken_run_resumes_on_the_same_weights(tmp_path):
    def run(method, steps, checkpoint=None, stop=None):
        source = method.batches(IMAGES, every=2)

        def batches(step, batch_size, generator):
            if step == stop:
                raise KeyboardInterrupt
            return source(step, batch_size, generator)

        fit(method, batches, steps=steps, batch_size=8, checkpoint=checkpoint, checkpoint_every=1, device="cpu")

    whole = small_method("deeper_cluster", "convnet")
    run(whole, 6)
    for stop in (3, 4):
        path = tmp_path / f"{stop}.pt"
        with pytest.raises(KeyboardInterrupt):
            run(small_method("deeper_cluster", "convnet"), 6, path, stop)
        resumed = small_method("deeper_cluster", "convnet", seed=9)
        run(resumed, 6, path)
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), name


def test_bad_input_is_refused():
    net = small_convnet(3, (4, 8))
    for settings, message in (
        ({"rotations": 2}, "rotations: expected 1 or 4, got 2"),
        ({"num_sub": 0}, "num_super, num_sub: expected >= 1, got 2, 0"),
        ({"num_images": 1}, "num_images: expected at least 2, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            DeeperCluster(net, **{"num_images": 24, **settings})
    method = DeeperCluster(net, 24)
    with pytest.raises(ValueError, match="images: expected 24, got 3"):
        method.reassign(IMAGES[:3])
    with pytest.raises(ValueError, match="every: expected at least 1 step, got 0"):
        method.batches(IMAGES, 0)
