"""The untrained control: fresh weights, same shapes, nothing else touched."""

from __future__ import annotations

import pytest
import torch

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
