"""Claims about the convolutional nets: tokens are the last map, ResNet-18 is torchvision's,
the layout changes no value."""

from __future__ import annotations

import pytest
import torch

from sslcore.backbones import resnet18, small_convnet


@torch.no_grad()
def test_resnet18_equals_torchvision():
    models = pytest.importorskip("torchvision.models")
    net, reference = resnet18(cifar_stem=False).eval(), models.resnet18(weights=None).eval()
    parts = ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"]
    names = ["stages.0.0", "stages.0.1", "stages.1", "stages.2", "stages.3", "stages.4"]
    ours = dict(net.state_dict())
    for part, name in zip(parts, names, strict=True):
        for key, value in getattr(reference, part).state_dict().items():
            ours[f"{name}.{key}"] = value
    net.load_state_dict(ours)
    reference.fc = torch.nn.Identity()
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(net(x).cls_token, reference(x), rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in reference.parameters())


@pytest.mark.parametrize(
    ("net", "channels", "size", "grid"),
    [
        (small_convnet, 1, 28, (4, 4)),
        (small_convnet, 3, 64, (8, 8)),
        (lambda in_chans: resnet18(in_chans, width=8), 3, 32, (4, 4)),
        (lambda in_chans: resnet18(in_chans, cifar_stem=False, width=8), 1, 64, (2, 2)),
    ],
)
def test_tokens_are_the_last_map_row_by_row(net, channels, size, grid):
    net = net(channels).eval()
    x = torch.randn(2, channels, size, size)
    tokens = net(x, return_layers=True)
    plain = x
    for stage, layer in zip(net.stages, tokens.layers, strict=True):
        plain = stage(plain.contiguous())
        torch.testing.assert_close(layer, plain.flatten(2).transpose(1, 2), rtol=1e-5, atol=1e-5)
    assert tokens.grid == grid == tuple(plain.shape[2:]) and net.embed_dim == plain.shape[1]
    torch.testing.assert_close(tokens.patch_tokens[:, 1], plain[:, :, 0, 1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(tokens.cls_token, plain.mean((2, 3)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(tokens.cls_token, tokens.pooled)
    assert net.patch_size == -(-size // grid[0]) or size == 28
    assert net.num_prefix_tokens == 0 and tokens.attentions is None


def test_training_step_touches_every_parameter():
    for net, channels in ((small_convnet(), 1), (resnet18(width=8), 3)):
        net(torch.randn(4, channels, 16, 16)).cls_token.square().sum().backward()
        assert all(parameter.grad is not None for parameter in net.parameters())


def test_state_dict_round_trip():
    first, second = small_convnet(3).eval(), small_convnet(3).eval()
    second.load_state_dict(first.state_dict())
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(first(x).cls_token, second(x).cls_token)
    assert all(tensor.is_contiguous() for tensor in first.state_dict().values())  # what safetensors asks for


def test_bad_inputs():
    with pytest.raises(ValueError, match=r"\(B >= 1, 1, H, W\), got shape \(2, 3, 28, 28\)"):
        small_convnet()(torch.zeros(2, 3, 28, 28))
    with pytest.raises(TypeError, match="floating-point"):
        small_convnet()(torch.zeros(2, 1, 28, 28, dtype=torch.uint8))
    with pytest.raises(ValueError, match="resnet18 has no softmax attention"):
        resnet18(width=8)(torch.zeros(1, 3, 32, 32), return_attention=True)
    with pytest.raises(ValueError, match="no softmax attention"):
        small_convnet()(torch.zeros(1, 1, 28, 28), return_attention=[0])
    with pytest.raises(ValueError, match="at least one layer"):
        small_convnet(widths=())
    with pytest.raises(ValueError, match="width"):
        resnet18(width=0)


def test_without_norm_an_image_does_not_see_its_batch():
    net = small_convnet(3, (4, 8), norm=None, slope=0.2)
    x = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(net(x).cls_token[:1], net(x[:1]).cls_token)
    assert not any("running" in name for name in net.state_dict()) and net.stages[0][0].bias is not None
    assert (net(x).patch_tokens < 0).any() and not (small_convnet(3, (4, 8), norm=None)(x).patch_tokens < 0).any()
    with pytest.raises(ValueError, match="unknown norm 'group'; known: None, batch"):
        small_convnet(3, norm="group")
