"""The untrained control: fresh weights, same shapes, nothing else touched."""

from __future__ import annotations

import pytest
import torch

from sslcore.backbones import create_backbone, small_convnet
from sslcore.probes.untrained import untrained_copy
from tests.probes.planted import TinyTransformer


def test_fresh_weights_from_a_seed_leave_network_and_global_state_alone():
    torch.manual_seed(5)  # not 0: the copy drawn from the seed of the original would be the original
    net = TinyTransformer()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    first, again, other = untrained_copy(net, 0), untrained_copy(net, 0), untrained_copy(net, 1)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
        assert not torch.equal(first.state_dict()[name], value)
        assert torch.equal(first.state_dict()[name], again.state_dict()[name])
        assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_batch_norm_statistics_start_over():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    net(torch.randn(16, 3) * 5 + 7)
    assert torch.equal(untrained_copy(net)[1].running_mean, torch.zeros(4))


def test_a_net_with_nothing_to_reset_is_refused():
    with pytest.raises(ValueError, match="reset_parameters"):
        untrained_copy(torch.nn.Identity())


@pytest.mark.parametrize(
    "build",
    [
        lambda: create_backbone("vit", img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=2, init_values=0.1),
        small_convnet,
        lambda: create_backbone("timm/vit_tiny_patch16_224", img_size=32, embed_dim=48, depth=2, num_heads=2),
    ],
    ids=["vit", "convnet", "timm"],
)
def test_the_copy_starts_where_training_starts(build):
    """Weights spread far apart come back with the mean and deviation of a network that was just made."""
    torch.manual_seed(3)
    trained, new = build(), build()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(5).add_(1)
    copied = untrained_copy(trained, 1).state_dict()
    for name, fresh in new.named_parameters():
        value, fresh = copied[name], fresh.detach()
        # Small parameters say little about a distribution, so the tolerance falls with their size.
        slack = 6 * float(fresh.std(correction=0)) / fresh.numel() ** 0.5 + 1e-6
        assert abs(float(value.mean() - fresh.mean())) <= slack, name
        assert abs(float(value.std(correction=0) - fresh.std(correction=0))) <= slack, name
