"""token_influence finds who reads whom: known mixers, agreement with autograd, bad input."""

from __future__ import annotations

import pytest
import torch

from sslcore.backbones.attention import Block
from sslcore.probes import token_influence


def test_equals_a_mixing_matrix():
    mixing, x = torch.randn(5, 5).double(), torch.randn(2, 5, 1).double()
    step = (x[0] - x[1]).abs().squeeze(1)
    expected = mixing.abs() * step
    torch.testing.assert_close(token_influence(lambda s: mixing @ s, x), expected)


@pytest.mark.parametrize("mask", [None, "causal"])
def test_zero_exactly_where_the_gradient_is_zero(mask):
    torch.manual_seed(0)
    block, x = Block(8, 2).double(), torch.randn(3, 4, 8).double()
    influence = token_influence(lambda s: block(s, None, mask)[0], x)
    jacobian = torch.autograd.functional.jacobian(lambda s: block(s, None, mask)[0].sum((0, 2)), x)
    assert torch.equal(influence > 1e-12, jacobian.abs().amax((1, 3)) > 1e-12)
    assert bool((influence > 0).all()) == (mask is None)


def test_leaves_the_sequence_alone_and_refuses_bad_input():
    x = torch.randn(2, 3, 4)
    kept = x.clone()
    token_influence(lambda s: 2 * s, x)
    assert torch.equal(kept, x)
    with pytest.raises(ValueError, match="expected 3 dimensions"):
        token_influence(lambda s: s, x[0])
    with pytest.raises(ValueError, match="at least two images"):
        token_influence(lambda s: s, x[:1])
    with pytest.raises(ValueError, match=r"network: expected outputs \(2, 3, any\), got \(2, 1, 4\)"):
        token_influence(lambda s: s.mean(1, keepdim=True), x)
    with pytest.raises(TypeError, match="floating-point"):
        token_influence(lambda s: s, x.long())
