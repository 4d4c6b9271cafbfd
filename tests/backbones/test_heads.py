"""Claims about the heads: layer lists as documented, prototype scores are cosines, freezing
stops learning and nothing else."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sslcore.backbones import DINOHead, Prototypes, mlp


def kinds(net):
    return [type(layer).__name__ for layer in net]


def test_mlp_layers():
    simclr = mlp([8, 16, 4], last_norm=True, bias_last=False)
    assert kinds(simclr) == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert simclr[0].bias is None and simclr[3].bias is None and simclr[4].affine
    moco = mlp([8, 16, 4], norm=None, act="gelu")
    assert kinds(moco) == ["Linear", "GELU", "Linear"] and moco[0].bias is not None and moco[2].bias is not None
    simsiam = mlp([8, 8, 8, 8], last_norm=True, last_affine=False)
    assert kinds(simsiam).count("BatchNorm1d") == 3 and not simsiam[-1].affine
    layer = mlp([8, 16, 4], norm="layer", last_norm=True, last_affine=False)
    assert kinds(layer) == ["Linear", "LayerNorm", "ReLU", "Linear", "LayerNorm"] and layer[4].weight is None
    assert kinds(mlp([8, 4])) == ["Linear"]


def test_mlp_value_written_out():
    net, x = mlp([3, 5, 2]), torch.randn(7, 3)
    hidden = x @ net[0].weight.T
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
    expected = hidden.clamp(min=0) @ net[3].weight.T + net[3].bias
    torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: mlp([8]), "at least input and output"),
        (lambda: mlp([8, 0]), "dims"),
        (lambda: mlp([8, 4], norm="group"), "known: None, batch, layer"),
        (lambda: mlp([8, 4], act="tanh"), "known: gelu, relu"),
        (lambda: mlp([8, 4], norm=None, last_norm=True), "last_norm"),
        (lambda: Prototypes(4, 0), "num_prototypes"),
        (lambda: Prototypes(4, 3)(torch.zeros(2, 5)), "last dimension 4"),
    ],
)
def test_bad_inputs(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_prototype_scores_are_cosines_whatever_the_lengths():
    layer, x = Prototypes(6, 5), torch.randn(2, 3, 6)
    scores = layer(x)
    expected = F.cosine_similarity(x[..., None, :], layer.weight, dim=-1)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        layer.weight.mul_(torch.rand(5, 1) + 0.5)
    torch.testing.assert_close(layer(4 * x), scores, rtol=1e-5, atol=1e-5)
    layer.normalize_()
    torch.testing.assert_close(layer.weight.norm(dim=1), torch.ones(5))
    plain = Prototypes(6, 5, normalize=False)
    torch.testing.assert_close(plain(x), x @ plain.weight.T)


def test_weight_normalised_layer_equals_torch():
    layer, x = Prototypes(6, 5), F.normalize(torch.randn(4, 6), dim=-1).requires_grad_()
    reference = nn.utils.parametrizations.weight_norm(nn.Linear(6, 5, bias=False))
    with torch.no_grad():
        reference.parametrizations.weight.original0.fill_(1.0)
        reference.parametrizations.weight.original1.copy_(layer.weight)
    torch.testing.assert_close(layer(x), reference(x), rtol=1e-5, atol=1e-6)
    target = torch.randn(4, 5)
    (layer(x) * target).sum().backward()
    (reference(x) * target).sum().backward()
    direction = reference.parametrizations.weight.original1
    torch.testing.assert_close(layer.weight.grad, direction.grad, rtol=1e-4, atol=1e-4)


def test_freezing_zeroes_the_prototype_gradient_only():
    head, x = DINOHead(8, 5, hidden_dim=8, bottleneck_dim=4), torch.randn(3, 8)
    free = head(x)
    head.prototypes.freeze()
    frozen = head(x)
    assert torch.equal(free, frozen)
    frozen.square().sum().backward()
    assert head.prototypes.weight.grad.abs().max() == 0  # zero, not None: DDP waits for it
    assert head.mlp[0].weight.grad.abs().max() > 0
    copy = DINOHead(8, 5, hidden_dim=8, bottleneck_dim=4)
    copy.load_state_dict(head.state_dict())  # the switch travels with the checkpoint
    copy(x).square().sum().backward()
    assert copy.prototypes.weight.grad.abs().max() == 0
    head.prototypes.freeze(False)
    head(x).square().sum().backward()
    assert head.prototypes.weight.grad.abs().max() > 0


def test_dino_head_shapes_and_range():
    head = DINOHead(8, 32, hidden_dim=16, bottleneck_dim=4)
    for shape in ((3, 8), (2, 5, 8)):
        scores = head(torch.randn(shape))
        assert scores.shape == (*shape[:-1], 32) and scores.abs().max() <= 1 + 1e-5
    assert kinds(head.mlp) == ["Linear", "GELU", "Linear", "GELU", "Linear"]


@pytest.mark.parametrize("width", [16, 256])
def test_dino_head_keeps_the_spread_of_its_input_whatever_its_width(width: int):
    torch.manual_seed(0)
    head = DINOHead(width, 4, hidden_dim=width, bottleneck_dim=64)
    spread = head.mlp(torch.randn(500, width)).std(dim=0).mean()
    assert 0.2 < spread < 1, spread


def test_standardized_dino_head_ignores_scale_and_offset_of_its_inputs():
    head, plain = (DINOHead(8, 5, hidden_dim=8, bottleneck_dim=4, standardize=on) for on in (True, False))
    assert not any(name.startswith("standardize") for name in plain.state_dict())
    x = torch.randn(2, 30, 8)
    moved = 3 * x + torch.arange(8.0)
    torch.testing.assert_close(head(moved), head(x), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(plain(moved), plain(x), atol=0.05)
