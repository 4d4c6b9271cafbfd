"""ARM: no leak, and every earlier cluster is read; clusters of one patch are plain autoregression; bad input."""

from __future__ import annotations

import pytest
import torch

from sslcore.backbones import VisionMamba, VisionTransformer, cluster_order, small_convnet
from sslcore.methods import ARM
from sslcore.objectives import patchify, unpatchify
from sslcore.probes import token_influence
from tests.methods.small_methods import small_batch, small_method


def build(cluster=2, masked=True, **settings):
    torch.manual_seed(0)
    backbone = VisionMamba(16, 4, 3, 12, depth=3, state_dim=4, cluster=cluster)
    return ARM(backbone, masked=masked, decoder_dim=12, **settings).double().eval()


def influence(method):
    """Prediction by cluster (rows, from the second) against pixels by cluster (columns, from the first)."""
    size = method.backbone.cluster**2
    images = method.views(small_batch(), torch.Generator().manual_seed(0)).double()
    order = cluster_order((4, 4), method.backbone.cluster)

    def said(patches):  # one row a patch asked for, in reading order, and nothing for the first cluster
        pred = method.predict(unpatchify(patches, 4, (4, 4), 3))
        return torch.cat([pred.new_zeros(len(pred), size, pred.shape[2]), pred], 1)

    moved = token_influence(said, patchify(images, 4))[size:, order]
    return moved.unflatten(0, (-1, size)).unflatten(2, (-1, size)).amax((1, 3)) > 1e-13


@pytest.mark.parametrize("cluster", [1, 2])
def test_a_cluster_is_predicted_from_all_before_it_and_nothing_else(cluster):
    number = 16 // cluster**2
    expected = torch.ones(number - 1, number).bool().tril()
    assert torch.equal(influence(build(cluster)), expected)


def test_without_the_mask_the_answer_is_in_sight():
    seen = influence(build(masked=False))
    assert bool(seen[:, :-1].all()) and not seen[:, -1].any()  # the last cluster is never read


def test_clusters_of_one_patch_are_plain_autoregression():
    method = build(cluster=1)
    assert torch.equal(method.read, torch.arange(15)) and torch.equal(method.asked, torch.arange(1, 16))
    assert torch.equal(method.may_look, torch.ones(15, 15).bool().tril())


def test_every_weight_learns_and_taps_are_spread():
    method = build(decoder_depth=2)
    assert method.taps == (1, 3) and build(decoder_depth=4).taps == (1, 1, 2, 3)
    method.loss(method.views(small_batch(), torch.Generator().manual_seed(0)).double()).backward()
    assert [name for name, weight in method.named_parameters() if weight.grad is None] == []


def test_bad_input_is_refused():
    for backbone in (small_convnet(3), VisionTransformer(16, 4), VisionMamba(16, 4, depth=1, directions=4)):
        with pytest.raises(ValueError, match="expected a VisionMamba of one direction"):
            ARM(backbone)
    with pytest.raises(ValueError, match="expected at least two clusters, got one of 16 patches"):
        build(cluster=4)
    with pytest.raises(ValueError, match="expected a square grid"):
        ARM(VisionMamba((16, 8), 4, depth=1))
    for taps in ((), (0, 3), (1, 4), (1, 2)):
        with pytest.raises(ValueError, match="taps: expected numbers from 1 to 3, the last 3"):
            build(taps=taps)
    with pytest.raises(ValueError, match="unknown pool"):
        small_method("arm", pool="max")
